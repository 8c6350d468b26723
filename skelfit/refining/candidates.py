"""What a refinement would make of the people of a shard, measured: new label vectors, and measures before and after."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.angle_continuity import canonical_angles, make_continuous
from skelfit.bodies.dofs import dof_limits
from skelfit.bodies.limit_excess import limit_excess
from skelfit.fitting.refinement.image_units import fitted_confidence
from skelfit.fitting.refinement.refinement_problem import RefinementResult, RefinementStatus
from skelfit.refining.acceptance import RefinementMeasures
from skelfit.refining.source_shard import SourceShard
from skelfit.shards.label_vector import FloatArray, pack, unpack
from skelfit.shards.row_status import NO_SMPL, REFINED
from skelfit.verification.measures.accuracy import vertex_distances
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.person_measures import BATCH
from skelfit.verification.measures.posed_bodies import Array, BodyModels, PosedGroup


class Candidates:
    """The P people of a shard as they would be."""

    def __init__(self, shard: SourceShard, result: RefinementResult, bodies: BodyModels) -> None:
        self.shard, self.bodies = shard, bodies
        smpl = [bool(meta["smpl"]) for meta in shard.metas]
        names = [RefinementStatus(number).name.lower() for number in result.status.tolist()]
        # (P,) what the solver made of each person, of REFINEMENTS
        self.tried = [
            NO_SMPL if name == REFINED and not known else name
            for name, known in zip(names, smpl, strict=True)
        ]
        self._old = unpack(shard.labels)
        self._new = {name: x.copy() for name, x in self._old.items()}
        self._moved = np.full(len(smpl), np.nan)
        rows = np.array([name == REFINED for name in self.tried], bool)
        self._take(rows, result)
        self._measure_skins(np.flatnonzero(rows))
        self.labels: FloatArray = pack(self._new)
        self.measures = self._measures(result)

    def _take(self, rows: NDArray[np.bool_], result: RefinementResult) -> None:
        """Put the new parameters of some people (P,) in their places; frames stay continuous."""
        refined, new = result.refined, self._new
        for name, x in (
            ("skel_poses", refined.angles),
            ("skel_betas", refined.betas),
            ("skel_trans", refined.transl),
        ):
            new[name][rows] = x.numpy()[rows]
        self._take_cameras(rows & result.prior_focal.isfinite().numpy(), result)
        sequences: dict[str, list[int]] = {}
        for i, meta in enumerate(self.shard.metas):
            if meta["sequence"] is not None:
                sequences.setdefault(meta["sequence"], []).append(i)
        for frames in sequences.values():
            if rows[frames].any():
                new["skel_poses"][frames] = make_continuous(new["skel_poses"][frames])

    def _take_cameras(self, rows: NDArray[np.bool_], result: RefinementResult) -> None:
        """Put estimated cameras in their places; the label's own body and points move along with the person."""
        old, new = self._old, self._new
        new["cam_int"][rows] = result.cam_int.numpy()[rows]
        way = (new["skel_trans"] - old["skel_trans"])[rows]
        new["smpl_trans"][rows] += way
        known = new["keypoints3d"][rows, :, 3:] > 0
        new["keypoints3d"][rows, :, :3] += np.where(known, way[:, None], 0)

    def _measure_skins(self, rows: NDArray[np.int64]) -> None:
        """Errors of new skins, how far they are from the labels', and 3D keypoints where these are of the fit."""
        labels, shard = pack(self._new), self.shard
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            keys, metas = (tuple(x[i] for i in some) for x in (_keys(shard), shard.metas))
            for group in self.bodies.pose(DecodedPeople(shard.task.name, keys, labels[some], metas)):
                self._measure_group(group, some[group.rows])

    def _measure_group(self, group: PosedGroup, rows: NDArray[np.int64]) -> None:
        distances = vertex_distances(group)
        self._new["errors"][rows] = np.stack([distances.mean(1), distances.max(1)], 1)
        skin, target = (x - x.mean(1, keepdims=True) for x in (group.skin, group.target))
        self._moved[rows] = 1000 * np.linalg.norm(skin - target, axis=2).mean(1)
        points = (
            self.bodies.keypoints()(group.skin) + self._new["skel_trans"][rows].astype(np.float64)[:, None]
        )
        own = np.array([self.shard.metas[i]["keypoints3d"] == "skel" for i in rows], bool)
        self._new["keypoints3d"][rows[own], :, :3] = points[own]

    def _measures(self, result: RefinementResult) -> RefinementMeasures:
        old, new = self._old, self._new
        excess = partial(_excess_deg, self.shard)
        # Also of those that the solver did not look at.
        confidence = fitted_confidence(old["gtkps"][..., 2], self.shard.task.run.job.refine)
        focal = np.stack([x["cam_int"][:, 0, 0].astype(np.float64) for x in (old, new)], 1)
        prior = result.prior_focal.double().numpy()
        begin, end = result.begin.double().numpy(), new["skel_trans"].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            # An estimated focal length moves a person along the axis without a change in the picture.
            end[:, 2] /= np.where(np.isfinite(prior) & (focal[:, 1] > 0), focal[:, 1] / prior, 1.0)
            shift = np.linalg.norm(end - begin, axis=1) / np.linalg.norm(begin, axis=1)
        placed = np.array([meta["coordinates"] == "camera" for meta in self.shard.metas], bool)
        depth = np.stack([x["skel_trans"][:, 2].astype(np.float64) for x in (old, new)], 1)
        depth[:, 0] = np.where(placed, depth[:, 0], np.nan)
        return RefinementMeasures(
            seen=(confidence > 0).sum(1),
            px=result.reprojection_px.double().numpy(),
            reprojection=result.reprojection.double().numpy(),
            limit_deg=np.stack([excess(x["skel_poses"]) for x in (old, new)], 1),
            max_abs_beta=np.stack([np.abs(x["skel_betas"].astype(float)).max(1) for x in (old, new)], 1),
            moved_mm=self._moved,
            shift=shift,
            depth_m=depth,
            focal_px=np.where(focal > 0, focal, np.nan),
            estimated=np.isfinite(prior),
            chain=result.chain.numpy(),
        )


def _keys(shard: SourceShard) -> tuple[str, ...]:
    return tuple(str(meta["key"]) for meta in shard.metas)


def _excess_deg(shard: SourceShard, poses: FloatArray) -> Array:
    """How far the worst angle of each person (P,) lies beyond its limit, by the limits of the conversion."""
    pipeline: Mapping[str, Any] = shard.task.run.identity()["pipeline"]
    limits = dof_limits(pipeline["fit"]["limits"])
    continuous = np.array([meta["angles"] == "continuous" for meta in shard.metas], bool)
    angles = poses.astype(np.float64)
    return limit_excess(np.where(continuous[:, None], canonical_angles(angles, limits), angles), limits)[0]
