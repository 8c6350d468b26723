"""The seal of a JSON file: a hash of everything else in it.

Markers and summaries hold what nothing else on disk repeats, so only a seal tells that a bit of it has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skelfit.config.identity import mapping_hash

SEAL = "content_sha256"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same with its seal as the last key."""
    return {**content, SEAL: mapping_hash(content)}


def unsealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same without the seal."""
    return {key: value for key, value in content.items() if key != SEAL}


def is_broken(content: Mapping[str, Any]) -> bool:
    """Whether there is a seal, and it is not that of the content. Files of earlier versions have none."""
    if SEAL not in content:
        return False
    try:
        return bool(content != sealed(unsealed(content)))
    except ValueError:  # NaN or infinity, which skelfit never writes
        return True
