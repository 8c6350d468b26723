"""The files of a prediction: parameters, a line for every box or photo, meshes, and pictures.

The record is written last. It lists the files, and shows that the prediction is complete.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from skelfit.bodies.assets import write_npz
from skelfit.exports.mesh_files import write_mesh
from skelfit.exports.output_folder import prepare_folder
from skelfit.images.decoding import open_image, to_rgb
from skelfit.learning.inference.overlay import OverlayPainter
from skelfit.learning.inference.photos import OK, BoxResult, PhotoResult
from skelfit.learning.inference.predictor import Array, PredictedPeople, Predictor
from skelfit.storage.hashed_write import write_atomically, write_json

PEOPLE_NAME, ROWS_NAME, RECORD_NAME = "people.npz", "rows.jsonl", "predict.json"
_TO_VIEWER = np.array([1, -1, -1], np.float32)  # from the camera's axes to y up and z towards the viewer
_QUALITY = 90


@dataclass(frozen=True)
class PredictionOutputs:
    """What to write beside the parameters."""

    meshes: Literal["none", "skin", "all"] = "skin"
    mesh_format: Literal["ply", "obj"] = "ply"
    overlays: bool = True


class PredictionWriter:
    """Fills an output folder, photo by photo."""

    def __init__(self, out: Path, overwrite: bool, outputs: PredictionOutputs, predictor: Predictor) -> None:
        """Raises OutputError for a folder that is not empty, unless it is to be overwritten."""
        prepare_folder(out, overwrite, RECORD_NAME)
        self.out, self._outputs, self._predictor = out, outputs, predictor
        self._painter = OverlayPainter(predictor.faces, len(predictor.body.v_template))
        self._boxes: list[BoxResult] = []
        self._parameters: list[dict[str, Array]] = []
        self._files: list[str] = []
        self.photos = 0

    @property
    def statuses(self) -> dict[str, int]:
        """How many boxes have which status."""
        return dict(Counter(box.status for box in self._boxes))

    @property
    def folders(self) -> str:
        """The folders that were written to, each after a comma."""
        return "".join(f", {name}/" for name in sorted({file.split("/")[0] for file in self._files}))

    def add(self, result: PhotoResult) -> None:
        """Write the results of a photo. Raises OutputError."""
        self.photos += 1
        self._boxes += result.boxes
        if result.people is None or result.image is None:
            return
        self._parameters.append(result.people.parameters())
        if self._outputs.overlays:
            self._overlay(result)
        if self._outputs.meshes != "none":
            self._meshes(
                result.photo.name, [result.boxes[i].person or 0 for i in result.ok_boxes], result.people
            )

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the parameters, the rows and, last, the record. Raises OutputError."""
        rows = "".join(json.dumps(_row(box)) + "\n" for box in self._boxes)
        write_atomically(self.out / ROWS_NAME, lambda stream: stream.write(rows.encode()))
        good = [box for box in self._boxes if box.status == OK]
        arrays = {
            "photo": np.array([box.photo for box in good], np.str_),
            "person": np.array([box.person for box in good], np.int64),
            "box": np.array([box.box for box in good], np.float32).reshape(-1, 4),
            "square": np.array([box.square for box in good], np.float32).reshape(-1, 3),
        }
        names = self._parameters[0] if self._parameters else ()
        arrays |= {
            name: np.concatenate([parameters[name] for parameters in self._parameters]) for name in names
        }
        write_npz(self.out / PEOPLE_NAME, arrays)
        counts = {"photos": self.photos, "people": len(good), "statuses": self.statuses}
        files = sorted([PEOPLE_NAME, ROWS_NAME, *self._files])
        write_json(self.out / RECORD_NAME, {**about, **counts, "files": files})

    def _overlay(self, result: PhotoResult) -> None:
        """The people over their photo; with labels: photo, prediction, label side by side."""
        assert result.image is not None and result.people is not None
        with open_image(result.image) as image:
            photo = to_rgb(image)
        drawn = [
            self._draw(photo, people, result.affine) for people in (result.people, result.labels) if people
        ]
        if result.labels is not None:
            drawn.insert(0, photo.resize(drawn[0].size))
        picture = Image.new("RGB", (sum(part.width for part in drawn), drawn[0].height))
        for i, part in enumerate(drawn):
            picture.paste(part, (i * part.width, 0))
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=_QUALITY)
        file = f"overlays/{result.photo.name}.jpg"
        write_atomically(self.out / file, lambda written: written.write(stream.getvalue()))
        self._files.append(file)

    def _draw(self, photo: Image.Image, people: PredictedPeople, affine: Array | None) -> Image.Image:
        cameras = people.cam_int
        if affine is not None:
            cameras = np.concatenate([affine, [[0, 0, 1]]]).astype(np.float32) @ cameras
        return self._painter.draw(photo, list(people.skin), list(people.joints), list(cameras))

    def _meshes(self, name: str, persons: list[int], people: PredictedPeople) -> None:
        parts = [("skin", people.skin, self._predictor.faces)]
        if self._outputs.meshes == "all":
            parts.append(("bones", *self._predictor.bones(people)))
        for part, vertices, faces in parts:
            for person, points in zip(persons, vertices, strict=True):
                file = f"meshes/{name}-{person}-{part}.{self._outputs.mesh_format}"
                write_mesh(self.out / file, points * _TO_VIEWER, faces)
                self._files.append(file)


def _row(box: BoxResult) -> dict[str, Any]:
    """A box as plain data."""
    camera = box.camera
    row = asdict(box) | {"camera": None, "intrinsics": None}
    if box.square is not None:
        row["square"] = list(box.square)
    if camera is not None:
        row |= {"camera": list(camera.camera), "intrinsics": camera.source}
    return row
