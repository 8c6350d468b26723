"""The files of a prediction: parameters, a line for every box or photo, meshes, pictures, and angles over time.

The record is written last. It lists the files, and shows that the prediction is complete.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skelfit.bodies.assets import write_npz
from skelfit.exports.mesh_files import write_mesh
from skelfit.exports.output_folder import prepare_folder
from skelfit.exports.predicted_people import PEOPLE_NAME, RECORD_NAME
from skelfit.learning.inference.angle_files import marked_points, motion_of, write_motion
from skelfit.learning.inference.overlay_video import OverlayVideo
from skelfit.learning.inference.people_pictures import PeoplePictures
from skelfit.learning.inference.photo_results import BoxResult, PhotoResult
from skelfit.learning.inference.predictor import Predictor
from skelfit.learning.inference.row_spool import ColumnSpool, LineSpool
from skelfit.learning.inference.step_times import StepTimes
from skelfit.storage.hashed_write import write_atomically, write_json

ROWS_NAME = "rows.jsonl"
_TO_VIEWER = np.array([1, -1, -1], np.float32)  # from the camera's axes to y up and z towards the viewer
_QUALITY = 90
Parts = Literal["none", "skin", "all"]


@dataclass(frozen=True)
class PredictionOutputs:
    """What to write beside the parameters."""

    meshes: Parts | None = None  # None: the skin, but nothing of frames
    mesh_format: Literal["ply", "obj"] = "ply"
    overlays: Parts = "all"
    layers: bool = False
    angles: bool = True  # of sequences

    @property
    def pictures(self) -> bool:
        """Whether anything is drawn."""
        return self.layers or self.overlays != "none"

    def meshes_of(self, result: PhotoResult) -> Parts:
        """What meshes a photo gets."""
        return self.meshes or ("skin" if result.photo.moment is None else "none")


class PredictionWriter:
    """Fills an output folder, photo by photo. A block that ends with an error leaves no files."""

    def __init__(
        self,
        out: Path,
        overwrite: bool,
        outputs: PredictionOutputs,
        predictor: Predictor,
        times: StepTimes | None = None,
    ) -> None:
        """Raises OutputError for a folder that is not empty, unless it is to be overwritten."""
        prepare_folder(out, overwrite, RECORD_NAME)
        self.out, self._outputs, self._predictor = out, outputs, predictor
        self._pictures = PeoplePictures(predictor, bones=outputs.overlays == "all")
        self.times = times or StepTimes()
        self._spools, self._video_file = ExitStack(), ExitStack()
        self._rows = self._spools.enter_context(closing(LineSpool(out)))
        self._photos_of_people = self._spools.enter_context(closing(LineSpool(out)))
        self._people = self._spools.enter_context(closing(ColumnSpool(out)))
        self._video: tuple[str, OverlayVideo] | None = None  # of the sequence that is being drawn
        self._files: list[str] = []
        self.statuses = Counter[str]()  # how many boxes have which status
        self.photos = 0

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._spools.close()
        self._video_file.__exit__(kind, error, traceback)
        if kind is not None:
            self._remove()

    def _remove(self) -> None:
        """Remove what was written: without the record, `--overwrite` could not tell it from the user's own files."""
        files = [self.out / name for name in self._files]
        for file in files:
            file.unlink(missing_ok=True)
        for folder in {file.parent for file in files} - {self.out}:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    @property
    def folders(self) -> str:
        """The folders that were written to, each after a comma."""
        return "".join(
            f", {name}/" for name in sorted({file.split("/")[0] for file in self._files if "/" in file})
        )

    def add(self, result: PhotoResult) -> None:
        """Write the results of a photo or frame. Raises OutputError."""
        self.photos += 1
        self.statuses.update(box.status for box in result.boxes)
        with self.times.of("write"):
            self._rows.add(json.dumps(_row(box)) for box in result.boxes)
            if result.people is not None:
                self._add_people(result)
                self._meshes(result)
        if result.picture is None:
            return
        if self._outputs.overlays != "none":
            self._overlay(result)
        if self._outputs.layers and result.layers:
            with self.times.of("draw"):
                picture = self._pictures.layers(result)
            self._jpeg(picture, f"layers/{result.photo.name}.jpg")

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the parameters, the rows, the angles and, last, the record. Raises OutputError."""
        self._end_video()
        with self.times.of("write"):
            write_atomically(self.out / ROWS_NAME, lambda stream: stream.writelines(self._rows))
            self._files.append(ROWS_NAME)
            columns = self._people.columns()
            places = [json.loads(line) for line in self._photos_of_people]
            names = ("photo", "sequence")
            texts = {name: np.array([place[i] for place in places], np.str_) for i, name in enumerate(names)}
            kept = {name: column for name, column in columns.items() if name != "markers"}
            write_npz(self.out / PEOPLE_NAME, texts | kept)
            self._files.append(PEOPLE_NAME)
            if self._outputs.angles:
                self._angles(texts["sequence"], columns)
        counts = {"photos": self.photos, "people": self._people.rows, "statuses": dict(self.statuses)}
        seconds = {"seconds_per_image": self.times.per_image(self.photos)}
        write_json(self.out / RECORD_NAME, {**about, **counts, **seconds, "files": sorted(self._files)})

    def _add_people(self, result: PhotoResult) -> None:
        assert result.people is not None
        boxes, moment = [result.boxes[i] for i in result.ok_boxes], result.photo.moment
        count = len(boxes)
        columns: dict[str, NDArray[Any]] = {
            "frame": np.full(count, -1 if moment is None else moment.frame),
            "time": np.full(count, np.nan if moment is None else moment.seconds),
            "track": np.array([-1 if box.track is None else box.track for box in boxes]),
            "person": np.array([box.person for box in boxes], np.int64),
            "box": np.array([box.box for box in boxes], np.float32),
            "square": np.array([box.square for box in boxes], np.float32),
            "markers": marked_points(result.people),
        }
        self._people.add(columns | result.people.parameters())
        place = json.dumps((boxes[0].photo, "" if moment is None else moment.sequence))
        self._photos_of_people.add([place] * count)

    def _overlay(self, result: PhotoResult) -> None:
        """A picture of a photo with people; a frame of the sequence's video, also without any."""
        moment = result.photo.moment
        if moment is None and result.people is None:
            return
        with self.times.of("draw"):
            picture = self._pictures.overlay(result)
        if moment is None:
            self._jpeg(picture, f"overlays/{result.photo.name}.jpg")
            return
        if self._video is None or self._video[0] != moment.sequence:
            self._end_video()
            file = f"overlays/{moment.sequence}.mp4"
            self._video = moment.sequence, self._video_file.enter_context(OverlayVideo(self.out / file))
            self._files.append(file)
        with self.times.of("write"):
            self._video[1].add(picture, moment.seconds)

    def _end_video(self) -> None:
        self._video_file.close()
        self._video = None

    def _jpeg(self, picture: Image.Image, file: str) -> None:
        with self.times.of("write"):
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=_QUALITY)
            write_atomically(self.out / file, lambda written: written.write(stream.getvalue()))
        self._files.append(file)

    def _meshes(self, result: PhotoResult) -> None:
        wanted, people = self._outputs.meshes_of(result), result.people
        if wanted == "none" or people is None:
            return
        persons = [result.boxes[i].person or 0 for i in result.ok_boxes]
        parts = [("skin", people.skin, self._predictor.faces)]
        if wanted == "all":
            parts.append(("bones", *self._predictor.bones(people)))
        for part, vertices, faces in parts:
            for person, points in zip(persons, vertices, strict=True):
                file = f"meshes/{result.photo.name}-{person}-{part}.{self._outputs.mesh_format}"
                write_mesh(self.out / file, points * _TO_VIEWER, faces)
                self._files.append(file)

    def _angles(self, sequences: NDArray[np.str_], columns: Mapping[str, NDArray[Any]]) -> None:
        for sequence, track, rows in _tracks(sequences, columns):
            of_track = {name: columns[name][rows] for name in columns}
            motion = motion_of(f"{sequence}-{track}", of_track)
            self._files += [f"angles/{name}" for name in write_motion(self.out / "angles", motion)]


def _tracks(
    sequences: NDArray[np.str_], columns: Mapping[str, NDArray[Any]]
) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """Sequence, track and rows of each person with at least two frames."""
    for sequence in dict.fromkeys(sequences.tolist()):
        if not sequence:
            continue
        inside = np.flatnonzero(sequences == sequence)
        tracks = columns["track"][inside]
        for track in np.unique(tracks).tolist():
            rows = inside[tracks == track]
            if len(rows) > 1:
                yield sequence, track, rows


def _row(box: BoxResult) -> dict[str, Any]:
    """A box as plain data."""
    camera, moment = box.camera, box.moment
    return {
        "photo": box.photo,
        "sequence": None if moment is None else moment.sequence,
        "frame": None if moment is None else moment.frame,
        "time": None if moment is None else moment.seconds,
        "person": box.person,
        "track": box.track,
        "status": box.status,
        "reason": box.reason,
        "box": None if box.box is None else list(box.box),
        "square": None if box.square is None else list(box.square),
        "camera": None if camera is None else list(camera.camera),
        "intrinsics": None if camera is None else camera.source,
    }
