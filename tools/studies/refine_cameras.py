"""Part of the study of refinements: people whose true focal length the refiner is not told.

Three ways to refine the same people: with the true camera; without a camera, so that the focal length is estimated; and
with the prior's focal length held, right or wrong. The last two have no place either: the prior's camera places people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from skelfit.benchmark.text_table import table
from skelfit.bodies.model_set import ModelSet
from skelfit.config.refine_settings import FocalConfig, RefineConfig
from skelfit.fitting.refinement.refinement_problem import (
    BodyParameters,
    RefinementProblem,
    RefinementResult,
    RefinementStatus,
)
from skelfit.fitting.refinement.refiner import Refiner
from tools.studies.setup import distribution

OFFS = (-0.3, 0.0, 0.4)  # of the prior's centre, as a share of the true focal length
_HELD = 1e6  # a weight of the prior that leaves no choice
_MEASURES = {"px": "px", "mpjpe_mm": "MPJPE", "pve_mm": "PVE", "pa_mpjpe_mm": "PA-MPJPE"}


@dataclass(frozen=True)
class CameraCase:
    """People with known parameters and cameras, and what is measured of them."""

    models: ModelSet
    device: str
    people: BodyParameters  # the truth
    size: tuple[int, int]  # of the image, px
    # by the shake of labels in rad and the noise of keypoints in px; with the true camera
    problem: Callable[[float, float], RefinementProblem]
    measure: Callable[[BodyParameters, Tensor], dict[str, Tensor]]  # of refined people and their cameras


def compare_cameras(
    case: CameraCase, labels: Iterable[tuple[float, float]], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Per shake and noise of the labels: the true camera, then each centre of the prior, estimated and held."""
    return [record for one in labels for record in _of_labels(case, one, say)]


def _of_labels(
    case: CameraCase, labels: tuple[float, float], say: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    problem, usual = case.problem(*labels), RefineConfig()
    say(f"cameras, labels shaken by {labels[0]:g} rad, {labels[1]:g} px of noise")
    result = Refiner(case.models, usual, case.device).refine(problem)
    yield _record(case, problem, result, "true camera", labels, 0.0)
    size = torch.tensor([case.size], dtype=torch.float32).expand(len(problem), 2)
    unknown = replace(problem, cam_int=torch.zeros_like(problem.cam_int), image_size=size)
    true_centre = float(problem.cam_int[0, 0, 0]) / math.hypot(*case.size)
    for off in OFFS:
        centre = (1 + off) * true_centre
        for kind, weight in (("estimated", usual.focal.weight), ("held", _HELD)):
            config = replace(usual, focal=FocalConfig(centre, weight, usual.focal.range))
            result = Refiner(case.models, config, case.device).refine(unknown)
            yield _record(case, problem, result, kind, labels, off)


def _record(
    case: CameraCase,
    problem: RefinementProblem,
    result: RefinementResult,
    kind: str,
    labels: tuple[float, float],
    off: float,
) -> dict[str, Any]:
    """Figures of those who were refined."""
    rows = result.status == int(RefinementStatus.REFINED)
    found = case.measure(result.refined, result.cam_int)
    found["focal"] = (result.cam_int[:, 0, 0] / problem.cam_int[:, 0, 0] - 1).abs()
    found["depth"] = (result.refined.transl[:, 2] / case.people.transl[:, 2] - 1).abs()
    return {
        "camera": kind,
        "shaken": labels[0],
        "noise_px": labels[1],
        "off": off,
        "people": len(problem),
        "refined": int(rows.sum()),
        **{name: distribution(found[name][rows]) for name in ("focal", "depth", *_MEASURES)},
    }


def camera_lines(records: list[dict[str, Any]]) -> list[str]:
    """The table of these records."""
    rows = []
    for r in (r for r in records if "camera" in r):
        shares = [f"{100 * r[name][q]:.0f} %" for name in ("focal", "depth") for q in ("mean", "p95")]
        off = "" if r["camera"] == "true camera" else f"{100 * r['off']:+.0f} %"
        cells = [f"{r[name]['mean']:.1f}" for name in _MEASURES]
        rows.append(
            (f"{r['shaken']:g}", f"{r['noise_px']:g}", r["camera"], off, str(r["refined"]), *shares, *cells)
        )
    heads = (
        "shake",
        "noise px",
        "camera",
        "prior off",
        "refined",
        "focal",
        "focal p95",
        "depth",
        "depth p95",
    )
    return table((*heads, *_MEASURES.values()), rows)
