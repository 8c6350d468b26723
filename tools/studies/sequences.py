"""Frames of a sequence fitted as one problem, compared with each frame fitted alone.

For twelve made-up motions: jitter and jumps of the fitted joints relative to the labels' own, the cost in accuracy, and
the lag of a fast kick and a throw. And the speed of both modes on one long motion.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skelfit.benchmark.text_table import table
from skelfit.bodies.dofs import SKEL_JOINT_NAMES
from skelfit.config.manifest import Gender
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.sequences.frame_index import FrameIndex
from skelfit.verification.measures.joint_turns import LABEL_BODY, fit_rotations, followed, label_rotations
from tools.studies.motion_measures import (
    jitter_deg,
    lag_frames,
    largest_step_deg,
    opposite_share,
    speeds,
)
from tools.studies.motions import Motion, make_motion, make_motions
from tools.studies.setup import Setup, Study, percent

MODES = ("alone", "together")
# Goals of a sequence: jitter in times the label's, deg beyond the label's largest step, cost of PVE, lag in frames.
JITTER, STEP_DEG, PVE_COST, LAG, SPEED = 1.3, 5.0, 0.02, 1.0, 0.5
_FAST = {"kick": "tibia_r", "throw": "ulna_r"}  # the fastest joint of a motion
_LONG = "dance"  # the motion of the long run, which goes on for ever


@dataclass(frozen=True)
class MotionFitters:
    """A fitter of single frames, and one of sequences."""

    fitter_of: dict[str, Fitter]

    def fit(self, mode: str, gender: Gender, motion: Motion) -> FitResult:
        """A motion fitted in one of the modes."""
        labels: list[Tensor] = [torch.from_numpy(x) for x in (motion.pose, motion.betas, motion.transl)]
        pose, betas, transl = labels
        frames = FrameIndex(np.zeros(len(motion), np.int64), motion.time) if mode == "together" else None
        return self.fitter_of[mode].fit(gender, pose, betas, transl, frames)


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per gender: a record for each motion, and one for the long run."""
    alone = Fitter(setup.models, replace(setup.fit, temporal=None), setup.device)
    together = Fitter(setup.models, setup.fit, setup.device, alone.backend)
    fits = MotionFitters({"alone": alone, "together": together})
    records = []
    for gender in setup.genders:
        for motion in make_motions():
            setup.say(f"{motion.name}: {len(motion)} frames, {gender} labels, alone and together")
            records.append({"gender": gender} | measure(fits, gender, motion))
        long = make_motion(_LONG, setup.people)
        setup.say(f"{setup.people} frames in one problem, {gender} labels, and each by itself")
        records.append({"gender": gender} | measure_speed(fits, gender, long))
    return records


def measure(fits: MotionFitters, gender: Gender, motion: Motion) -> dict[str, Any]:
    """The figures of one motion."""
    own = label_rotations(motion.pose, np.ones(len(motion), bool))
    labels = followed(own)
    figures: dict[str, Any] = {
        "sequence": motion.name,
        "frame_rate": motion.frame_rate,
        "frames": len(motion),
        "label": {"jitter_deg": jitter_deg(own, LABEL_BODY), "largest_step_deg": largest_step_deg(labels)},
    }
    for mode in MODES:
        result = fits.fit(mode, gender, motion)
        rotations = fit_rotations(result.poses.numpy())
        figures[mode] = {
            "jitter_deg": jitter_deg(rotations),
            "largest_step_deg": largest_step_deg(rotations),
            "pve_mm": pve_of(result),
            "opposite_bending": opposite_share(result.poses),
            "betas_spread": float(result.betas.std(0).max()),
            "converged": float(result.converged.double().mean()),
        }
        if motion.name in _FAST:
            joint = SKEL_JOINT_NAMES.index(_FAST[motion.name])
            of, speed = (speeds(x, joint, motion.frame_rate) for x in (labels, rotations))
            figures[mode]["lag_frames"] = lag_frames(speed, of)
            figures[mode]["peak_deg_s"] = float(speed.max())
            figures["label"]["peak_deg_s"] = float(of.max())
    figures["pve_cost"] = figures["together"]["pve_mm"]["mean"] / figures["alone"]["pve_mm"]["mean"] - 1
    figures["missed"] = missed(figures)
    return figures


def pve_of(result: FitResult) -> dict[str, float]:
    """Mean and 95th percentile of the frames' mean vertex errors, mm."""
    pve = result.pve_mm.double()
    return {"mean": float(pve.mean()), "p95": float(pve.quantile(0.95))}


def missed(figures: dict[str, Any]) -> list[str]:
    """The goals that a sequence misses."""
    label, ours = figures["label"], figures["together"]
    misses = {
        "jitter": ours["jitter_deg"] > JITTER * label["jitter_deg"],
        "largest step": ours["largest_step_deg"] >= label["largest_step_deg"] + STEP_DEG,
        "PVE": figures["pve_cost"] > PVE_COST,
        "lag": abs(ours.get("lag_frames", 0.0)) >= LAG,
    }
    return [name for name, is_missed in misses.items() if is_missed]


def measure_speed(fits: MotionFitters, gender: Gender, motion: Motion) -> dict[str, Any]:
    """Frames per CPU second of a long motion."""
    figures: dict[str, Any] = {"sequence": "long run", "frames": len(motion)}
    for mode in MODES:
        fits.fitter_of[mode].prepare(gender)
        started = time.process_time()
        result = fits.fit(mode, gender, motion)
        seconds = time.process_time() - started
        figures[mode] = {"frames_per_cpu_second": len(motion) / seconds, "pve_mm": pve_of(result)}
    one, other = (figures[mode]["frames_per_cpu_second"] for mode in MODES)
    return figures | {"speed_ratio": other / one, "missed": ["speed"] if other < SPEED * one else []}


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per motion, then the fast joints, the long runs, and what was missed."""
    motions = [r for r in records if r["sequence"] != "long run"]
    heads = "labels|sequence|Hz|frames|jitter: label|alone|together|ratio|step: label|alone|together".split(
        "|"
    )
    heads += "PVE alone|p95|together|p95|cost|opposite alone|together".split("|")
    rows = [
        (r["gender"], r["sequence"], f"{r['frame_rate']:g}", r["frames"])
        + (*(f"{r[mode]['jitter_deg']:.3f}" for mode in ("label", *MODES)),)
        + (f"{r['together']['jitter_deg'] / r['label']['jitter_deg']:.2f}",)
        + (*(f"{r[mode]['largest_step_deg']:.1f}" for mode in ("label", *MODES)),)
        + (*(f"{r[mode]['pve_mm'][name]:.2f}" for mode in MODES for name in ("mean", "p95")),)
        + (percent(r["pve_cost"]), *(percent(r[mode]["opposite_bending"]) for mode in MODES))
        for r in motions
    ]
    lines = ["jitter of joints in deg per frame^2, their largest step in deg, PVE in mm", *table(heads, rows)]
    for r in (r for r in motions if "lag_frames" in r["together"]):
        modes = ", ".join(
            f"{mode} {r[mode]['lag_frames']:+.2f} frames late, peak {r[mode]['peak_deg_s']:.0f} deg/s"
            for mode in MODES
        )
        peak = r["label"]["peak_deg_s"]
        lines.append(
            f"{r['gender']}, {r['sequence']}: {_FAST[r['sequence']]} of the label {peak:.0f} deg/s; {modes}"
        )
    for r in (r for r in records if r["sequence"] == "long run"):
        modes = ", ".join(f"{mode} {r[mode]['frames_per_cpu_second']:.1f}" for mode in MODES)
        ratio = f"{r['speed_ratio']:.2f} of the speed"
        lines.append(f"{r['gender']}, {r['frames']} frames: {modes} frames per CPU second, {ratio}")
    for r in (r for r in records if r["missed"]):
        lines.append(f"missed by {r['gender']}, {r['sequence']}: {', '.join(r['missed'])}")
    return lines


STUDY = Study(
    "frames of sequences as one problem against each by itself; --people: frames of the long run",
    10_000,
    ("male",),
    run,
    text,
)
