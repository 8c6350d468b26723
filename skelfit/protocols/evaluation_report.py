"""The report of an evaluation, as plain data with a version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit import __version__
from skelfit.protocols.figures import BEYOND_DEG, SEEN, pck, violations
from skelfit.protocols.protocol import Protocol
from skelfit.protocols.row_scores import RowScores
from skelfit.verification.report.histogram import Histogram

VERSION = "skelfit-evaluate-1"
WORST = 12  # by each figure
Report = dict[str, Any]


def make_report(
    protocol: Protocol,
    stages: Sequence[str],
    scores: RowScores,
    imgname: Sequence[str],
    about: Mapping[str, Any],
) -> Report:
    """The report on scored rows; about: what else it says, such as where things come from."""
    ok = scores.ok
    return {
        "version": VERSION,
        "skelfit": __version__,
        "protocol": {**asdict(protocol), "errors": list(protocol.errors), "pck_at": list(protocol.pck_at)},
        **about,
        "rows": {
            "total": len(scores.status),
            "statuses": dict(Counter(scores.status).most_common()),
            "reasons": _reasons(scores),
        },
        "stages": [_stage(protocol, name, scores, s, ok) for s, name in enumerate(stages)],
        "worst": worst_people(protocol, scores, imgname),
    }


def _reasons(scores: RowScores) -> dict[str, dict[str, int]]:
    """The most frequent reasons by status."""
    by_status: dict[str, Counter[str]] = {}
    for status, reason in zip(scores.status, scores.reason, strict=True):
        if reason:
            by_status.setdefault(status, Counter())[reason] += 1
    return {status: dict(reasons.most_common(5)) for status, reasons in by_status.items()}


def _stage(protocol: Protocol, name: str, scores: RowScores, s: int, ok: NDArray[np.int64]) -> dict[str, Any]:
    figures = [pck(scores.distances[s, ok], at) for at in protocol.pck_at]
    return {
        "name": name,
        "people": len(ok),
        "errors": {
            error: Histogram.of(scores.errors[s, ok, e]).to_json() for e, error in enumerate(protocol.errors)
        },
        "pck": [
            {"at": f.at, "seen_confidence": SEEN, "mean": f.mean, "keypoints": list(f.of_keypoints)}
            for f in figures
        ],
        "knees_elbows": {"beyond_deg": list(BEYOND_DEG), "joints": violations(scores.hinges_deg[s, ok])},
    }


def worst_people(protocol: Protocol, scores: RowScores, imgname: Sequence[str]) -> list[dict[str, Any]]:
    """The worst rows by each figure of the last stage, in turn the next worst by each; each row once."""
    ok = scores.ok
    if not len(ok):
        return []
    figures = _figures_of_people(protocol, scores, ok)
    lists = {
        name: ok[np.lexsort((ok, -np.nan_to_num(values)))][:WORST].tolist()
        for name, values in figures.items()
    }
    position = {int(row): i for i, row in enumerate(ok)}
    in_turn = dict.fromkeys(row for rank in zip_longest(*lists.values()) for row in rank if row is not None)
    return [
        {
            "row": row,
            "imgname": imgname[row],
            "worst_by": [name for name, rows in lists.items() if row in rows],
            "figures": {name: round(float(values[position[row]]), 4) for name, values in figures.items()},
            "knees_elbows_deg": round(float(scores.hinges_deg[-1, row].max()), 4),
        }
        for row in in_turn
    ]


def _figures_of_people(
    protocol: Protocol, scores: RowScores, ok: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """What people are ranked by, larger is worse: errors in mm, or the share of keypoints that are wrong."""
    if protocol.errors:
        return {error: scores.errors[-1, ok, e] for e, error in enumerate(protocol.errors)}
    distances = scores.distances[-1, ok]
    labelled = ~np.isnan(distances)
    wrong = (labelled & ~(distances < max(protocol.pck_at))).sum(1) / np.maximum(labelled.sum(1), 1)
    return {"wrong_share": wrong}
