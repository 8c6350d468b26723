"""Spine coupling (`fit.spine` of a pipeline): its effect on opposite motions of lumbar and thorax, and its cost.

People in everyday and extreme poses, made-up motions, and people that move smoothly between postures, half of these
extreme. The latter have opposite flexions in their labels, since SMPL's three joints of the spine are drawn
independently. Each is fitted with several multiples of the pipeline's weights, from two starts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from skelfit.benchmark.fit_speed import Labels, make_labels
from skelfit.benchmark.text_table import table
from skelfit.bodies.dofs import NUM_DOFS, ROOT_DOFS, dof_index
from skelfit.config.fit_settings import SpineConfig
from skelfit.config.manifest import Gender
from skelfit.labels.demo_people import sample_labels
from tools.studies.motions import make_motions
from tools.studies.sensitivity import SPREAD, MovedFitter, fit_from, moved
from tools.studies.setup import SEED, Setup, Study, distribution, percent

TIMES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)  # the pipeline's weights
OPPOSITE_DEG = 5.0
MOTIONS = ("bending", "extension", "twist")
FRAMES, POSTURES = 64, 3  # of a person that moves between postures
_SAME = 1e-3  # rad


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per gender, kind of people and multiple of the weights: opposite motions, PVE, and results from two starts."""
    records = []
    for gender in setup.genders:
        for kind, labels in make_people(setup.people, gender).items():
            offset = SPREAD * torch.randn(
                len(labels), NUM_DOFS, generator=torch.Generator().manual_seed(SEED)
            )
            offset[:, list(ROOT_DOFS)] = 0
            free = 0.0
            for times in TIMES:
                setup.say(f"{len(labels)} {kind} people, {gender} labels, {times:g} times the weights")
                config = replace(setup.fit, spine=scaled(setup.fit.spine, times))
                fitter = MovedFitter(setup.models, config, setup.device)
                result = fit_from(fitter, labels, torch.zeros_like(offset))
                moves = moved(result, fit_from(fitter, labels, offset)).angles
                pve = distribution(result.pve_mm)
                free = free or pve["mean"]
                records.append(
                    {"gender": gender, "poses": kind, "people": len(labels), "times": times}
                    | {"opposite": opposite(result.poses), "pve_mm": pve, "pve_cost": pve["mean"] / free - 1}
                    | {"same_from_another_start": float((moves.amax(1) < _SAME).double().mean())}
                    | {"spine_moves_deg": float(torch.rad2deg(moves[:, _SPINE].amax()))}
                    | {"converged": float(result.converged.double().mean())}
                )
    return records


_SPINE = [dof_index(f"{segment}_{motion}") for segment in ("lumbar", "thorax") for motion in MOTIONS]


def scaled(spine: SpineConfig, times: float) -> SpineConfig:
    """The same shares, all weights multiplied."""
    ties = {name: getattr(spine, name) for name in MOTIONS}
    return SpineConfig(**{name: replace(tie, weight=times * tie.weight) for name, tie in ties.items()})


def opposite(poses: Tensor) -> dict[str, float]:
    """Shares of poses (N, 46) rad with lumbar and thorax turned by more than 5 degrees in opposite directions."""
    lumbar, thorax = torch.rad2deg(poses[:, _SPINE]).split(len(MOTIONS), 1)
    against = (lumbar * thorax < 0) & (torch.minimum(lumbar.abs(), thorax.abs()) > OPPOSITE_DEG)
    by_motion = {name: float(against[:, k].double().mean()) for k, name in enumerate(MOTIONS)}
    return by_motion | {"any": float(against.any(1).double().mean())}


def make_people(people: int, gender: Gender) -> dict[str, Labels]:
    """People of each kind, or about as many frames."""
    motions = make_motions()
    every = max(1, sum(map(len, motions)) // people)
    frames = (
        np.concatenate([getattr(m, name)[::every] for m in motions]) for name in ("pose", "betas", "transl")
    )
    between = postures(-(-people // FRAMES))
    return make_labels(people, gender) | {
        "motions": Labels(gender, *map(torch.from_numpy, frames)),
        "between postures": Labels(gender, *(torch.from_numpy(x) for x in between)),
    }


def postures(count: int) -> tuple[NDArray[np.float32], ...]:
    """People that move between postures: pose (N, 24, 3) rad, betas (N, 10), transl (N, 3) m of all frames."""
    pose, betas, transl = sample_labels(count * POSTURES, SEED, 0.5)
    time = np.linspace(0, POSTURES - 1, FRAMES)
    whole = np.floor(time).clip(max=POSTURES - 2)
    part = time - whole
    at = whole + part * part * (3 - 2 * part)
    frames = [
        np.stack(
            [Slerp(np.arange(POSTURES), Rotation.from_rotvec(mine[:, j]))(at).as_rotvec() for j in range(24)],
            axis=1,
        )
        for mine in pose.reshape(count, POSTURES, 24, 3)
    ]
    shape, position = (np.repeat(x[::POSTURES], FRAMES, 0) for x in (betas, transl))
    return np.concatenate(frames).astype(np.float32), shape, position


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per group and multiple."""
    heads = ["labels", "poses", "people", "times", *MOTIONS, "any", "PVE mm", "p95", "cost"]
    heads += [f"< {_SAME:g} rad", "spine moves deg", "converged"]
    rows = [
        (r["gender"], r["poses"], r["people"], f"{r['times']:g}", *map(percent, r["opposite"].values()))
        + (f"{r['pve_mm']['mean']:.3f}", f"{r['pve_mm']['p95']:.3f}", percent(r["pve_cost"]))
        + (percent(r["same_from_another_start"]), f"{r['spine_moves_deg']:.2f}", percent(r["converged"]))
        for r in records
    ]
    first = f"share of people whose lumbar and thorax go against each other, both further than {OPPOSITE_DEG:g} degrees"
    return [first, *table(heads, rows)]


STUDY = Study("lumbar and thorax tied, against accuracy", 512, ("male", "neutral"), run, text)
