"""Sequences whose angles are shown over time: those with the largest jumps, read again from their shards.

A run may have ten thousand sequences, each of any length. So a report keeps the largest jumps, a page shows the first
few of their sequences, and of each at most MOST_FRAMES frames about its largest jump.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import SKEL_JOINT_NAMES, dof_index
from skelfit.shards.label_vector import FloatArray, unpack
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_samples
from skelfit.verification.measures.joint_turns import (
    fit_rotations,
    followed,
    label_rotations,
    lengths,
    turns_between,
)
from skelfit.verification.measures.remade_bodies import Array
from skelfit.verification.report.array_packing import Pack

SHOWN = 4  # sequences
MOST_FRAMES = 600  # of each
_SIDES = ("r", "l")
DOFS: tuple[str, ...] = (
    "pelvis_tilt", "pelvis_list", "pelvis_rotation",
    "lumbar_bending", "lumbar_extension", "lumbar_twist",
    "thorax_bending", "thorax_extension", "thorax_twist",
    *(f"shoulder_{s}_{axis}" for axis in "xyz" for s in _SIDES),
    *(f"{name}_{s}" for name in ("elbow_flexion", "hip_flexion", "hip_adduction", "hip_rotation", "knee_angle")
      for s in _SIDES),
)  # fmt: skip
ANGLE_UNIT_DEG = 0.05  # 16 bits reach four and a half turns either way
TURN_UNIT_DEG = 0.01
_REACH = 32_767
_NOT_KNOWN = -1  # in units; turns are no less than 0

Jump = Mapping[str, Any]  # as a report has it


@dataclass(frozen=True)
class Motion:
    """T frames of a sequence about its largest jump."""

    jump: Jump
    frame_rate: float | None  # Hz
    frames: tuple[int, ...]  # (T,) their numbers; what was not published is missing
    angles_deg: Array  # (T,D) of DOFS as they are stored, but for whole turns that all frames share
    # (T,2) how far the joint of the jump turns from the frame before, fit and label; NaN: not known, or no frame before
    turns_deg: Array


def largest_of_each(jumps: Sequence[Jump], count: int = SHOWN) -> list[Jump]:
    """The largest jumps of so many sequences; the largest comes first."""
    found: dict[tuple[str, str, str], Jump] = {}
    for jump in jumps:
        found.setdefault((jump["subset"], jump["label_file"], jump["sequence"]), jump)
    return list(found.values())[:count]


def read_motion(tar: Path, jump: Jump) -> Motion:
    """The frames about a jump, of the shard that holds its sequence. Raises ShardError."""
    names = ("subset", "label_file", "sequence")
    labels: dict[int, FloatArray] = {}
    metas: dict[int, Mapping[str, Any]] = {}
    for _, label, meta in read_samples(tar):
        near = meta.get("frame") is not None and abs(meta["frame"] - jump["frame"]) <= MOST_FRAMES // 2
        if near and all(meta.get(name) == jump[name] for name in names):
            labels[meta["frame"]], metas[meta["frame"]] = label, meta
    frames = sorted(labels)[:MOST_FRAMES]
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
    return Motion(jump, metas[frames[0]]["frame_rate"], tuple(frames), angles, turns)


def packed(motion: Motion, pack: Pack) -> dict[str, Any]:
    """What the page's script takes for a motion; the numbers go into `pack`."""
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
