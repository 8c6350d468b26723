"""Jumps between neighbouring frames of a sequence, and jitter over three: what the fit adds to the label's motion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import NUM_JOINTS, SKEL_JOINT_NAMES
from skelfit.verification.measures.accuracy import Accuracy
from skelfit.verification.measures.decoded_samples import People
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
from skelfit.verification.measures.remade_bodies import Array

TURN_DEG = (10, 20, 45, 90)
ADDED_DEG = (5, 10, 20, 45)
ADDED_MM = (20, 50, 100)

_MOST = 1e6  # absurd numbers count as this

Motion = tuple[str, str, str]  # of one sequence: subset, label file, name


@dataclass(frozen=True)
class Frame:
    """What is compared with the next frames."""

    number: int
    key: str
    shard: str
    fit: Quaternions  # (24,4) rotations of SKEL's joints
    label: Quaternions  # (24,4) of SMPL's joints in the label; NaN where not known
    added: NDArray[np.float32]  # (24,3) mm, SMPL's joints of the fitted skin minus the label's; NaN likewise


@dataclass(frozen=True)
class Jump:
    """From one frame to the next."""

    motion: Motion
    key: str  # of the later frame
    frame: int
    shard: str
    joint: str  # that turns most beyond what the label turns; where it is not known, that turns most
    turn_deg: float  # how far that joint turns
    label_turn_deg: float  # and the label's own; NaN: not known
    # Mean over SMPL's joints of what moves with the fit and not with the label; NaN: not known.
    added_mm: float

    @property
    def added_deg(self) -> float:
        """How much further the joint turns than in the label; all of it where that is not known."""
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
        subset, file, sequence = self.motion
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
class Run:
    """Neighbouring frames, of which only two at each end are kept: what a jump and jitter need of them."""

    first: tuple[Frame, ...]
    last: tuple[Frame, ...]


Runs = Mapping[Motion, tuple[Run, ...]]


@dataclass
class Windows:
    """Two and three neighbouring frames each, to be measured."""

    pairs: list[tuple[Motion, Frame, Frame]] = field(default_factory=list)
    triples: list[tuple[Frame, Frame, Frame]] = field(default_factory=list)


def frames_of(people: People, accuracy: Accuracy) -> Iterator[tuple[Motion, Frame]]:
    """The people that are frames of sequences."""
    in_time = np.array(
        [meta["sequence"] is not None and meta["frame"] is not None for meta in people.metas], bool
    )
    some = people.chosen(in_time)
    fields = some.fields()
    known = np.array([bool(meta["smpl"]) for meta in some.metas], bool)
    # Absurd angles would lose all their digits.
    fit = fit_rotations(np.clip(fields["skel_poses"], -_MOST, _MOST))
    label = label_rotations(np.clip(fields["smpl_pose"], -_MOST, _MOST), known)
    moved = 1000 * (accuracy.smpl_joints[in_time, 1] - accuracy.smpl_joints[in_time, 0])
    moved = np.clip(moved, -_MOST, _MOST).astype(np.float32)
    for i, meta in enumerate(some.metas):
        motion = (str(meta["subset"]), str(meta["label_file"]), str(meta["sequence"]))
        # Copies: a view would keep everybody's numbers.
        parts = fit[i].copy(), label[i].copy(), moved[i].copy()
        yield motion, Frame(int(meta["frame"]), some.keys[i], some.shard, *parts)


def join(one: Runs, other: Runs) -> tuple[Runs, Windows]:
    """The runs of both, put together where one goes on with the other, and the windows across the joints."""
    found: dict[Motion, tuple[Run, ...]] = {}
    windows = Windows()
    for motion in sorted({*one, *other}):
        runs = sorted((*one.get(motion, ()), *other.get(motion, ())), key=lambda r: r.first[0].number)
        joined: list[Run] = []
        for run in runs:
            if joined and joined[-1].last[-1].number + 1 == run.first[0].number:
                before = joined[-1]
                near = (*before.last, *run.first)
                windows.pairs.append((motion, before.last[-1], run.first[0]))
                windows.triples += zip(near, near[1:], near[2:], strict=False)
                joined[-1] = Run(_two(before.first, run.first), _two(run.last[::-1], before.last[::-1])[::-1])
            else:
                joined.append(run)
        found[motion] = tuple(joined)
    return found, windows


def _two(nearer: Sequence[Frame], further: Sequence[Frame]) -> tuple[Frame, ...]:
    """The first two frames of two runs' ends, counted from outside."""
    return (*nearer, *further)[:2]


def runs_of(people: People, accuracy: Accuracy) -> tuple[Runs, Windows]:
    """The runs of some people, and the windows within them."""
    frames: dict[Motion, list[Run]] = {}
    for motion, frame in frames_of(people, accuracy):
        frames.setdefault(motion, []).append(Run((frame,), (frame,)))
    return join({motion: tuple(runs) for motion, runs in frames.items()}, {})


@dataclass(frozen=True)
class Steps:
    """What was measured of P pairs and T triples of frames."""

    jumps: tuple[Jump, ...]  # (P,)
    turn_deg: Array  # (P,24) of SKEL's joints
    label_turn_deg: Array  # (P,24) of what they follow; NaN where not known
    added_mm: Array  # (P,)
    # Deg per frame^2: by how much the turn to the next frame differs from the one before.
    jitter_deg: Array  # (T,24,2) of SKEL's joints and of what they follow
    mean_jitter_deg: Array  # (T,2) mean over the body's joints: SKEL's, and SMPL's own


def measure_steps(windows: Windows) -> Steps:
    """Turns, jumps and jitter of some windows."""
    motions = [motion for motion, _, _ in windows.pairs]
    earlier, later = [one for _, one, _ in windows.pairs], [two for _, _, two in windows.pairs]
    turn = lengths(turns_between(_fit(earlier), _fit(later)))
    label_turn = lengths(turns_between(followed(_label(earlier)), followed(_label(later))))
    moved = np.array([two.added for two in later], np.float64) - np.array([one.added for one in earlier])
    added_mm = np.linalg.norm(moved.reshape(-1, NUM_JOINTS, 3), axis=-1).mean(1)
    beyond = turn - np.where(np.isfinite(label_turn), label_turn, 0.0)
    jumps = []
    for i, (motion, two) in enumerate(zip(motions, later, strict=True)):
        j = int(np.round(beyond[i], 6).argmax())
        place = (motion, two.key, two.number, two.shard, SKEL_JOINT_NAMES[j])
        jumps.append(Jump(*place, float(turn[i, j]), float(label_turn[i, j]), float(added_mm[i])))
    three = [[triple[k] for triple in windows.triples] for k in range(3)]
    fit, follow, label = (
        _jitter([rotations(frames) for frames in three])
        for rotations in (_fit, lambda frames: followed(_label(frames)), _label)
    )
    means = fit[:, BODY].mean(1), label[:, LABEL_BODY].mean(1)
    return Steps(tuple(jumps), turn, label_turn, added_mm, np.stack([fit, follow], -1), np.stack(means, -1))


def _jitter(rotations: Sequence[Quaternions]) -> Array:
    """How much turns change (T,24) between the first, second and third of three rotations (T,24,4)."""
    one, two, three = rotations
    return lengths(turns_between(two, three) - turns_between(one, two))


def _fit(frames: Sequence[Frame]) -> Quaternions:
    """Rotations (F,24,4) of SKEL's joints in some frames."""
    return np.array([frame.fit for frame in frames], np.float32).reshape(-1, NUM_JOINTS, 4)


def _label(frames: Sequence[Frame]) -> Quaternions:
    """Rotations (F,24,4) of SMPL's joints in the labels of some frames."""
    return np.array([frame.label for frame in frames], np.float32).reshape(-1, NUM_JOINTS, 4)
