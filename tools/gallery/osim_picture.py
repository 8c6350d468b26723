"""The model of a person as OpenSim has it, in the phases of its motion.

    python -m tools.gallery.osim_picture walk-opensim/walk-0.osim --out osim.jpg

OpenSim reads the .osim and the .mot of the same name, and says where each body, its mesh and each marker are. skelfit
draws that; none of its own models takes part. Needs the package opensim, which is among the tests' packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from skelfit.bodies.shaded_surfaces import BONE, Surface, make_room
from skelfit.bodies.shaded_surfaces import Array as Picture
from skelfit.exports.mesh_files import VIEWER_AXES
from tools.gallery.pictures import SIZE, draw_file, joined, phase_rows

Array = NDArray[np.float64]
_MARKER, _RADIUS = (214, 66, 54), 0.011  # colour, and m
_TIPS = ("_x", "_y")  # ends of the names of points on axes, which are not drawn


@dataclass(frozen=True, eq=False)
class PosedModel:
    """A model in one row of its motion, in OpenSim's ground: y up."""

    bones: list[tuple[Array, NDArray[np.int32]]]  # vertices (V,3) m and faces (F,3) of each mesh
    markers: Array  # (M,3) m


class OpenSimModel:
    """A .osim and the .mot beside it. Raises RuntimeError where OpenSim refuses them."""

    def __init__(self, path: Path) -> None:
        import opensim

        opensim.Logger.setLevelString("Error")
        self.model = opensim.Model(str(path))
        self._state = self.model.initSystem()
        table = opensim.TimeSeriesTable(str(path.with_suffix(".mot")))
        self.times = np.array(table.getIndependentColumn())
        coordinates = self.model.getCoordinateSet()
        found = [coordinates.get(name) for name in table.getColumnLabels()]
        self._columns = list(zip(found, table.getMatrix().to_numpy().T, strict=True))
        self._in_m = opensim.Coordinate.Translational  # the others are in degrees
        self._meshes = [(mesh, _mesh_of(path.parent, mesh)) for mesh in _meshes(self.model, opensim)]

    def pose(self, row: int) -> PosedModel:
        """The model in a row of the motion."""
        state = self._state
        for coordinate, values in self._columns:
            value = float(values[row])
            in_m = coordinate.getMotionType() == self._in_m
            coordinate.setValue(state, value if in_m else np.radians(value), False)
        self.model.realizePosition(state)
        bones = []
        for mesh, (vertices, faces) in self._meshes:
            place = mesh.getFrame().getTransformInGround(state)
            turn = np.array([[place.R().get(i, k) for k in range(3)] for i in range(3)])
            bones.append((vertices @ turn.T + place.p().to_numpy(), faces))
        markers = self.model.getMarkerSet()
        every = [markers.get(i) for i in range(markers.getSize())]
        seen = [m.getLocationInGround(state).to_numpy() for m in every if not m.getName().endswith(_TIPS)]
        return PosedModel(bones, np.array(seen))


def _meshes(model: Any, opensim: Any) -> list[Any]:
    """The meshes that hang on the bodies of a model."""
    bodies = model.getBodySet()
    hung = []
    for body in (bodies.get(i) for i in range(bodies.getSize())):
        size = body.getPropertyByName("attached_geometry").size()
        hung += [opensim.Mesh.safeDownCast(body.get_attached_geometry(k)) for k in range(size)]
    return [mesh for mesh in hung if mesh is not None]


def _mesh_of(folder: Path, mesh: Any) -> tuple[Array, NDArray[np.int32]]:
    """The file of a mesh, scaled as the model says."""
    read: Any = trimesh.load_mesh(folder / mesh.getGeometryFilename(), process=False)
    return np.asarray(read.vertices) * mesh.get_scale_factors().to_numpy(), np.asarray(read.faces, np.int32)


def draw_phases(path: Path, phases: int, turn_deg: float, size: tuple[int, int] = SIZE) -> Picture:
    """The phases (H,W,3) of the motion of a model."""
    model = OpenSimModel(path)
    posed = [model.pose(row) for row in phase_rows(len(model.times), phases)]
    meshes = [(vertices @ VIEWER_AXES.T, faces) for one in posed for vertices, faces in one.bones]
    room = make_room(joined(meshes)[0], size, turn_deg)
    ball = trimesh.creation.icosphere(2, _RADIUS)
    centers = np.concatenate([one.markers for one in posed]) @ VIEWER_AXES.T
    balls = [(ball.vertices + center, ball.faces.astype(np.int32)) for center in centers]
    surfaces = [(joined(meshes), BONE), (joined(balls), _MARKER)]
    return room.draw([Surface(room.placed(points), faces, colour) for (points, faces), colour in surfaces])


def main(words: Sequence[str] | None = None) -> None:
    """Draw a model."""
    about = (__doc__ or "").split("\n")[0]
    draw_file("osim_picture", about, "a .osim, with the .mot beside it", draw_phases, words)


if __name__ == "__main__":
    main()
