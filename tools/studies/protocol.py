"""Neutral labels read as SKEL-CF reads them: what it does to the people, beside the pipeline's way.

SKEL-CF's tool takes the neutral betas' numbers for those of SMPL's male body, fits the mesh of that one, and gives SKEL
the same numbers. Its errors look small, since its target is of SKEL's own shape space; how far its people are from the
labels shows against the labels' neutral meshes. The choices are made one after the other.
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
    """Per kind of poses and way of reading neutral labels: errors to three meshes, and turns of the joints."""
    check_own_targets(setup)
    fit, records = setup.fit, list[dict[str, Any]]()
    if fit.skel_gender == "best":
        raise ConfigError(setup.pipeline.name, "fit.skel_gender", "male or female, for this study", "best")
    for kind, labels in make_labels(setup.people, "neutral").items():
        setup.say(f"{setup.people} {kind} people, neutral labels, four fits")
        ours: Tensor | None = None
        for way, config in _ways(fit).items():
            figures, turns = _figures(setup, config, labels, ours)
            ours = turns if ours is None else ours
            records.append({"poses": kind, "people": setup.people, "way": way} | figures)
    return records


def _ways(fit: FitConfig) -> dict[str, FitConfig]:
    """The pipeline's way first; then SKEL-CF's choices, each on top of those before it."""
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
    found = Fitter(setup.models, config, setup.device).fit(
        "neutral", labels.pose, labels.betas, labels.transl
    )
    skel = SkelModel(setup.models.skel_of(config.skel_gender), dtype=torch.float64)
    smpl = SmplModel(setup.models.smpl_of("neutral"), dtype=torch.float64)
    betas, q, trans = found.betas.double(), found.poses.double(), found.trans.double()
    frames = skel.frames(betas)
    turns = frames.frame.mT @ skel.joints(frames, q).local_rot @ frames.frame
    skin = skel.forward(skel.shape(betas), q, trans).vertices
    label = smpl.vertices(labels.pose.double(), labels.betas.double(), labels.transl.double())
    apart = skin - label
    moved = apart - apart.mean(1, keepdim=True)
    return {
        "target": config.target_gender("neutral", str(config.skel_gender)),
        "to_target_mm": distribution(found.pve_mm),
        "to_label_mm": distribution(1000 * apart.norm(dim=-1).mean(1)),
        "to_label_moved_mm": distribution(1000 * moved.norm(dim=-1).mean(1)),
        "turned_deg": None if ours is None else distribution(_largest_turn(ours, turns)),
        "converged": float(found.converged.double().mean()),
    }, turns


def _largest_turn(one: Tensor, other: Tensor) -> Tensor:
    """The largest angle (N,) in degrees between rotations (N, 24, 3, 3) of the body's joints."""
    cosine = ((one.mT @ other).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.rad2deg(torch.arccos(cosine[:, 1:].clamp(-1, 1))).amax(1)


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per kind of poses and way."""
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
