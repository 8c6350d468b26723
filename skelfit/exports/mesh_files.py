"""Single people as meshes, skin and bones, for a look in any viewer."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from skelfit.bodies.model_set import ModelSet
from skelfit.errors import OutputError
from skelfit.exports.exported_bodies import GROUND, Bodies, check_models, coordinates_of
from skelfit.exports.output_folder import prepare_folder, write_record
from skelfit.shards.finished_run import FinishedRun, Step, no_step
from skelfit.storage.hashed_write import write_atomically

# From GROUND to what viewers show at first: y up, and z towards who looks.
_TO_VIEWER = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])


def export_meshes(
    run: FinishedRun,
    out: Path,
    models: ModelSet,
    form: str,
    *,
    keys: Collection[str] = (),
    limit: int | None = None,
    overwrite: bool = False,
    step: Step = no_step,
) -> int:
    """Write `KEY-skin` and `KEY-bones` into the folder `out`: of these keys, else of the first `limit` people.

    Metres; y up, z towards the camera, x to the right of the image; where labels have no camera, y up and z forward.
    Returns the number of people. Raises OutputError for a key that is not there, ModelError when the models are not
    the run's, ShardError.
    """
    check_models(run, models)
    prepare_folder(out, overwrite)
    bodies, files, left = Bodies(models), [], set(keys)
    people = 0
    for person in run.people():
        if keys and person.key not in left:
            continue
        left.discard(person.key)
        turn = _TO_VIEWER @ GROUND[coordinates_of(person)]
        for name, (vertices, faces) in (("skin", bodies.skin(person)), ("bones", bodies.bones(person))):
            file = f"{person.key}-{name}.{form}"
            write_mesh(out / file, vertices @ turn.T, faces)
            files.append(file)
        people += 1
        step(1)
        if people == limit or (keys and not left):
            break
    if left:
        raise OutputError(
            f"{run.folder}: has nobody with the key {sorted(left)[0]} (of {len(left)} not found)"
        )
    write_record(out, run, form, files)
    return people


def write_mesh(path: Path, vertices: NDArray[np.floating[Any]], faces: NDArray[np.int32]) -> None:
    """Write vertices (V,3) and faces (F,3) in the format that the name ends with. Raises OutputError."""
    content: Any = trimesh.Trimesh(vertices, faces, process=False).export(file_type=path.suffix[1:])
    data = content.encode() if isinstance(content, str) else content
    write_atomically(path, lambda stream: stream.write(data))
