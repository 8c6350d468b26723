"""Sequences refined against 2D keypoints: each frame by itself, and the frames of a sequence as one problem.

Truths are fits of made-up motions at 30 frames per second, before the demo's camera (256 px), which follows the person
sideways. Labels are wrong in two ways. `drift`: every angle is off by a smooth curve of 0.15 rad (standard deviation),
translations by one of 5 cm and 2 % of the depth. `shaken`: besides, every angle of every frame is off by 0.05 rad of
its own. Betas are off by 0.5 in all frames of a motion. Keypoints have noise in px and outliers, of each frame's own.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from skelfit.benchmark.text_table import table
from skelfit.config.refine_settings import RefineConfig, TiesConfig
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.refinement.refinement_problem import BodyParameters, RefinementProblem
from skelfit.fitting.refinement.refiner import Refiner
from skelfit.fitting.sequences.frame_index import FrameIndex
from skelfit.verification.measures.joint_turns import fit_rotations
from tools.studies.motion_measures import jitter_deg
from tools.studies.motions import make_motion
from tools.studies.refine import FOCAL_PX, SIZE_PX, Truth, keypoints, measure, seen_keypoints
from tools.studies.setup import SEED, Setup, Study

MOTIONS, RATE = ("squat", "dance", "kick", "throw", "arm circles"), 30.0  # Hz
DRIFT, SHAKE, BETAS = 0.15, 0.05, 0.5  # rad, rad, betas
ASIDE, DEPTH = 0.05, 0.02  # m; share of the depth
DISTANCE = 2.8  # m
NOISES, CURVE_NOISE = (2.0, 5.0), 2.0  # px
WEIGHTS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
_PERIODS = (1.0, 4.0)  # s, of drifts


def make_moving(setup: Setup) -> tuple[Truth, FrameIndex]:
    """The people that all problems are about, and which frames they are of which motion."""
    down = Rotation.from_euler("x", np.pi)  # a camera's y points down
    labels: list[list[NDArray[np.float32]]] = []
    for name in MOTIONS:
        motion = make_motion(name)
        rows = slice(None, None, round(motion.frame_rate / RATE))
        pose, place = motion.pose[rows].copy(), motion.transl[rows] - motion.transl[rows].mean(0)
        pose[:, 0] = (down * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
        place = down.apply(place * [0.0, 1.0, 0.0]) + [0.0, 0.3, DISTANCE]
        labels.append([pose, motion.betas[rows], place.astype(np.float32)])
    lengths = [len(pose) for pose, _, _ in labels]
    frames = FrameIndex(
        np.repeat(np.arange(len(MOTIONS)), lengths), np.concatenate([np.arange(n) / RATE for n in lengths])
    )
    pose, betas, transl = (torch.from_numpy(np.concatenate(x)) for x in zip(*labels, strict=True))
    fit = Fitter(setup.models, setup.fit, setup.device).fit(setup.genders[0], pose, betas, transl, frames)
    people = BodyParameters(fit.poses, fit.betas, fit.trans)
    camera = torch.tensor([[FOCAL_PX, 0, SIZE_PX / 2], [0, FOCAL_PX, SIZE_PX / 2], [0, 0, 1]])
    points = keypoints(setup.models, people, fit.female) @ camera.mT
    points = points[..., :2] / points[..., 2:]
    inside = ((points >= 0) & (points < SIZE_PX)).all(2)
    return Truth(people, fit.female, points, inside, camera.expand(len(points), 3, 3).clone()), frames


def make_problem(truth: Truth, frames: FrameIndex, shake: float, noise: float) -> RefinementProblem:
    """The motions with wrong labels; the same each time."""
    source = torch.Generator().manual_seed(SEED)
    people, size = truth.people, torch.Generator().manual_seed(SEED + 1)
    angles, betas, transl = people.angles.clone(), people.betas.clone(), people.transl.clone()
    for rows in map(torch.from_numpy, frames.sequences()):
        at = torch.from_numpy(frames.time)[rows].float()
        angles[rows] += DRIFT * _curves(at, 46, source)
        betas[rows] += BETAS * torch.randn(1, 10, generator=source)
        transl[rows] += ASIDE * _curves(at, 3, source)
        transl[rows] *= 1 + DEPTH * _curves(at, 1, source)
    angles += shake * torch.randn(angles.shape, generator=source)
    given = seen_keypoints(truth, noise, size)
    return RefinementProblem(
        BodyParameters(angles, betas, transl), truth.female, given, truth.cam_int, frames=frames
    )


def _curves(at: Tensor, count: int, source: torch.Generator) -> Tensor:
    """Smooth curves (F, count) of deviation 1 over times (F,) s: three waves each."""
    low, high = _PERIODS
    period = low + (high - low) * torch.rand(3, count, generator=source)
    phase = torch.rand(3, count, generator=source)
    return (2 / 3) ** 0.5 * (2 * torch.pi * (at[:, None, None] / period + phase)).sin().sum(1)


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per labels and noise: before, each by itself, as one problem; then the curve of the weight."""
    setup.say("fitting the motions")
    truth, frames = make_moving(setup)
    usual = RefineConfig()
    single, tied = (
        Refiner(setup.models, replace(usual, ties=ties), setup.device)
        for ties in (TiesConfig(weight=0.0), usual.ties)
    )
    warm = make_problem(truth, frames, 0.0, 0.0).take(torch.arange(2))
    for refiner in (single, tied):  # tables and kernels are made
        refiner.refine(warm)
    records = [_record(setup, truth, frames, "truth", truth.people)]
    for kind, shake in (("drift", 0.0), ("shaken", SHAKE)):
        for noise in NOISES:
            problem = make_problem(truth, frames, shake, noise)
            head = f"{kind}, {noise:g} px"
            records.append(_record(setup, truth, frames, f"{head}: label", problem.start))
            setup.say(head)
            for name, refiner in (("singly", single), ("with ties", tied)):
                records.append(_refined(setup, truth, refiner, f"{head}: {name}", problem))
            if noise == CURVE_NOISE:
                for weight in WEIGHTS:
                    ties = replace(usual.ties, weight=weight)
                    refiner = Refiner(setup.models, replace(usual, ties=ties), setup.device, tied.backend)
                    setup.say(f"{head}, weight {weight:g}")
                    records.append(_refined(setup, truth, refiner, f"{head}: weight {weight:g}", problem))
    return records


def _refined(
    setup: Setup, truth: Truth, refiner: Refiner, name: str, problem: RefinementProblem
) -> dict[str, Any]:
    started = time.process_time()
    result = refiner.refine(problem)
    seconds = time.process_time() - started
    assert problem.frames is not None
    return _record(setup, truth, problem.frames, name, result.refined) | {
        "frames_per_cpu_second": len(problem) / seconds
    }


def _record(
    setup: Setup, truth: Truth, frames: FrameIndex, name: str, people: BodyParameters
) -> dict[str, Any]:
    figures = measure(setup.models, truth, people)
    means = {key: float(values.double().mean()) for key, values in figures.items()}
    return {"kind": name, "frames": len(truth.female), **means, **_jitter(people, frames)}


def _jitter(people: BodyParameters, frames: FrameIndex) -> dict[str, float]:
    """Means over the motions: jitter of joints in deg per frame^2, and of the translation in mm per frame^2."""
    turns, moves = [], []
    for rows in frames.sequences():
        turns.append(jitter_deg(fit_rotations(people.angles[rows].numpy())))
        place = 1000 * people.transl[rows].double().numpy()
        moves.append(float(np.linalg.norm(np.diff(place, n=2, axis=0), axis=1).mean()))
    return {"jitter_deg": float(np.mean(turns)), "jitter_mm": float(np.mean(moves))}


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per record."""
    heads = ("", "px", "MPJPE", "PVE", "root mm", "limit deg", "jitter deg", "jitter mm", "frames/CPU s")
    keys = ("px", "mpjpe_mm", "pve_mm", "root_mm", "violation_deg", "jitter_deg", "jitter_mm")
    return table(
        heads,
        [
            (r["kind"], *(f"{r[key]:.2f}" for key in keys), _speed(r.get("frames_per_cpu_second")))
            for r in records
        ],
    )


def _speed(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


STUDY = Study(
    "sequences refined against 2D keypoints: errors and jitter, singly and with ties", 1, ("male",), run, text
)
