"""Bones kept inside the skin of usual people, not of the template alone.

SKEL scales a bone by the distance of two joints, and moves it rigidly; skin does neither. So bones that fill the
template are outside of other bodies: ribs of people with long trunks and narrow chests, an ulna when the forearm turns.
Here the bones of made-up people are posed by the forward model. Vertices outside get a correction along the normal of
the nearest skin, brought back to the bone's own frame. Corrections are blurred along each solid, so a bone moves and
curves but keeps its thickness.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from skelfit.bodies.assets import SkelAsset, SmplAsset
from skelfit.bodies.dofs import NUM_DOFS, dof_index
from skelfit.bodies.skel import SkelModel

Array = NDArray[np.float64]

CLEARANCE_M = 0.003
PEOPLE, OWN_SHARE = (
    18,
    3,
)  # made-up people; one in three is of the gender's own betas, the others are neutral people
SPARED = 2  # of them may keep a vertex outside: bones follow the usual, not the utmost
ROUNDS, MOST_M = 16, 0.010  # and the most that a round moves a vertex
BLUR_M = 0.012  # standard deviation of the blur
_NEAR_FACES = 256  # whose winding tells inside from outside
_SEED = 1

# Angles (rad) of both sides, mirrored; T-pose first. Moderate, so that the skin does not fold into itself.
POSES: tuple[dict[str, float], ...] = (
    {},
    {"shoulder_x": 1.2, "elbow_flexion": 0.3},
    {"shoulder_x": 0.9, "elbow_flexion": 1.2, "pro_sup": 0.6, "hip_flexion": 1.0, "knee_angle": 1.2},
    {
        "shoulder_x": 1.0, "shoulder_y": 0.7, "elbow_flexion": 0.9, "pro_sup": -0.6,
        "lumbar_extension": 0.2, "thorax_extension": 0.2,
    },
    {"shoulder_x": 0.7, "shoulder_y": -0.5, "elbow_flexion": 1.6, "hip_flexion": 0.3, "knee_angle": 0.6},
    {"shoulder_x": -0.6, "elbow_flexion": 0.5, "lumbar_extension": -0.15, "thorax_extension": -0.15},
)  # fmt: skip
_TURNS_ROUND = ("shoulder_x", "shoulder_y")  # have the other sign on the left


@dataclass(frozen=True)
class Skin:
    """A person's posed skin, and where its outside is."""

    points: cKDTree  # vertices and middles of triangles
    normals: Array  # of them
    middles: cKDTree
    areas: Array  # (F,3) m^2, along the normals of the triangles

    def pushes(self, points: Array) -> Array:
        """Corrections that bring points (P,3) m inside, with the clearance; zero for those inside."""
        near = self.points.query(points)[1]
        height = ((points - self.points.data[near]) * self.normals[near]).sum(1)
        # Beside a sharp fold the nearest triangle may face away from a point that is inside: ask those around.
        doubtful = np.flatnonzero(height > 0)
        around = self.middles.query(points[doubtful], _NEAR_FACES)[1]
        offset = self.middles.data[around] - points[doubtful][:, None]
        winding = (offset * self.areas[around]).sum(2) / np.linalg.norm(offset, axis=2).clip(min=2e-3) ** 3
        height[doubtful[winding.sum(1) > 0]] = -CLEARANCE_M
        out: Array = -(height + CLEARANCE_M).clip(min=0)[:, None] * self.normals[near]
        return out


def make_skin(vertices: Array, faces: NDArray[np.int32]) -> Skin:
    """Of a closed skin (V,3) m with triangles (F,3)."""
    corners = vertices[faces]
    areas = 0.5 * np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], areas)
    normals = np.concatenate([normals, areas])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    middles = corners.mean(1)
    return Skin(cKDTree(np.concatenate([vertices, middles])), normals, cKDTree(middles), areas)


def usual_people(skel: SkelModel, neutral: SmplAsset) -> tuple[torch.Tensor, torch.Tensor]:
    """Betas (N,10) and angles (N,46) rad; the first is the template at rest."""
    betas = np.random.default_rng(_SEED).standard_normal((PEOPLE, skel.num_betas)).clip(-2.5, 2.5)
    own = PEOPLE // OWN_SHARE
    # The betas of this body that come nearest to a neutral one, at rest.
    space = skel.asset.shapedirs.reshape(-1, skel.num_betas).astype(np.float64)
    skins = (
        neutral.v_template[..., None] - skel.asset.v_template[..., None] + neutral.shapedirs @ betas[own:].T
    )
    betas[own:] = np.linalg.lstsq(space, skins.reshape(len(space), -1).astype(np.float64), rcond=None)[0].T
    betas[0] = 0
    q = np.zeros((PEOPLE, NUM_DOFS))
    for person in range(PEOPLE):
        for name, angle in POSES[person % len(POSES)].items():
            for side, sign in (("r", 1), ("l", -1 if name in _TURNS_ROUND else 1)):
                q[person, _index(name, side)] = sign * angle
    return torch.tensor(betas), torch.tensor(q)


def _index(name: str, side: str) -> int:
    if name.startswith(("lumbar", "thorax")):
        return dof_index(name)
    return dof_index(f"shoulder_{side}_{name[-1]}" if name.startswith("shoulder") else f"{name}_{side}")


def pushed_in(asset: SkelAsset, neutral: SmplAsset) -> Array:
    """Bone vertices (Vs,3) m in the frames of their bones, inside the skin of usual people and of the template."""
    skel = copy(SkelModel(asset, dtype=torch.float64))
    betas, q = usual_people(skel, neutral)
    shape = skel.shape(betas)
    skins = [make_skin(v, asset.faces) for v in skel.forward(shape, q).vertices.numpy()]
    bone = asset.bone_weights_rigid.argmax(1)
    # How a posed bone vertex moves with its position in the frame of its bone.
    turn = torch.einsum(
        "vj,...jrc->...vrc", torch.tensor(asset.bone_weights).double(), skel.joints(shape.frames, q).rot
    )
    moved = turn @ shape.frames.bone_rot[:, bone] * skel.bone_scale(shape)[:, bone, None]
    back = torch.linalg.inv(moved).numpy()
    local = asset.bone_v_template.astype(np.float64)
    blur = _blur(asset, local)

    def pushes(people: slice) -> Array:
        skel.bone_v_template = torch.tensor(local)
        posed = skel.bones(skel.shape(betas[people]), q[people]).numpy()
        pushed = [s.pushes(p) for s, p in zip(skins[people], posed, strict=True)]
        return np.einsum("pvij,pvj->pvi", back[people], np.stack(pushed))

    for people, spared in [(slice(None), SPARED)] * ROUNDS + [(slice(1), 0)] * (ROUNDS // 4):
        all_pushes = pushes(people)
        size = np.linalg.norm(all_pushes, axis=2)
        chosen = np.argsort(size, axis=0, kind="stable")[-1 - spared]
        correction = np.take_along_axis(all_pushes, chosen[None, :, None], 0)[0]
        length = np.linalg.norm(correction, axis=1, keepdims=True)
        local = local + blur @ (correction * np.minimum(1.0, MOST_M / length.clip(min=1e-9)))
    return local


def _blur(asset: SkelAsset, local: Array) -> csr_array:
    """(Vs,Vs) weights of a Gaussian along each solid; rows sum to 1."""
    count, faces = len(local), asset.bone_faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count))
    _, solid = connected_components(graph, directed=False)
    # A fourth coordinate puts solids out of each other's reach.
    tree = cKDTree(np.concatenate([local, solid[:, None] * 1.0], axis=1))
    near = tree.sparse_distance_matrix(tree, 2.5 * BLUR_M, output_type="coo_matrix")
    weights = csr_array((np.exp(-0.5 * (near.data / BLUR_M) ** 2), (near.row, near.col)), (count, count))
    weights = weights + eye_array(count)
    return csr_array(diags_array(1 / weights.sum(1)) @ weights)
