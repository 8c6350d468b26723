"""A report with chosen worst people, for the tests of its page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skelfit.bodies.model_set import ModelSet
from skelfit.shards.shard_reader import read_samples
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.person_measures import measure
from skelfit.verification.measures.posed_bodies import BodyModels
from skelfit.verification.report.aggregate import Aggregate
from skelfit.verification.report.tables import tables
from skelfit.verification.report.worst_people import person_to_json

_DAMAGE = {
    "shard": "people-000000",
    "sample": None,
    "kind": "tar",
    "message": "people-000000.tar: <b>flipped</b>",
}


def make_report(folder: Path, models: ModelSet, worst: Sequence[str]) -> dict[str, Any]:
    """A report on the first shard of a run; `worst` are keys, which need not exist."""
    samples = list(read_samples(folder / "people-000000.tar"))
    keys, labels, metas = zip(*samples, strict=True)
    metrics = measure(
        BodyModels(models), DecodedPeople("people-000000", keys, np.array(labels), metas), bones_every=1
    )
    measured = {key: person_to_json(metrics, i) for i, key in enumerate(keys)}
    return {
        "version": "skelfit-verify-2",
        "verdict": "damaged",
        "people": {"whole": len(keys), "measured": len(keys)},
        "integrity": {
            "subset": "people",
            "whole": False,
            "shards": 1,
            "rows_in": len(keys) + 2,
            "people": len(keys),
            "statuses": {"ok": len(keys), "bad_input": 2},
            "rejected": {"bad_input: pose": 2},
            "identity_sha256": "0" * 64,
            "unfinished": False,
            "faults": 1,
            "damaged": {"tar": 1},
            "damage": [_DAMAGE],
            "folders": [{"folder": str(folder)}],
        },
        **tables(Aggregate.of(metrics)),
        "worst": [
            {"key": key, "shard": "people-000000", "metrics": measured.get(key, {}), "worst_by": ["pve_mm"]}
            for key in worst
        ],
        "keep": {
            "kept": 4,
            "dropped": 1,
            "damaged": 0,
            "gates": {"max_vertex": {"limit": 60.0, "unit": "mm", "meaning": "largest", "dropped": 1}},
        },
    }
