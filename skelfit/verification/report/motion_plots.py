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
from skelfit.shards.label_vector import FIELDS, FloatArray, unpack
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_samples
from skelfit.storage.locations import Location
from skelfit.verification.measures.ground_rows import rate_of
from skelfit.verification.measures.joint_turns import (
    fit_rotations,
    followed,
    label_rotations,
    lengths,
    turns_between,
)
from skelfit.verification.measures.posed_bodies import Array, BodyModels
from skelfit.verification.measures.sequence_ground import STATUSES, SequenceGround, measure_ground
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
_PARAMETERS = ("skel_poses", "skel_betas", "skel_trans")  # in the order of FIELDS
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
    ground: str  # what is known of the ground under the whole sequence
    feet: (
        NDArray[np.bool_] | None
    )  # (T,2) whether the right and the left foot are on the floor; None: not known


def largest_of_each(jumps: Sequence[Jump], count: int = SHOWN) -> list[Jump]:
    """The largest jump of each of `count` sequences, from jumps with the largest first."""
    largest: dict[tuple[str, str, str], Jump] = {}
    for jump in jumps:
        largest.setdefault((jump["subset"], jump["label_file"], jump["sequence"]), jump)
    return list(largest.values())[:count]


def read_motion(tar: Location, jump: Jump, bodies: BodyModels) -> PlottedMotion:
    """The frames around a jump, from the shard that holds its sequence. Raises ShardError, ModelError."""
    names = ("subset", "label_file", "sequence")
    labels: dict[int, FloatArray] = {}
    metas: dict[int, Mapping[str, Any]] = {}
    parameters: dict[int, FloatArray] = {}  # of all frames: the floor is that of the whole sequence
    for _, label, meta in read_samples(tar):
        if meta.get("frame") is None or any(meta.get(name) != jump[name] for name in names):
            continue
        parts = unpack(label)
        parameters[meta["frame"]] = np.concatenate([parts[name] for name in _PARAMETERS])
        if abs(meta["frame"] - jump["frame"]) <= MAX_FRAMES // 2:
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
    ground = _ground(parameters, metas[frames[0]], bodies)
    feet = ground.feet
    if feet is not None:
        feet = feet[np.searchsorted(ground.frames, frames)]
    rate = metas[frames[0]]["frame_rate"]
    return PlottedMotion(jump, rate, tuple(frames), angles, turns, STATUSES[ground.status], feet)


def _ground(
    parameters: Mapping[int, FloatArray], meta: Mapping[str, Any], bodies: BodyModels
) -> SequenceGround:
    """The ground under a sequence, from _PARAMETERS of each frame and the metadata of one."""
    frames = np.array(sorted(parameters), np.int64)
    rows = np.array([parameters[frame] for frame in frames.tolist()])
    ends = np.cumsum([field.size for field in FIELDS if field.name in _PARAMETERS])[:-1]
    poses, betas, trans = np.split(rows, ends, axis=1)
    tracks = bodies.soles(str(meta["skel_gender"])).tracks(frames, betas, poses, trans)
    return measure_ground(tracks, rate_of(meta), str(meta["coordinates"]))


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
        "ground": f"The ground: {motion.ground}.",
        "contacts": None if motion.feet is None else pack.add(motion.feet),
    }


def _units(degrees: Array, unit: float) -> NDArray[np.int32]:
    return np.clip(np.rint(degrees / unit), -_REACH, _REACH).astype(np.int32)
