"""What a prediction leaves: parameters, a line for every box and photo, meshes, and pictures.

The record is written last: it says that all is there, and which files are ours.
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
from skelfit.learning.inference.overlay import Painter
from skelfit.learning.inference.photos import OK, Finding, Seen
from skelfit.learning.inference.predictor import Array, People, Predictor
from skelfit.storage.hashed_write import write_atomically, write_json

PEOPLE_NAME, ROWS_NAME, RECORD_NAME = "people.npz", "rows.jsonl", "predict.json"
_TO_VIEWER = np.array([1, -1, -1], np.float32)  # from the camera's axes to y up and z towards who looks
_QUALITY = 90


@dataclass(frozen=True)
class Wanted:
    """What is written beside the parameters."""

    meshes: Literal["none", "skin", "all"] = "skin"
    mesh_format: Literal["ply", "obj"] = "ply"
    overlays: bool = True


class Writer:
    """Fills an output folder, photo by photo."""

    def __init__(self, out: Path, overwrite: bool, wanted: Wanted, predictor: Predictor) -> None:
        """Raises OutputError for a folder that holds anything, unless it is to be overwritten."""
        prepare_folder(out, overwrite, RECORD_NAME)
        self.out, self._wanted, self._predictor = out, wanted, predictor
        self._painter = Painter(predictor.faces, len(predictor.body.v_template))
        self._findings: list[Finding] = []
        self._parameters: list[dict[str, Array]] = []
        self._files: list[str] = []
        self.photos = 0

    @property
    def statuses(self) -> dict[str, int]:
        """How many findings have which status."""
        return dict(Counter(finding.status for finding in self._findings))

    @property
    def folders(self) -> str:
        """The folders that were filled, each behind a comma."""
        return "".join(f", {name}/" for name in sorted({file.split("/")[0] for file in self._files}))

    def add(self, seen: Seen) -> None:
        """Write what is seen in a photo. Raises OutputError."""
        self.photos += 1
        self._findings += seen.findings
        if seen.people is None or seen.image is None:
            return
        self._parameters.append(seen.people.parameters())
        if self._wanted.overlays:
            self._overlay(seen)
        if self._wanted.meshes != "none":
            self._meshes(seen.photo.name, [seen.findings[i].person or 0 for i in seen.good], seen.people)

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the parameters, the rows and, last, the record. Raises OutputError."""
        rows = "".join(json.dumps(_row(finding)) + "\n" for finding in self._findings)
        write_atomically(self.out / ROWS_NAME, lambda stream: stream.write(rows.encode()))
        good = [finding for finding in self._findings if finding.status == OK]
        columns = {
            "photo": np.array([finding.photo for finding in good], np.str_),
            "person": np.array([finding.person for finding in good], np.int64),
            "box": np.array([finding.box for finding in good], np.float32).reshape(-1, 4),
            "square": np.array([finding.square for finding in good], np.float32).reshape(-1, 3),
        }
        names = self._parameters[0] if self._parameters else ()
        columns |= {name: np.concatenate([each[name] for each in self._parameters]) for name in names}
        write_npz(self.out / PEOPLE_NAME, columns)
        found = {"photos": self.photos, "people": len(good), "statuses": self.statuses}
        files = sorted([PEOPLE_NAME, ROWS_NAME, *self._files])
        write_json(self.out / RECORD_NAME, {**about, **found, "files": files})

    def _overlay(self, seen: Seen) -> None:
        """The people over their photo; with labels: photo, prediction, label side by side."""
        assert seen.image is not None and seen.people is not None
        with open_image(seen.image) as image:
            photo = to_rgb(image)
        drawn = [self._draw(photo, people, seen.affine) for people in (seen.people, seen.labels) if people]
        if seen.labels is not None:
            drawn.insert(0, photo.resize(drawn[0].size))
        picture = Image.new("RGB", (sum(part.width for part in drawn), drawn[0].height))
        for i, part in enumerate(drawn):
            picture.paste(part, (i * part.width, 0))
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=_QUALITY)
        file = f"overlays/{seen.photo.name}.jpg"
        write_atomically(self.out / file, lambda written: written.write(stream.getvalue()))
        self._files.append(file)

    def _draw(self, photo: Image.Image, people: People, affine: Array | None) -> Image.Image:
        cameras = people.cam_int
        if affine is not None:
            cameras = np.concatenate([affine, [[0, 0, 1]]]).astype(np.float32) @ cameras
        return self._painter.draw(photo, list(people.skin), list(people.joints), list(cameras))

    def _meshes(self, name: str, persons: list[int], people: People) -> None:
        parts = [("skin", people.skin, self._predictor.faces)]
        if self._wanted.meshes == "all":
            parts.append(("bones", *self._predictor.bones(people)))
        for part, vertices, faces in parts:
            for person, points in zip(persons, vertices, strict=True):
                file = f"meshes/{name}-{person}-{part}.{self._wanted.mesh_format}"
                write_mesh(self.out / file, points * _TO_VIEWER, faces)
                self._files.append(file)


def _row(finding: Finding) -> dict[str, Any]:
    """A finding as plain data."""
    camera = finding.camera
    row = asdict(finding) | {"camera": None, "intrinsics": None}
    if finding.square is not None:
        row["square"] = list(finding.square)
    if camera is not None:
        row |= {"camera": list(camera.camera), "intrinsics": camera.source}
    return row
