"""The errors of every label row by every stage of an estimate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelfit.protocols.estimates import NOT_FINITE, ChunkEstimates, Estimates, points_px
from skelfit.protocols.evaluated_bodies import EvaluatedBodies, PosedSkins
from skelfit.protocols.figures import joint_figures, keypoint_distances, roots, skin_figure
from skelfit.protocols.protocol import Protocol
from skelfit.protocols.published_labels import PublishedLabels

Array = NDArray[np.float64]
OK, BAD_LABEL = "ok", "bad_label"
_FAR_M = 1e6  # no point of a person is further away
_CHUNK = 64  # rows at a time


@dataclass(frozen=True)
class RowScores:
    """The scores of N label rows by S stages; NaN for rows whose status is not OK."""

    status: list[str]
    reason: list[str]
    errors: Array  # (S,N,E) mm, in the order of the protocol's errors
    distances: (
        Array  # (S,N,44) of 2D keypoints in the longer side of the box; (S,N,0) where none are measured
    )
    hinges_deg: Array  # (S,N,4)

    @property
    def ok(self) -> NDArray[np.int64]:
        """The rows that have scores."""
        return np.array([i for i, status in enumerate(self.status) if status == OK], np.int64)

    @classmethod
    def unknown(cls, protocol: Protocol, stages: int, status: list[str], reason: list[str]) -> RowScores:
        """Rows without scores."""

        def nans(*shape: int) -> Array:
            return np.full((stages, len(status), *shape), np.nan)

        keypoints = 44 if protocol.pck_at else 0
        return cls(status, reason, nans(len(protocol.errors)), nans(keypoints), nans(4))


class Scorer:
    """Scores the rows of a label file by a protocol."""

    def __init__(self, protocol: Protocol, labels: PublishedLabels, bodies: EvaluatedBodies) -> None:
        """Raises ModelError where the models lack a regressor or a body that the protocol needs."""
        self.protocol, self.labels, self.bodies = protocol, labels, bodies
        bodies.regressor(protocol.points)

    def score(
        self, estimates: Estimates, scores: RowScores, progress: Callable[[int], object] = lambda _: None
    ) -> None:
        """Fill in the rows whose status is OK; a row without an estimate gets another status.

        progress: is told how many more rows are done. Raises InputError, ModelError.
        """
        rows = scores.ok
        for start in range(0, len(rows), _CHUNK):
            some = rows[start : start + _CHUNK]
            chunk = estimates.of_rows(some)
            for failure in chunk.failures:
                scores.status[failure.row], scores.reason[failure.row] = failure.status, failure.reason
            if len(chunk.rows):
                self._fill(scores, chunk)
            progress(len(some))

    def target(self, rows: NDArray[np.int64]) -> PosedSkins | None:
        """The bodies that rows are compared with; None where those are keypoints. Raises ModelError."""
        labels = self.labels
        if labels.pose is None or labels.betas is None:
            return None
        genders = [labels.gender[row] for row in rows.tolist()]
        return self.bodies.smpl(labels.pose[rows], labels.betas[rows], genders)

    def _fill(self, scores: RowScores, chunk: ChunkEstimates) -> None:
        rows, protocol = chunk.rows, self.protocol
        target = self.target(rows)
        label_points = None
        if target is not None:
            label_points = self.bodies.points(target, protocol.points)
        elif self.labels.keypoints3d is not None:
            label_points = self.labels.keypoints3d[rows]
        stages = [self.bodies.points(stage.bodies, protocol.points) for stage in chunk.stages]
        faults = _faults(label_points, stages)
        for s, stage in enumerate(chunk.stages):
            scores.hinges_deg[s, rows] = stage.hinges_deg
            points = np.where(faults[:, None, None] == "", stages[s], 0.0)
            if protocol.pck_at:
                assert self.labels.keypoints2d is not None
                at = points_px(points, stage)
                scores.distances[s, rows] = keypoint_distances(
                    self.labels.keypoints2d[rows], at, self.labels.size[rows]
                )
                continue
            assert label_points is not None
            label_points = np.where(faults[:, None, None] == "", label_points, 0.0)
            scores.errors[s, rows, :2] = joint_figures(label_points, points, protocol.joints, protocol.root)
            if target is not None:
                shift = roots(points, protocol.root) - roots(label_points, protocol.root)
                scores.errors[s, rows, 2] = skin_figure(target.skin, stage.bodies.skin, shift)
        for row, fault in zip(rows.tolist(), faults.tolist(), strict=True):
            if fault:
                scores.status[row], scores.reason[row] = fault, f"a body that reaches beyond {_FAR_M:g} m"
                for figures in (scores.errors, scores.distances, scores.hinges_deg):
                    figures[:, row] = np.nan


def _faults(label: Array | None, stages: Sequence[Array]) -> NDArray[np.str_]:
    """The statuses (K,) of rows whose points (K,J,3) m cannot be compared, by the label or an estimate; else ''."""

    def far(points: Array) -> NDArray[np.bool_]:
        return np.asarray(~(np.abs(points) < _FAR_M).all((1, 2)), np.bool_)

    faults = np.where(np.any([far(points) for points in stages], 0), NOT_FINITE, "")
    return faults if label is None else np.where(far(label), BAD_LABEL, faults)
