"""Floor height, contacts and events of feet, against walks and jumps whose feet are planted by construction.

At 30, 60 and 120 Hz, with white noise of the label's place: from the soles of the labels themselves, and from those of
SKEL fitted to them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.benchmark.text_table import table
from skelfit.bodies.skel import SkelModel
from skelfit.config.manifest import Gender
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.sequences.frame_index import FrameIndex
from skelfit.verification.measures.sequence_ground import SequenceGround, SoleTracks, measure_ground
from skelfit.verification.measures.sole_poser import SolePoser
from tools.studies.motions import Motion
from tools.studies.moving_body import Array
from tools.studies.planted_feet import PlantedBody, PlantedMotion, planted_jump, planted_walk
from tools.studies.setup import SEED, Setup, Study

RATES = (30.0, 60.0, 120.0)
NOISE_MM = (0.0, 5.0, 10.0)  # deviation along each axis, in each frame by itself
SEEDS = 5  # of noise, whose figures are averaged where nothing has to be fitted
_PARTS = {"heels": slice(0, None, 2), "forefeet": slice(1, None, 2)}


def run(setup: Setup) -> list[dict[str, Any]]:
    """A record for each rate and noise, of labels and of fits."""
    body, records = PlantedBody(setup.models), []
    fitter = Fitter(setup.models, setup.fit, setup.device)
    for gender in setup.genders:
        poser = SolePoser(SkelModel(setup.models.skel_of("male"), dtype=torch.float64))
        for rate in RATES:
            motions = (planted_walk(body, setup.people, rate), planted_jump(body, rate))
            for motion in motions:
                for noise in NOISE_MM:
                    name = f"{motion.motion.name}, {rate:g} Hz, {noise:g} mm"
                    setup.say(name)
                    labels = [of_label(body, motion, noise, seed) for seed in range(SEEDS if noise else 1)]
                    fitted = of_fit(fitter, poser, gender, noisy(motion.motion, noise, 0), motion)
                    about = {"motion": motion.motion.name, "rate": rate, "noise_mm": noise}
                    records += [about | {"of": "labels"} | mean_of(labels), about | {"of": "fits"} | fitted]
    return records


def noisy(motion: Motion, noise_mm: float, seed: int) -> Motion:
    """The motion with another place in each frame."""
    rng = np.random.default_rng([SEED, seed])
    moved = motion.transl + noise_mm / 1000 * rng.standard_normal(motion.transl.shape)
    return replace(motion, transl=moved.astype(np.float32))


def of_label(body: PlantedBody, motion: PlantedMotion, noise_mm: float, seed: int) -> dict[str, float]:
    """Figures from the label's own soles."""
    return figures(body.tracks(noisy(motion.motion, noise_mm, seed)), motion)


def of_fit(
    fitter: Fitter, poser: SolePoser, gender: Gender, motion: Motion, truth: PlantedMotion
) -> dict[str, float]:
    """Figures from the soles of SKEL, fitted to all frames as one problem."""
    pose, betas, transl = (torch.from_numpy(x) for x in (motion.pose, motion.betas, motion.transl))
    frames = FrameIndex(np.zeros(len(motion), np.int64), motion.time)
    fit = fitter.fit(gender, pose, betas, transl, frames)
    numbers = [x.numpy() for x in (fit.betas, fit.poses, fit.trans)]
    started = time.process_time()
    tracks = poser.tracks(np.arange(len(motion)), *numbers)
    found = figures(tracks, truth)
    return found | {"us_per_frame": 1e6 * (time.process_time() - started) / len(motion)}


def figures(tracks: SoleTracks, truth: PlantedMotion) -> dict[str, float]:
    """How far what was found is from the truth. The floor is at 0."""
    ground = measure_ground(tracks, truth.motion.frame_rate, f"world_{truth.motion.up}_up")
    if ground.contacts is None or ground.floor is None or ground.feet is None:
        raise RuntimeError(f"{truth.motion.name}: expected a floor, found {ground.status}")
    feet = np.stack([truth.contacts[:, :2].any(1), truth.contacts[:, 2:].any(1)], 1)
    numbers = ground.summary()
    result = {"f1_feet": f1(ground.feet, feet), "floor_mm": 1000 * ground.floor.height}
    result |= {f"f1_{name}": f1(ground.contacts[:, p], truth.contacts[:, p]) for name, p in _PARTS.items()}
    result |= event_errors(ground, truth)
    return result | {name: numbers[name] for name in ("slip_mm_s", "penetration_mm", "spread_mm")}


def f1(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Of the frames in contact."""
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


def event_errors(ground: SequenceGround, truth: PlantedMotion) -> dict[str, float]:
    """Mean and largest lateness of strikes and offs in ms, and how many were missed or invented."""
    result: dict[str, float] = {"wrong_events": 0}
    for kind, times_of in (("foot_strike", truth.strikes), ("foot_off", truth.offs)):
        late: list[float] = []
        for side, letter in (("right", "r"), ("left", "l")):
            found = np.array([e.time for e in ground.events if (e.side, e.kind) == (side, kind)])
            matched = matches(found, times_of[letter])
            late += matched
            result["wrong_events"] += len(found) + len(times_of[letter]) - 2 * len(matched)
        result[f"{kind}_ms"] = float(np.mean(late)) if late else float("nan")
        result[f"{kind}_worst_ms"] = float(np.abs(late).max()) if late else float("nan")
    return result


def matches(found: Array, true: Array, within: float = 0.15) -> list[float]:
    """How late in ms each of the true times was found, of those that were, to `within` s."""
    late = []
    for moment in true:
        if len(found) and np.abs(found - moment).min() <= within:
            late.append(1000 * float(found[np.abs(found - moment).argmin()] - moment))
    return late


def mean_of(records: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each figure; of the floor the mean of its absolute value."""
    means = {name: float(np.mean([r[name] for r in records])) for name in records[0]}
    return means | {"floor_mm": float(np.mean([abs(r["floor_mm"]) for r in records]))}


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per record."""
    heads = "motion|of|Hz|noise mm|F1 feet|heels|forefeet|floor|strike ms|worst|off ms|worst|wrong|slip mm/s|below"
    rows = [
        (r["motion"], r["of"], f"{r['rate']:g}", f"{r['noise_mm']:g}")
        + (*(f"{r[f'f1_{name}']:.3f}" for name in ("feet", *_PARTS)), f"{abs(r['floor_mm']):.1f}")
        + (
            *(
                f"{r[f'{kind}{end}_ms']:+.0f}"
                for kind in ("foot_strike", "foot_off")
                for end in ("", "_worst")
            ),
        )
        + (f"{r['wrong_events']:.1f}", f"{r['slip_mm_s']:.0f}", f"{r['penetration_mm']:.1f}")
        for r in records
    ]
    speeds = [r["us_per_frame"] for r in records if "us_per_frame" in r]
    return [*table(heads.split("|"), rows), f"{min(speeds):.0f} to {max(speeds):.0f} us of CPU per frame"]


STUDY = Study(
    "floor and contacts of feet that are planted by construction; --people: seconds of walking",
    10,
    ("neutral",),
    run,
    text,
)
