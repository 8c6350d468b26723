"""Estimates by a trained network: the crops of label rows, and the estimates of all its layers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skelfit.errors import InputError
from skelfit.images.decoding import open_image
from skelfit.images.image_bytes import IDENTITY, MISSING
from skelfit.images.image_source import read_image
from skelfit.learning.data.person_crops import Square, read_crop, square_around
from skelfit.learning.inference.intrinsics import CameraSource, PhotoCamera
from skelfit.learning.inference.photos import no_image
from skelfit.learning.inference.predictor import CropInput, PredictedPeople, Predictor
from skelfit.protocols.estimates import NOT_FINITE, ChunkEstimates, RowFailure, SkelParameters, StageEstimate
from skelfit.protocols.evaluated_bodies import PosedSkins
from skelfit.protocols.figures import skel_hinges
from skelfit.protocols.published_labels import PublishedLabels
from skelfit.protocols.row_matching import posix

_THREADS = 4
_SIDE = 256  # px, of a crop that shows nothing
_LARGEST = 8  # sides of a crop, in the longer side of its image


class CropRule(NamedTuple):
    """Whether squares about boxes are widened."""

    cut: bool  # the one that is cut out
    told: bool  # the one whose place and size the network is told


class NetworkEstimates:
    """What a network says of the people of label rows."""

    def __init__(
        self,
        predictor: Predictor,
        labels: PublishedLabels,
        images: Path,
        find_camera: CameraSource | None,
        crops: CropRule,
        batch_size: int,
    ) -> None:
        """predictor: with the estimates of every layer; images: below it are those that the labels name; find_camera:
        None: the intrinsics of the labels.
        """
        self.predictor, self._labels, self._images = predictor, labels, images
        self._find_camera, self._crops, self._batch_size = find_camera, crops, batch_size
        self.stages = _stages(predictor)

    def of_rows(self, rows: NDArray[np.int64]) -> ChunkEstimates:
        """The people of some rows. Raises ModelError."""
        with ThreadPoolExecutor(_THREADS, "images") as pool:
            cut = list(pool.map(self._cut, rows.tolist()))
        failures = [each for each in cut if isinstance(each, RowFailure)]
        crops = [each for each in cut if not isinstance(each, RowFailure)]
        failed = {failure.row for failure in failures}
        rows = np.array([row for row in rows.tolist() if row not in failed], np.int64)
        layers = self._predicted(crops)
        if layers:
            finite = layers[-1].finite
            failures += [RowFailure(row, NOT_FINITE, "no finite answer") for row in rows[~finite].tolist()]
            rows, layers = rows[finite], [layer.rows(np.flatnonzero(finite)) for layer in layers]
        return self._chunk(rows, layers, tuple(failures))

    def _chunk(
        self, rows: NDArray[np.int64], layers: list[PredictedPeople], failures: tuple[RowFailure, ...]
    ) -> ChunkEstimates:
        female = np.full(len(rows), self.predictor.body.gender == "female")
        if not len(rows):
            return ChunkEstimates(
                rows, (), SkelParameters(np.zeros((0, 46)), np.zeros((0, 10)), female), failures
            )
        stages = tuple(
            StageEstimate(
                PosedSkins(layer.skin - layer.skel_trans[:, None]),
                skel_hinges(layer.skel_poses),
                layer.skel_trans.astype(np.float64),
                layer.cam_int.astype(np.float64),
            )
            for layer in layers
        )
        last = layers[-1]
        final = SkelParameters(last.skel_poses.astype(np.float64), last.skel_betas.astype(np.float64), female)
        return ChunkEstimates(rows, stages, final, failures)

    def _predicted(self, crops: list[CropInput]) -> list[PredictedPeople]:
        """The people of crops by each stage."""
        size = self._batch_size
        batches = [self.predictor.estimates(crops[i : i + size]) for i in range(0, len(crops), size)]
        return [PredictedPeople.joined(of_stage) for of_stage in zip(*batches, strict=True)]

    def _cut(self, row: int) -> CropInput | RowFailure:
        """The crop of a row as labels have it: EXIF orientations do not count. Faults of an image become a status."""
        labels = self._labels
        image = read_image(self._images / posix(labels.imgname[row]))
        if image.data is None:
            detail = "no such file" if image.reason == MISSING else "the image cannot be decoded"
            return RowFailure(row, image.reason, image.detail or detail)
        try:
            with open_image(image.data) as opened:
                camera, longer = self._camera(row, opened), max(opened.size)
            box = (*labels.center[row].tolist(), *labels.size[row].tolist())
            square, told = (square_around(*box, widen=widen) for widen in self._crops)
            if not 1 <= square.side <= _LARGEST * longer:
                return RowFailure(row, "bad_box", f"a box of {square.side:.0f} px in an image of {longer} px")
            pixels = read_crop(image.data, IDENTITY, square, self.predictor.network.backbone.crop)
        except InputError as error:
            return RowFailure(row, "no_camera", str(error))
        except Exception as error:  # a decoder may raise anything
            return RowFailure(row, *no_image(error))
        return CropInput(pixels, told, camera)

    def _camera(self, row: int, image: object) -> PhotoCamera:
        """Raises InputError."""
        if self._find_camera is not None:
            return self._find_camera(image).camera  # type: ignore[arg-type]
        cameras = self._labels.cam_int
        if cameras is None or not cameras[row, 0, 0] > 0:
            raise InputError("labels", "cam_int", "intrinsics of this row", "none")
        (fx, _, cx), (_, fy, cy) = cameras[row, :2].tolist()
        return PhotoCamera(fx, fy, cx, cy)


def _stages(predictor: Predictor) -> tuple[str, ...]:
    """The names of the estimates, told by what the network says of a crop that shows nothing."""
    side, middle = predictor.network.backbone.crop, _SIDE / 2
    camera = PhotoCamera(_SIDE, _SIDE, middle, middle)
    blank = CropInput(np.zeros((side, side, 3), np.uint8), Square(middle, middle, _SIDE), camera)
    return predictor.estimate_names(len(predictor.estimates([blank])))
