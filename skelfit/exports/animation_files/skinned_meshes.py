"""A person's skin and bones as meshes that joints carry, four joints a vertex, and how far that is from SKEL's skin.

Viewers blend at most four joints; SKEL has more at few vertices. They do not know SKEL's pose correctives either: a
mesh gets those of the motion's mean pose, so a person of one frame has them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.bodies.skel import SkelModel
from skelfit.exports.animation_files.skeleton_motion import SkeletonMotion, scene_axes, scene_joints
from skelfit.exports.exported_bodies import Array, parameters_of
from skelfit.shards.finished_run import Person

CARRIERS = 4  # joints of a vertex
MEASURED = 50  # frames of a sequence, evenly spread


@dataclass(frozen=True)
class SkinnedMesh:
    """A mesh in the T-pose."""

    name: str
    vertices: Array  # (V,3) m
    faces: NDArray[np.int32]  # (F,3)
    joints: NDArray[np.uint8]  # (V,4); 0 where the weight is 0
    weights: NDArray[np.float32]  # (V,4), each row with sum 1, the largest first

    def normals(self) -> Array:
        """Unit normals (V,3): those of the faces around a vertex, by their areas."""
        corners = self.vertices[self.faces]
        normals = np.zeros_like(self.vertices)
        areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        for corner in range(3):
            np.add.at(normals, self.faces[:, corner], areas)
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        upright: Array = np.where(length > 0, normals / np.where(length > 0, length, 1), [0.0, 1.0, 0.0])
        return upright


@torch.no_grad()
def skinned_meshes(
    model: SkelModel, motion: SkeletonMotion, people: Sequence[Person]
) -> tuple[SkinnedMesh, SkinnedMesh]:
    """Skin and bones of the person of a motion, whose frames are `people`."""
    shape = model.shape(torch.tensor(motion.betas))
    betas, q, _ = parameters_of(people)
    local = model.joints(model.frames(betas), q).local_rot.mean(0)
    skin = (shape.v_rest + model.correctives(local)).numpy()
    bones = model.bones(shape, torch.zeros(q.shape[-1:], dtype=q.dtype)).numpy()
    asset = model.asset
    return (
        SkinnedMesh("skin", skin, asset.faces, *carriers(asset.skin_weights)),
        SkinnedMesh("bones", bones, asset.bone_faces, *carriers(asset.bone_weights)),
    )


def carriers(weights: NDArray[np.floating[Any]]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The joints (V,4) with the largest weights of (V,24), and their weights, scaled to the sum 1."""
    joints = np.argsort(-weights, axis=1, kind="stable")[:, :CARRIERS]
    kept = np.take_along_axis(weights, joints, axis=1).astype(np.float64)
    kept = (kept / kept.sum(1, keepdims=True)).astype(np.float32)
    return np.where(kept > 0, joints, 0).astype(np.uint8), kept


def posed_vertices(mesh: SkinnedMesh, rest: Array, turns: Array, places: Array) -> Array:
    """The vertices (V,3) m of a mesh, as viewers compute them.

    Joints are at `rest` (24,3) in the T-pose; in the scene they are at `places` (24,3), with `turns` (24,3,3).
    """
    shifts = places - (turns @ rest[..., None])[..., 0]
    weights = mesh.weights.astype(np.float64)
    turn = np.einsum("vk,vkij->vij", weights, turns[mesh.joints])
    vertices: Array = (turn @ mesh.vertices[..., None])[..., 0]
    return vertices + np.einsum("vk,vki->vi", weights, shifts[mesh.joints])


@torch.no_grad()
def skin_distances(
    mesh: SkinnedMesh, model: SkelModel, motion: SkeletonMotion, people: Sequence[Person]
) -> tuple[float, float]:
    """The mean and the largest distance in m of a skin from SKEL's, over at most MEASURED frames."""
    rows = np.unique(np.linspace(0, len(people) - 1, min(len(people), MEASURED)).round().astype(int))
    mean, largest = 0.0, 0.0
    axes, (turns, places) = scene_axes(people[0]), scene_joints(motion)
    for row in rows.tolist():
        betas, q, trans = parameters_of([people[row]])
        exact = model.forward(model.shape(betas), q, trans).vertices[0].numpy() @ axes.T
        away = np.linalg.norm(posed_vertices(mesh, motion.rest, turns[row], places[row]) - exact, axis=1)
        mean, largest = mean + float(away.mean()) / len(rows), max(largest, float(away.max()))
    return mean, largest
