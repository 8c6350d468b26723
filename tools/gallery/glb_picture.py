"""The phases of a motion in a .glb, as another library plays it.

    python -m tools.gallery.glb_picture walk-glb/walk-0.glb --out glb.jpg

VTK reads the file, moves its joints through the animation and its skin with them. skelfit draws the meshes that come
out, in the colours of the file. Needs the package vtk, the extra `gallery`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.shaded_surfaces import Array as Picture
from skelfit.bodies.shaded_surfaces import Surface, make_room
from tools.gallery.pictures import SIZE, draw_file, joined, phase_rows

Array = NDArray[np.float64]
_RATE = 1000  # Hz, of the times that VTK may be asked for


class GlbReader:
    """A .glb, played by VTK. Raises ValueError for a file without an animation."""

    def __init__(self, path: Path) -> None:
        from vtkmodules.vtkIOGeometry import vtkGLTFReader

        self._reader = vtkGLTFReader()
        self._reader.SetFileName(str(path))
        self._reader.ApplyDeformationsToGeometryOn()
        self._reader.UpdateInformation()
        if self._reader.GetNumberOfAnimations() != 1:
            found = f"{self._reader.GetNumberOfAnimations()} animations"
            raise ValueError(f"{path}: expected a file with one animation, found {found}")
        self._reader.SetFrameRate(_RATE)
        self._reader.EnableAnimation(0)
        self.seconds = float(self._reader.GetAnimationDuration(0))

    def meshes(self, time: float) -> list[tuple[Array, NDArray[np.int32], Array]]:
        """Vertices (V,3) m, faces (F,3), and colour (4,) of each mesh at a time in s: linear RGB, and opacity."""
        from vtkmodules.util.numpy_support import vtk_to_numpy

        self._reader.UpdateTimeStep(time)
        found = []
        for data in _leaves(self._reader.GetOutput()):
            vertices = vtk_to_numpy(data.GetPoints().GetData()).astype(np.float64)
            faces = vtk_to_numpy(data.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int32)
            colour = vtk_to_numpy(data.GetFieldData().GetArray("BaseColorMultiplier"))[0]
            found.append((vertices, faces, colour.astype(np.float64)))
        return found


def _leaves(output: Any) -> Iterator[Any]:
    """The meshes of VTK's tree."""
    walker = output.NewIterator()
    walker.InitTraversal()
    while not walker.IsDoneWithTraversal():
        yield walker.GetCurrentDataObject()
        walker.GoToNextItem()


def draw_phases(path: Path, phases: int, turn_deg: float, size: tuple[int, int] = SIZE) -> Picture:
    """The phases (H,W,3) of the animation of a file."""
    reader = GlbReader(path)
    times = [row / _RATE for row in phase_rows(int(reader.seconds * _RATE) + 1, phases)]
    played = [reader.meshes(time) for time in times]
    room = make_room(np.concatenate([mesh[0] for meshes in played for mesh in meshes]), size, turn_deg)
    surfaces = []
    for same in zip(*played, strict=True):
        vertices, faces = joined([(vertices, faces) for vertices, faces, _ in same])
        shades = 255 * same[0][2][:3].clip(0, 1) ** (1 / 2.2)  # as a screen shows them
        red, green, blue = np.rint(shades).astype(int).tolist()
        surfaces.append(Surface(room.placed(vertices), faces, (red, green, blue), float(same[0][2][3])))
    return room.draw(surfaces)


def main(words: Sequence[str] | None = None) -> None:
    """Draw a file."""
    about = (__doc__ or "").split("\n")[0]
    draw_file("glb_picture", about, "a .glb with an animation", draw_phases, words)


if __name__ == "__main__":
    main()
