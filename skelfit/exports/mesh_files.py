"""Meshes of single people, skin and bones, for any viewer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.exports.exported_bodies import GROUND_AXES, ExportedBodies, check_models, coordinates_of
from skelfit.exports.exporter import (
    Exporter,
    ExportOptions,
    ExportResult,
    FinitePeople,
    selected_people,
)
from skelfit.exports.output_folder import prepare_folder, write_record
from skelfit.shards.finished_run import FinishedRun
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location

DEFAULT_LIMIT = 10  # people that are written when no key and no limit is given: two files of 1 MB each
# From GROUND_AXES to what viewers show at first: y up, and z towards the viewer.
VIEWER_AXES = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])


class MeshExporter(Exporter):
    """`KEY-skin` and `KEY-bones`, two meshes a person, in a format that trimesh writes.

    Metres; y up, z towards the camera, x to the right of the image; where labels have no camera, y up and z forward.
    """

    summary = "skin and bones"
    needs_models = True
    selects_people = True

    def __init__(self, name: str) -> None:
        self.name, self.endings = name, (f".{name}",)

    def count(self, run: FinishedRun, options: ExportOptions) -> int:
        return len(set(options.keys)) or min(options.limit or DEFAULT_LIMIT, run.rows_out)

    def write(self, run: FinishedRun, out: Location, options: ExportOptions) -> ExportResult:
        """Write the people with these keys, or else the first `limit`. Raises OutputError for an unknown key."""
        models = options.required_models()
        check_models(run, models)
        prepare_folder(out, options.overwrite)
        bodies, files, people, finite = ExportedBodies(models), list[str](), 0, FinitePeople(run)
        for person in selected_people(finite, options.keys, self.count(run, options)):
            axes = VIEWER_AXES @ GROUND_AXES[coordinates_of(person)]
            for name, (vertices, faces) in (("skin", bodies.skin(person)), ("bones", bodies.bones(person))):
                files.append(f"{person.key}-{name}.{self.name}")
                write_mesh(out / files[-1], vertices @ axes.T, faces)
            people += 1
            options.step(1)
        write_record(out, run, self.name, files)
        notes = (*self._notes(run, out, options, people), *finite.notes())
        return ExportResult(people, tuple(files), notes, len(finite.left_out))

    def _notes(self, run: FinishedRun, out: Location, options: ExportOptions, people: int) -> tuple[str, ...]:
        notes = [f"skin and bones of {people} people in {out} (.{self.name}, metres, y up)"]
        if not options.keys and options.limit is None and people < run.rows_out:
            notes.append(f"these are the first of {run.rows_out}; others with --limit N or --key KEY")
        return (*notes, "next: open a skin and its bones together, in Blender or MeshLab, say")


def write_mesh(path: Location, vertices: NDArray[np.floating[Any]], faces: NDArray[np.int32]) -> None:
    """Write vertices (V,3) and faces (F,3) in the format that the name ends with. Raises OutputError."""
    import trimesh  # takes a moment to import, and other formats do not need it

    content: Any = trimesh.Trimesh(vertices, faces, process=False).export(file_type=path.suffix[1:])
    data = content.encode() if isinstance(content, str) else content
    write_atomically(path, lambda stream: stream.write(data))
