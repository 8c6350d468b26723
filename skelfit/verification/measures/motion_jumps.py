"""Jumps between two frames of a sequence and jitter over three: what the fit adds to the label's motion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import NUM_JOINTS, SKEL_JOINT_NAMES
from skelfit.verification.measures.accuracy import Accuracy
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.joint_turns import (
    BODY,
    LABEL_BODY,
    Quaternions,
    fit_rotations,
    followed,
    label_rotations,
    lengths,
    turns_between,
)
from skelfit.verification.measures.posed_bodies import Array

TURN_DEG = (10, 20, 45, 90)
ADDED_DEG = (5, 10, 20, 45)
ADDED_MM = (20, 50, 100)

_MAX = 1e6  # larger numbers are clipped to this

SequenceId = tuple[str, str, str]  # subset, label file, name


@dataclass(frozen=True)
class MotionFrame:
    """What a frame keeps for the comparison with the frames after it."""

    number: int
    key: str
    shard: str
    fit: Quaternions  # (24,4) rotations of SKEL's joints
    label: Quaternions  # (24,4) of SMPL's joints in the label; NaN where not known
    added: NDArray[
        np.float32
    ]  # (24,3) mm, SMPL's joints of the fitted skin minus the label's; NaN where not known


@dataclass(frozen=True)
class Jump:
    """The step from one frame to the next."""

    sequence_id: SequenceId
    key: str  # of the later frame
    frame: int
    shard: str
    joint: str  # the joint that turns most beyond the label, or most where the label is not known
    turn_deg: float  # of that joint
    label_turn_deg: float  # of the same joint in the label; NaN: not known
    added_mm: float  # mean over SMPL's joints of the movement that the label does not have; NaN: not known

    @property
    def added_deg(self) -> float:
        """How much further the joint turns than in the label; the whole turn where the label is not known."""
        return self.turn_deg - (self.label_turn_deg if np.isfinite(self.label_turn_deg) else 0.0)

    @property
    def order(self) -> tuple[float, str]:
        """Largest first; of equal ones, by key."""
        return (-round(self.added_deg, 6), self.key)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        numbers = {
            "turn_deg": self.turn_deg,
            "label_turn_deg": self.label_turn_deg,
            "added_mm": self.added_mm,
        }
        subset, file, sequence = self.sequence_id
        return {
            "subset": subset,
            "label_file": file,
            "sequence": sequence,
            "key": self.key,
            "frame": self.frame,
            "shard": self.shard,
            "joint": self.joint,
            **{name: round(value, 3) if np.isfinite(value) else None for name, value in numbers.items()},
        }


@dataclass(frozen=True)
class FrameRun:
    """Consecutive frames. Only the two at each end are kept: jumps and jitter need no more to join runs."""

    first: tuple[MotionFrame, ...]
    last: tuple[MotionFrame, ...]


FrameRuns = Mapping[SequenceId, tuple[FrameRun, ...]]


@dataclass
class FrameWindows:
    """Pairs and triples of consecutive frames, to be measured."""

    pairs: list[tuple[SequenceId, MotionFrame, MotionFrame]] = field(default_factory=list)
    triples: list[tuple[MotionFrame, MotionFrame, MotionFrame]] = field(default_factory=list)


def frames_of(people: DecodedPeople, accuracy: Accuracy) -> Iterator[tuple[SequenceId, MotionFrame]]:
    """The people that are frames of sequences."""
    in_time = np.array(
        [meta["sequence"] is not None and meta["frame"] is not None for meta in people.metas], bool
    )
    in_sequences = people.select(in_time)
    fields = in_sequences.fields()
    known = np.array([bool(meta["smpl"]) for meta in in_sequences.metas], bool)
    # Larger angles have no digits left for a rotation.
    fit = fit_rotations(np.clip(fields["skel_poses"], -_MAX, _MAX))
    label = label_rotations(np.clip(fields["smpl_pose"], -_MAX, _MAX), known)
    moved = 1000 * (accuracy.smpl_joints[in_time, 1] - accuracy.smpl_joints[in_time, 0])
    moved = np.clip(moved, -_MAX, _MAX).astype(np.float32)
    for i, meta in enumerate(in_sequences.metas):
        sequence_id = (str(meta["subset"]), str(meta["label_file"]), str(meta["sequence"]))
        # Copies: a view would keep the arrays of all people in memory.
        parts = fit[i].copy(), label[i].copy(), moved[i].copy()
        yield sequence_id, MotionFrame(int(meta["frame"]), in_sequences.keys[i], in_sequences.shard, *parts)


def join(one: FrameRuns, other: FrameRuns) -> tuple[FrameRuns, FrameWindows]:
    """The runs of both, joined where one continues the other, and the windows across the joins."""
    joined_runs: dict[SequenceId, tuple[FrameRun, ...]] = {}
    windows = FrameWindows()
    for sequence_id in sorted({*one, *other}):
        runs = sorted(
            (*one.get(sequence_id, ()), *other.get(sequence_id, ())), key=lambda r: r.first[0].number
        )
        joined: list[FrameRun] = []
        for run in runs:
            if joined and joined[-1].last[-1].number + 1 == run.first[0].number:
                before = joined[-1]
                near = (*before.last, *run.first)
                windows.pairs.append((sequence_id, before.last[-1], run.first[0]))
                windows.triples += zip(near, near[1:], near[2:], strict=False)
                joined[-1] = FrameRun(
                    _outer_two(before.first, run.first), _outer_two(run.last[::-1], before.last[::-1])[::-1]
                )
            else:
                joined.append(run)
        joined_runs[sequence_id] = tuple(joined)
    return joined_runs, windows


def _outer_two(outer: Sequence[MotionFrame], inner: Sequence[MotionFrame]) -> tuple[MotionFrame, ...]:
    """The two outermost frames of a joined run's end."""
    return (*outer, *inner)[:2]


def runs_of(people: DecodedPeople, accuracy: Accuracy) -> tuple[FrameRuns, FrameWindows]:
    """The runs of these people, and the windows within them."""
    frames: dict[SequenceId, list[FrameRun]] = {}
    for sequence_id, frame in frames_of(people, accuracy):
        frames.setdefault(sequence_id, []).append(FrameRun((frame,), (frame,)))
    return join({sequence_id: tuple(runs) for sequence_id, runs in frames.items()}, {})


@dataclass(frozen=True)
class FrameSteps:
    """The measures of P pairs and T triples of frames."""

    jumps: tuple[Jump, ...]  # (P,)
    turn_deg: Array  # (P,24) of SKEL's joints
    label_turn_deg: Array  # (P,24) of the label's corresponding rotations; NaN where not known
    added_mm: Array  # (P,)
    # Degrees per frame^2: how much the turn to the next frame differs from the turn before it.
    jitter_deg: Array  # (T,24,2) of SKEL's joints, and of the label's corresponding rotations
    mean_jitter_deg: Array  # (T,2) mean over the body's joints: SKEL's, and SMPL's own


def measure_steps(windows: FrameWindows) -> FrameSteps:
    """Turns, jumps and jitter of these windows."""
    sequence_ids = [sequence_id for sequence_id, _, _ in windows.pairs]
    earlier, later = [one for _, one, _ in windows.pairs], [two for _, _, two in windows.pairs]
    turn = lengths(turns_between(_fit(earlier), _fit(later)))
    label_turn = lengths(turns_between(followed(_label(earlier)), followed(_label(later))))
    moved = np.array([two.added for two in later], np.float64) - np.array([one.added for one in earlier])
    added_mm = np.linalg.norm(moved.reshape(-1, NUM_JOINTS, 3), axis=-1).mean(1)
    beyond = turn - np.where(np.isfinite(label_turn), label_turn, 0.0)
    jumps = []
    for i, (sequence_id, two) in enumerate(zip(sequence_ids, later, strict=True)):
        j = int(np.round(beyond[i], 6).argmax())
        which = (sequence_id, two.key, two.number, two.shard, SKEL_JOINT_NAMES[j])
        jumps.append(Jump(*which, float(turn[i, j]), float(label_turn[i, j]), float(added_mm[i])))
    three = [[triple[k] for triple in windows.triples] for k in range(3)]
    fit, follow, label = (
        _jitter([rotations(frames) for frames in three])
        for rotations in (_fit, lambda frames: followed(_label(frames)), _label)
    )
    means = fit[:, BODY].mean(1), label[:, LABEL_BODY].mean(1)
    return FrameSteps(
        tuple(jumps), turn, label_turn, added_mm, np.stack([fit, follow], -1), np.stack(means, -1)
    )


def _jitter(rotations: Sequence[Quaternions]) -> Array:
    """Change of turn (T,24) in degrees over three rotations (T,24,4)."""
    one, two, three = rotations
    return lengths(turns_between(two, three) - turns_between(one, two))


def _fit(frames: Sequence[MotionFrame]) -> Quaternions:
    """Rotations (F,24,4) of SKEL's joints in F frames."""
    return np.array([frame.fit for frame in frames], np.float32).reshape(-1, NUM_JOINTS, 4)


def _label(frames: Sequence[MotionFrame]) -> Quaternions:
    """Rotations (F,24,4) of SMPL's joints in the labels of F frames."""
    return np.array([frame.label for frame in frames], np.float32).reshape(-1, NUM_JOINTS, 4)
