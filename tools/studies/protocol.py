"""Neutral labels read as SKEL-CF reads them, compared with the pipeline.

SKEL-CF's tool uses the neutral betas as betas of SMPL's male body, fits the mesh of that body, and gives SKEL the same
betas. Its errors look small, since its target is in SKEL's own shape space; the neutral meshes of the labels show its
real errors. The study makes these choices one after the other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from skelfit.benchmark.fit_speed import Labels, make_labels
from skelfit.benchmark.text_table import table
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.fit_settings import FitConfig
from skelfit.errors import ConfigError
from skelfit.fitting.fitter import Fitter
from tools.studies.setup import Setup, Study, check_own_targets, distribution

OURS, COPIED, HELD, THEIRS = (
    "the pipeline",
    "betas copied, then refined",
    "betas copied and held",
    "male target",
)


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per kind of poses and reading of neutral labels: errors to three meshes, and turns of the joints."""
    check_own_targets(setup)
    fit, records = setup.fit, list[dict[str, Any]]()
    if fit.skel_gender == "best":
        raise ConfigError(setup.pipeline.name, "fit.skel_gender", "male or female, for this study", "best")
    for kind, labels in make_labels(setup.people, "neutral").items():
        setup.say(f"{setup.people} {kind} people, neutral labels, four fits")
        ours: Tensor | None = None
        for reading, config in _readings(fit).items():
            figures, turns = _figures(setup, config, labels, ours)
            ours = turns if ours is None else ours
            records.append({"poses": kind, "people": setup.people, "way": reading} | figures)
    return records


def _readings(fit: FitConfig) -> dict[str, FitConfig]:
    """The pipeline's reading; then SKEL-CF's choices, each added to those before it."""
    copied = replace(fit, betas="copy")
    held = replace(copied, stages=tuple(replace(s, refine_betas=False) for s in fit.stages))
    return {OURS: fit, COPIED: copied, HELD: held, THEIRS: replace(held, neutral_target="gendered")}


@torch.no_grad()
def _figures(
    setup: Setup, config: FitConfig, labels: Labels, ours: Tensor | None
) -> tuple[dict[str, Any], Tensor]:
    """Of a fit: mean distances of its skin to meshes, mm; and the turns of its joints (N, 24, 3, 3).

    to_target: as the fit has it; to_label: the label's own neutral mesh, as it stands (`pve`) and moved to where the
    two skins' middles meet (`moved`); turned_deg: the largest turn of a body joint against those of `ours`.
    """
    result = Fitter(setup.models, config, setup.device).fit(
        "neutral", labels.pose, labels.betas, labels.transl
    )
    skel = SkelModel(setup.models.skel_of(config.skel_gender), dtype=torch.float64)
    smpl = SmplModel(setup.models.smpl_of("neutral"), dtype=torch.float64)
    betas, q, trans = result.betas.double(), result.poses.double(), result.trans.double()
    frames = skel.frames(betas)
    turns = frames.frame.mT @ skel.joints(frames, q).local_rot @ frames.frame
    skin = skel.forward(skel.shape(betas), q, trans).vertices
    label = smpl.vertices(labels.pose.double(), labels.betas.double(), labels.transl.double())
    apart = skin - label
    moved = apart - apart.mean(1, keepdim=True)
    return {
        "target": config.target_gender("neutral", str(config.skel_gender)),
        "to_target_mm": distribution(result.pve_mm),
        "to_label_mm": distribution(1000 * apart.norm(dim=-1).mean(1)),
        "to_label_moved_mm": distribution(1000 * moved.norm(dim=-1).mean(1)),
        "turned_deg": None if ours is None else distribution(_largest_turn(ours, turns)),
        "converged": float(result.converged.double().mean()),
    }, turns


def _largest_turn(one: Tensor, other: Tensor) -> Tensor:
    """The largest angle (N,) in degrees between rotations (N, 24, 3, 3) of the body's joints."""
    cosine = ((one.mT @ other).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.rad2deg(torch.arccos(cosine[:, 1:].clamp(-1, 1))).amax(1)


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per kind of poses and reading."""
    heads = ("poses", "neutral labels", "target", "PVE to it, mm", "p95", "PVE to the label, mm", "p95")
    rows = []
    for r in records:
        errors = [
            f"{r[name][what]:.2f}" for name in ("to_target_mm", "to_label_mm") for what in ("mean", "p95")
        ]
        turned = r["turned_deg"]
        turns = ["-", "-"] if turned is None else [f"{turned[name]:.1f}" for name in ("p50", "p95")]
        rows.append(
            (r["poses"], r["way"], r["target"], *errors, f"{r['to_label_moved_mm']['mean']:.2f}", *turns)
        )
    return table((*heads, "moved onto it", "turned p50, deg", "p95"), rows)


STUDY = Study("what SKEL-CF's reading of neutral labels costs", 256, ("neutral",), run, text)
