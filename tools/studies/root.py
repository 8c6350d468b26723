"""A free root: the gain in accuracy, how far the root moves, and the errors in the image.

The same people are fitted with a root that is frozen, free to turn, and free; then with a weaker and a stronger prior
on the free root. Errors in the image compare keypoints of the fitted skin with those of the label's skin, through the
label's camera, in crops of 256 px around the label's skin.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from skelfit.benchmark.fit_speed import Labels, make_labels
from skelfit.benchmark.text_table import table
from skelfit.bodies.lazy_roma import roma
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.fit_settings import FitConfig, RootPrior
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.start.warm_start import root_translation
from tools.studies.setup import Setup, Study, distribution, percent

# Times the pipeline's prior of the turn and of the move; 0: that one is not held.
PRIORS = ((0.0, 0.0), (0.1, 0.1), (0.5, 1.0), (2.0, 1.0), (1.0, 3.0), (5.0, 1.0), (1.0, 10.0), (10.0, 10.0))
CROP_PX, MARGIN = 256, 1.2  # side of a crop; and in sides of the square that holds the label's skin
_FEW = 64  # skins at a time


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per gender, kind of poses, root and prior: PVE, changes of the root, error in the image, time."""
    records = []
    for gender in setup.genders:
        for kind, labels in make_labels(setup.people, gender).items():
            for config in variants(setup.fit):
                setup.say(f"{setup.people} {kind} people, {gender} labels: {name_of(config)}")
                result, cpu = _fit(setup, config, labels)
                records.append(
                    {"gender": gender, "poses": kind, "people": setup.people, "root": config.root}
                    | {"prior": {"turn": config.root_prior.turn, "move": config.root_prior.move}}
                    | {"of_the_pipeline": config.root_prior == setup.fit.root_prior}
                    | {"pve_mm": distribution(result.pve_mm), "cpu_ms_per_person": cpu}
                    | {"converged": float(result.converged.double().mean())}
                    | {k: distribution(x) for k, x in measure(setup.models, config, labels, result).items()}
                )
    return records


def variants(fit: FitConfig) -> Iterator[FitConfig]:
    """The frozen root, the freed roots, then other priors."""
    own = fit.root_prior
    for root in ("frozen", "turn", "free"):
        yield replace(fit, root=root)
    for turn, move in PRIORS:
        yield replace(fit, root="free", root_prior=RootPrior(turn * own.turn, move * own.move))


def name_of(config: FitConfig) -> str:
    """Root and prior as text."""
    if config.root == "frozen":
        return "frozen"
    move = f", move {config.root_prior.move:g}" if config.root == "free" else ""
    return f"{config.root}, turn {config.root_prior.turn:g}{move}"


def _fit(setup: Setup, config: FitConfig, labels: Labels) -> tuple[FitResult, float]:
    """The fit, and its CPU ms a person."""
    fitter = Fitter(setup.models, config, setup.device)
    one = labels.first(1)
    fitter.fit(one.gender, one.pose, one.betas, one.transl)  # tables and kernels are made
    started = time.process_time()
    result = fitter.fit(labels.gender, labels.pose, labels.betas, labels.transl)
    return result, 1000 * (time.process_time() - started) / len(labels)


@dataclass(frozen=True)
class _Pair:
    """People, and the pair of bodies of their fit."""

    smpl: SmplModel
    skel: SkelModel
    rows: Tensor  # (n,) int64


def measure(models: ModelSet, config: FitConfig, labels: Labels, result: FitResult) -> dict[str, Tensor]:
    """Changes of the root, and errors in the image, each of all people (N,)."""
    few = list(pairs(models, config, labels, result))
    parts = [
        went(pair, labels, result) | {"picture_px": in_the_picture(models, pair, labels, result)}
        for pair in few
    ]
    order = torch.cat([pair.rows for pair in few]).argsort()
    return {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}


def pairs(models: ModelSet, config: FitConfig, labels: Labels, result: FitResult) -> Iterator[_Pair]:
    """Pairs of bodies, each with a few of its people."""
    for gender in ("male", "female"):
        rows = (result.female == (gender == "female")).nonzero()[:, 0]
        if len(rows):
            smpl = SmplModel(models.smpl_of(config.target_gender(labels.gender, gender)))
            skel = SkelModel(models.skel_of(gender))
            yield from (_Pair(smpl, skel, few) for few in rows.split(_FEW))


@torch.no_grad()
def went(pair: _Pair, labels: Labels, result: FitResult) -> dict[str, Tensor]:
    """Rotation and translation of the roots from those of the labels, (n,) degrees and mm."""
    rows, skel = pair.rows, pair.skel
    rot = roma.rotvec_to_rotmat(labels.pose[rows, 0])
    frames = skel.frames(result.betas[rows])
    turned = skel.joints(frames, result.poses[rows]).rot[:, 0] @ rot.mT
    pivot = pair.smpl.root_joint(labels.betas[rows])
    there = root_translation(labels.transl[rows], rot, pivot, frames.joints[:, 0])
    return {
        "turn_deg": torch.rad2deg(roma.rotmat_to_rotvec(turned).norm(dim=-1)),
        "move_mm": 1000 * (result.trans[rows] - there).norm(dim=-1),
    }


@torch.no_grad()
def in_the_picture(models: ModelSet, pair: _Pair, labels: Labels, result: FitResult) -> Tensor:
    """Mean distance (n,) px of the 44 keypoints of fit and label; of SMPL's 24 joints where there is no regressor."""
    rows, smpl, skel = pair.rows, pair.smpl, pair.skel
    dense = smpl.asset.J_regressor if models.keypoints44 is None else models.keypoints44
    regressor = torch.tensor(dense, dtype=torch.float32)
    target = smpl.vertices(labels.pose[rows], labels.betas[rows], labels.transl[rows])
    skin = skel.forward(skel.shape(result.betas[rows]), result.poses[rows], result.trans[rows]).vertices
    view = _project(target)
    side = MARGIN * (view.amax(1) - view.amin(1)).amax(1)
    off = _project(regressor @ skin) - _project(regressor @ target)
    return CROP_PX * off.norm(dim=-1).mean(1) / side


def _project(points: Tensor) -> Tensor:
    """Points (N, K, 3) m projected with focal length 1, (N, K, 2)."""
    return points[..., :2] / points[..., 2:]


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per root and prior."""
    heads = ("labels", "poses", "root", "turn w.", "move w.", "PVE mean", "p95", "gain")
    more = ("turn deg", "p95", "move mm", "p95", "picture px", "p95", "CPU ms", "converged")
    rows = []
    for r in records:
        group = r["gender"], r["poses"]
        frozen = next(x for x in records if (x["gender"], x["poses"]) == group)
        prior = (f"{r['prior'][k]:g}" if r["root"] in roots else "" for k, roots in _HELD.items())
        rows.append(
            (*group, r["root"], *prior, f"{r['pve_mm']['mean']:.3f}", f"{r['pve_mm']['p95']:.3f}")
            + (percent(1 - r["pve_mm"]["mean"] / frozen["pve_mm"]["mean"]),)
            + tuple(f"{r[k][q]:.2f}" for k in ("turn_deg", "move_mm", "picture_px") for q in ("mean", "p95"))
            + (f"{r['cpu_ms_per_person']:.2f}", percent(r["converged"]))
        )
    return table((*heads, *more), rows)


_HELD = {"turn": ("turn", "free"), "move": ("free",)}  # what a prior holds, in which roots

STUDY = Study("a root that may turn and move: what it brings and costs", 1024, ("male", "neutral"), run, text)
