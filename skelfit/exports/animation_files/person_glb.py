"""A person as glTF: a skeleton of SKEL's 24 joints, the skin and the bones that it carries, and one animation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from skelfit.bodies.dofs import NUM_JOINTS, SKEL_JOINT_NAMES, SKEL_PARENTS
from skelfit.exports.animation_files.glb_container import INDICES, VERTICES, GlbBuffer
from skelfit.exports.animation_files.skeleton_motion import SkeletonMotion
from skelfit.exports.animation_files.skinned_meshes import SkinnedMesh
from skelfit.exports.exported_bodies import Array

# One sees the bones through the skin.
_MATERIALS: dict[str, dict[str, Any]] = {
    "skin": {"pbrMetallicRoughness": {"baseColorFactor": [0.8, 0.55, 0.45, 0.4]}, "alphaMode": "BLEND"},
    "bones": {"pbrMetallicRoughness": {"baseColorFactor": [0.9, 0.86, 0.74, 1.0]}},
}
_STILL = 1e-7  # m; a joint that moves less in its parent has no track of positions


def person_glb(
    name: str, motion: SkeletonMotion, meshes: Sequence[SkinnedMesh], facts: dict[str, Any]
) -> bytes:
    """The bytes of a `.glb`; `facts` are extras of the scene: what the person is and where the label came from."""
    buffer, quaternions = GlbBuffer(), track_quaternions(motion.turns)
    nodes = _joint_nodes(motion, quaternions)
    nodes += [{"name": mesh.name, "mesh": i, "skin": 0} for i, mesh in enumerate(meshes)]
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "skelfit"},
        "scene": 0,
        "scenes": [{"name": name, "nodes": [0, *range(NUM_JOINTS, len(nodes))], "extras": facts}],
        "nodes": nodes,
        "meshes": [_mesh(mesh, i, buffer) for i, mesh in enumerate(meshes)],
        "materials": [{"name": mesh.name, **_material(mesh.name)} for mesh in meshes],
        "skins": [
            {
                "name": "SKEL",
                "joints": list(range(NUM_JOINTS)),
                "skeleton": 0,
                "inverseBindMatrices": buffer.add(_inverse_binds(motion.rest)),
            }
        ],
    }
    if len(motion.times) > 1:
        document["animations"] = [_animation(name, motion, quaternions, buffer)]
    return buffer.glb(document)


def track_quaternions(turns: Array) -> Array:
    """Quaternions (T,24,4) x, y, z, w of rotations (T,24,3,3), each on the side of the one before."""
    flat = Rotation.from_matrix(turns.reshape(-1, 3, 3)).as_quat()
    quaternions: Array = flat.reshape(*turns.shape[:2], 4)
    nearer = np.sign((quaternions[1:] * quaternions[:-1]).sum(-1))
    quaternions[1:] *= np.cumprod(np.where(nearer < 0, -1, 1), axis=0)[..., None]
    return quaternions


def _joint_nodes(motion: SkeletonMotion, quaternions: Array) -> list[dict[str, Any]]:
    """The joints as they stand in the first frame."""
    nodes: list[dict[str, Any]] = []
    for joint, name in enumerate(SKEL_JOINT_NAMES):
        rotation, translation = quaternions[0, joint].tolist(), motion.places[0, joint].tolist()
        node: dict[str, Any] = {"name": name, "rotation": rotation, "translation": translation}
        if children := [child for child, parent in enumerate(SKEL_PARENTS) if parent == joint]:
            node["children"] = children
        nodes.append(node)
    return nodes


def _mesh(mesh: SkinnedMesh, material: int, buffer: GlbBuffer) -> dict[str, Any]:
    attributes = {
        "POSITION": buffer.add(mesh.vertices.astype(np.float32), VERTICES, bounds=True),
        "NORMAL": buffer.add(mesh.normals().astype(np.float32), VERTICES),
        "JOINTS_0": buffer.add(mesh.joints, VERTICES),
        "WEIGHTS_0": buffer.add(mesh.weights, VERTICES),
    }
    indices = buffer.add(mesh.faces.reshape(-1).astype(np.uint32), INDICES)
    return {
        "name": mesh.name,
        "primitives": [{"attributes": attributes, "indices": indices, "material": material}],
    }


def _material(name: str) -> dict[str, Any]:
    material = _MATERIALS[name]
    surface = material["pbrMetallicRoughness"] | {"metallicFactor": 0.0, "roughnessFactor": 0.7}
    return material | {"pbrMetallicRoughness": surface}


def _inverse_binds(rest: Array) -> NDArray[np.float32]:
    """(24,4,4) float32, column by column: from the T-pose to the joints."""
    matrices = np.tile(np.eye(4, dtype=np.float32), (len(rest), 1, 1))
    matrices[:, 3, :3] = -rest
    return matrices


def _animation(name: str, motion: SkeletonMotion, quaternions: Array, buffer: GlbBuffer) -> dict[str, Any]:
    times = buffer.add(motion.times.astype(np.float32), bounds=True)
    channels: list[dict[str, Any]] = []
    samplers: list[dict[str, Any]] = []
    for joint in range(NUM_JOINTS):
        tracks = {"rotation": quaternions[:, joint]}
        if np.ptp(motion.places[:, joint], axis=0).max() > _STILL:
            tracks["translation"] = motion.places[:, joint]
        for path, values in tracks.items():
            channels.append({"sampler": len(samplers), "target": {"node": joint, "path": path}})
            samplers.append({"input": times, "output": buffer.add(values.astype(np.float32))})
    return {"name": name, "channels": channels, "samplers": samplers}
