"""Angles over time of the sequences with the largest jumps, read again from their shards.

A run may have thousands of sequences of any length. A page shows SHOWN of them, each with at most MAX_FRAMES frames
around its largest jump.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import SKEL_JOINT_NAMES, dof_index
from skelfit.shards.label_vector import FloatArray, unpack
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_samples
from skelfit.storage.locations import Location
from skelfit.verification.measures.joint_turns import (
    fit_rotations,
    followed,
    label_rotations,
    lengths,
    turns_between,
)
from skelfit.verification.measures.posed_bodies import Array
from skelfit.verification.report.array_packing import ArrayPack

SHOWN = 4  # sequences
MAX_FRAMES = 600  # of each
_SIDES = ("r", "l")
DOFS: tuple[str, ...] = (
    "pelvis_tilt", "pelvis_list", "pelvis_rotation",
    "lumbar_bending", "lumbar_extension", "lumbar_twist",
    "thorax_bending", "thorax_extension", "thorax_twist",
    *(f"shoulder_{s}_{axis}" for axis in "xyz" for s in _SIDES),
    *(f"{name}_{s}" for name in ("elbow_flexion", "hip_flexion", "hip_adduction", "hip_rotation", "knee_angle")
      for s in _SIDES),
)  # fmt: skip
ANGLE_UNIT_DEG = 0.05  # 16 bits hold up to four and a half turns in either direction
TURN_UNIT_DEG = 0.01
_REACH = 32_767
_NOT_KNOWN = -1  # in units; known turns are at least 0

Jump = Mapping[str, Any]  # as a report has it


@dataclass(frozen=True)
class PlottedMotion:
    """T frames of a sequence around its largest jump."""

    jump: Jump
    frame_rate: float | None  # Hz
    frames: tuple[int, ...]  # (T,) numbers of the published frames
    angles_deg: Array  # (T,D) of DOFS as stored, less the whole turns that all frames have in common
    turns_deg: Array  # (T,2) turn of the jump's joint since the frame before, fit and label; NaN: not known


def largest_of_each(jumps: Sequence[Jump], count: int = SHOWN) -> list[Jump]:
    """The largest jump of each of `count` sequences, from jumps with the largest first."""
    largest: dict[tuple[str, str, str], Jump] = {}
    for jump in jumps:
        largest.setdefault((jump["subset"], jump["label_file"], jump["sequence"]), jump)
    return list(largest.values())[:count]


def read_motion(tar: Location, jump: Jump) -> PlottedMotion:
    """The frames around a jump, from the shard that holds its sequence. Raises ShardError."""
    names = ("subset", "label_file", "sequence")
    labels: dict[int, FloatArray] = {}
    metas: dict[int, Mapping[str, Any]] = {}
    for _, label, meta in read_samples(tar):
        near = meta.get("frame") is not None and abs(meta["frame"] - jump["frame"]) <= MAX_FRAMES // 2
        if near and all(meta.get(name) == jump[name] for name in names):
            labels[meta["frame"]], metas[meta["frame"]] = label, meta
    frames = sorted(labels)[:MAX_FRAMES]
    if not frames:
        raise ShardError(tar, jump["key"], "the frames of a sequence", "none of them")
    fields = unpack(np.array([labels[frame] for frame in frames]))
    known = np.array([bool(metas[frame]["smpl"]) for frame in frames], bool)
    joint = SKEL_JOINT_NAMES.index(jump["joint"])
    turns = np.full((len(frames), 2), np.nan)
    follows = np.diff(frames) == 1
    label = followed(label_rotations(fields["smpl_pose"], known))
    for k, rotations in enumerate((fit_rotations(fields["skel_poses"]), label)):
        stepped = lengths(turns_between(rotations[:-1], rotations[1:]))[:, joint]
        turns[1:, k] = np.where(follows, stepped, np.nan)
    angles = np.degrees(fields["skel_poses"][:, [dof_index(name) for name in DOFS]].astype(np.float64))
    angles -= 360 * np.round(np.median(angles, axis=0) / 360)
    return PlottedMotion(jump, metas[frames[0]]["frame_rate"], tuple(frames), angles, turns)


def packed(motion: PlottedMotion, pack: ArrayPack) -> dict[str, Any]:
    """A motion for the page's script; the numbers go into `pack`."""
    frames = np.array(motion.frames)
    turns = np.nan_to_num(motion.turns_deg, nan=_NOT_KNOWN * TURN_UNIT_DEG)
    return {
        "jump": dict(motion.jump),
        "frame_rate": motion.frame_rate,
        "first": motion.frames[0],
        "frames": pack.add(frames[:, None] - frames[0]),
        "angles": pack.add(_units(motion.angles_deg, ANGLE_UNIT_DEG)),
        "turns": pack.add(_units(turns, TURN_UNIT_DEG)),
    }


def _units(degrees: Array, unit: float) -> NDArray[np.int32]:
    return np.clip(np.rint(degrees / unit), -_REACH, _REACH).astype(np.int32)
