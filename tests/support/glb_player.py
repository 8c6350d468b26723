"""A plain player of `.glb` files, by Khronos's glTF 2.0 specification alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

_COMPONENTS = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_SIZES = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class GlbPlayer:
    """One file; poses it at any time."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        size, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.document: dict[str, Any] = json.loads(data[20 : 20 + size])
        binary, kind = struct.unpack_from("<I4s", data, 20 + size)
        assert kind == b"BIN\0" and 28 + size + binary == length
        self._data = data[28 + size :]
        self.nodes: list[dict[str, Any]] = self.document["nodes"]
        self._children = {child: i for i, node in enumerate(self.nodes) for child in node.get("children", [])}

    def array(self, accessor: int) -> np.ndarray:
        """The numbers of an accessor (N, size of its type)."""
        facts = self.document["accessors"][accessor]
        view = self.document["bufferViews"][facts["bufferView"]]
        kind, size = _COMPONENTS[facts["componentType"]], _SIZES[facts["type"]]
        assert view["byteOffset"] % np.dtype(kind).itemsize == 0
        assert view["byteLength"] == facts["count"] * size * np.dtype(kind).itemsize
        return np.frombuffer(self._data, kind, facts["count"] * size, view["byteOffset"]).reshape(-1, size)

    def times(self) -> np.ndarray:
        """The times (T,) s of the only animation, which all tracks share."""
        (animation,) = self.document["animations"]
        (index,) = {sampler["input"] for sampler in animation["samplers"]}
        return self.array(index)[:, 0].astype(float)

    def matrices(self, time: float | None = None) -> dict[str, np.ndarray]:
        """(4,4) of each node in the scene, by name, at a time in s; None: as the nodes say."""
        places = [
            (
                np.array(node.get("translation", [0, 0, 0]), float),
                Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])),
            )
            for node in self.nodes
        ]
        for channel in self.document["animations"][0]["channels"] if time is not None else []:
            sampler = self.document["animations"][0]["samplers"][channel["sampler"]]
            times, values = self.array(sampler["input"])[:, 0], self.array(sampler["output"]).astype(float)
            node = channel["target"]["node"]
            translation, rotation = places[node]
            assert time is not None and sampler.get("interpolation", "LINEAR") == "LINEAR"
            at = float(np.clip(time, times[0], times[-1]))
            if channel["target"]["path"] == "rotation":
                rotation = Slerp(times, Rotation.from_quat(values))(at)
            else:
                translation = np.array([np.interp(at, times, column) for column in values.T])
            places[node] = translation, rotation
        matrices = [np.eye(4) for _ in places]
        for matrix, (translation, rotation) in zip(matrices, places, strict=True):
            matrix[:3, :3], matrix[:3, 3] = rotation.as_matrix(), translation
        return {node["name"]: self._in_scene(i, matrices) for i, node in enumerate(self.nodes)}

    def _in_scene(self, node: int, matrices: list[np.ndarray]) -> np.ndarray:
        parent = self._children.get(node)
        return matrices[node] if parent is None else self._in_scene(parent, matrices) @ matrices[node]

    def vertices(self, name: str, time: float | None = None) -> np.ndarray:
        """The skinned vertices (V,3) of a mesh. A skinned mesh ignores where its own node is."""
        node = next(node for node in self.nodes if node["name"] == name)
        (primitive,) = self.document["meshes"][node["mesh"]]["primitives"]
        parts = {part: self.array(index) for part, index in primitive["attributes"].items()}
        skin, matrices = self.document["skins"][node["skin"]], self.matrices(time)
        binds = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2).astype(float)
        joints = np.array([matrices[self.nodes[j]["name"]] for j in skin["joints"]]) @ binds
        blended = np.einsum("vk,vkij->vij", parts["WEIGHTS_0"].astype(float), joints[parts["JOINTS_0"]])
        points = np.concatenate([parts["POSITION"], np.ones((len(parts["POSITION"]), 1))], axis=1)
        return np.einsum("vij,vj->vi", blended, points)[:, :3]
