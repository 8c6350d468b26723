"""Jumps between neighbouring frames of a sequence: of the stored angles, and what the fit adds to the motion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.body.dofs import DOF_NAMES
from skelfit.verify.accuracy import Accuracy
from skelfit.verify.anatomy import Anatomy
from skelfit.verify.bodies import Array
from skelfit.verify.samples import People

JUMP_DEG = (10, 20, 45, 90, 180)
ADDED_MM = (20, 50, 100)

_MOST = 1e6  # absurd numbers count as this

Sequence = tuple[str, str, str]  # subset, label file, sequence


@dataclass(frozen=True)
class Frame:
    """What is compared with the next frame."""

    number: int
    key: str
    angles_deg: NDArray[np.float32]  # (46,) as stored
    added: NDArray[
        np.float32
    ]  # (24,3) mm, joints of the fitted skin minus those of the label's; NaN where not known


@dataclass(frozen=True)
class Jump:
    """From one frame to the next."""

    sequence: Sequence
    key: str  # of the later frame
    frame: int
    angle_deg: float  # of the DoF that turns most
    dof: str
    added_mm: (
        float  # mean over SMPL's joints of what moves with the fit and not with the label; NaN: not known
    )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        added = round(self.added_mm, 3) if np.isfinite(self.added_mm) else None
        place = {"sequence": self.sequence[2], "key": self.key, "frame": self.frame}
        return place | {"angle_deg": round(self.angle_deg, 2), "dof": self.dof, "added_mm": added}


@dataclass(frozen=True)
class Run:
    """Neighbouring frames, of which only the ends are kept."""

    first: Frame
    last: Frame


Runs = Mapping[Sequence, tuple[Run, ...]]


def frames_of(people: People, accuracy: Accuracy, anatomy: Anatomy) -> Iterator[tuple[Sequence, Frame]]:
    """The people that are frames of sequences."""
    moved = np.clip(1000 * (accuracy.smpl_joints[:, 1] - accuracy.smpl_joints[:, 0]), -_MOST, _MOST)
    bent = np.clip(anatomy.bent_deg, -_MOST, _MOST)
    for i, meta in enumerate(people.metas):
        if meta["sequence"] is not None and meta["frame"] is not None:
            name = (str(meta["subset"]), str(meta["label_file"]), str(meta["sequence"]))
            angles = bent[i].astype(np.float32)
            yield name, Frame(int(meta["frame"]), people.keys[i], angles, moved[i].astype(np.float32))


def jump_between(sequence: Sequence, one: Frame, two: Frame) -> Jump:
    """The jump between two neighbouring frames."""
    turned: Array = np.abs(two.angles_deg.astype(np.float64) - one.angles_deg)
    most = int(turned.argmax())
    added = float(np.linalg.norm(two.added.astype(np.float64) - one.added, axis=-1).mean())
    return Jump(sequence, two.key, two.number, float(turned[most]), DOF_NAMES[most], added)


def join(one: Runs, other: Runs) -> tuple[Runs, list[Jump]]:
    """The runs of both, put together where one goes on with the other, and the jumps between them."""
    found: dict[Sequence, tuple[Run, ...]] = {}
    jumps = []
    for sequence in sorted({*one, *other}):
        runs = sorted((*one.get(sequence, ()), *other.get(sequence, ())), key=lambda r: r.first.number)
        joined: list[Run] = []
        for run in runs:
            if joined and joined[-1].last.number + 1 == run.first.number:
                jumps.append(jump_between(sequence, joined[-1].last, run.first))
                joined[-1] = Run(joined[-1].first, run.last)
            else:
                joined.append(run)
        found[sequence] = tuple(joined)
    return found, jumps


def runs_of(people: People, accuracy: Accuracy, anatomy: Anatomy) -> tuple[Runs, list[Jump]]:
    """The runs of some people, and the jumps within them."""
    frames: dict[Sequence, tuple[Run, ...]] = {}
    for sequence, frame in frames_of(people, accuracy, anatomy):
        frames[sequence] = (*frames.get(sequence, ()), Run(frame, frame))
    return join(frames, {})
