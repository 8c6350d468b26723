"""The identity of a configuration: its hash, and in which fields two of them differ."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from skelfit.config.yaml_dataclasses import dotted


def stable_hash(config: Any) -> str:
    """sha256 (hex) of a dataclass, the same in every process, for every order of keys, and for 1 and 1.0."""
    return mapping_hash(dataclasses.asdict(config))


def mapping_hash(config: Mapping[str, Any]) -> str:
    """`stable_hash` of a mapping."""
    text = json.dumps(canonical(config), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The fields, dotted and sorted, in which two configurations differ: 'fit.batch: 256 against 512'."""
    flat_a, flat_b = _flatten(canonical(a)), _flatten(canonical(b))
    keys = sorted(k for k in flat_a.keys() | flat_b.keys() if flat_a.get(k) != flat_b.get(k))
    return [f"{k}: {flat_a.get(k, 'absent')} against {flat_b.get(k, 'absent')}" for k in keys]


def identities_of(identity: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The identity that a run's shards have: before each --extend, by which its labels grew, and as it is now.

    A run that was never extended has one. The shards of each go on behind the rows of the one before.
    """
    extends = identity.get("extends")
    earlier = extends if isinstance(extends, list) else []
    rest = {key: value for key, value in identity.items() if key != "extends"}
    return [
        {**rest, "labels": labels, **({"extends": earlier[:i]} if i else {})}
        for i, labels in enumerate([*earlier, identity.get("labels") or []])
    ]


def canonical(value: Any) -> Any:
    """Nested plain data that is equal for equal configurations: lists for tuples, 1 for 1.0."""
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _flatten(value: Any, where: str = "") -> dict[str, str]:
    """Leaves by dotted key, as JSON text (which tells 1 from true and '1' from 1)."""
    if isinstance(value, dict) and value:
        parts = [_flatten(v, dotted(where, k)) for k, v in value.items()]
    elif isinstance(value, list) and value:
        parts = [_flatten(v, f"{where}[{i}]") for i, v in enumerate(value)]
    else:
        return {where: json.dumps(value)}
    return {k: v for part in parts for k, v in part.items()}
