"""From photos to people: images are read ahead, people are cut out, and the network gets batches across images."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from skelfit.errors import InputError
from skelfit.images.image_bytes import MISSING, faulty_image
from skelfit.images.image_source import read_image
from skelfit.learning.data.person_crops import Square, square_around
from skelfit.learning.data.training_batch import CROP
from skelfit.learning.inference.detector import DetectorError
from skelfit.learning.inference.given_images import GivenImage
from skelfit.learning.inference.intrinsics import CameraSource, SourcedCamera
from skelfit.learning.inference.person_boxes import FindBoxes, PersonBox
from skelfit.learning.inference.person_tracks import Tracker
from skelfit.learning.inference.photo_results import OK, BoxResult, PhotoResult
from skelfit.learning.inference.predictor import CropInput, PredictedPeople, Predictor
from skelfit.learning.inference.step_times import StepTimes
from skelfit.learning.inference.upright_image import UprightImage, open_upright, upright_frame

_AHEAD, _WAITING, _THREADS = 8, 16, 4  # images that are read ahead, and that wait for a batch
_MISSING = "no such file"


@dataclass(frozen=True)
class PhotoSettings:
    """How people are cut out of photos."""

    find_boxes: FindBoxes
    find_camera: CameraSource
    margin: float = 1.2  # side of the crop, in the longer side of a box
    min_score: float = 0.0  # of boxes
    crop: int = CROP  # side of the crops, px
    widen: bool = False  # as the training's data.widen
    pictures: bool = True  # whether results have a picture to draw on
    times: StepTimes = field(default_factory=StepTimes)

    def square(self, box: PersonBox) -> Square:
        """The square that is cut out for a box, as for the square boxes of labels."""
        side = self.margin * max(box.width, box.height)
        return square_around(box.x + box.width / 2, box.y + box.height / 2, side, side, widen=self.widen)


class _BadImageError(Exception):
    """An image that cannot be used, with its status and reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


_Camera = SourcedCamera | InputError  # or why there is none


def predict_photos(
    images: Iterable[GivenImage], settings: PhotoSettings, predictor: Predictor, batch_size: int
) -> Iterator[PhotoResult]:
    """All images, in order, with their people. Each box has a status, as has an image without boxes."""
    waiting: list[PhotoResult] = []
    track = Tracker()
    for result in _read_ahead(images, settings):
        waiting.append(result)
        if sum(len(each.inputs) for each in waiting) >= batch_size or len(waiting) >= _WAITING:
            yield from map(track, add_predictions(waiting, predictor, batch_size, settings.times))
            waiting = []
    yield from map(track, add_predictions(waiting, predictor, batch_size, settings.times))


def _read_ahead(images: Iterable[GivenImage], settings: PhotoSettings) -> Iterator[PhotoResult]:
    ahead: deque[Future[PhotoResult]] = deque()
    with ThreadPoolExecutor(_THREADS, "photos") as pool:
        try:
            for given, camera in _with_cameras(images, settings):
                ahead.append(pool.submit(prepare_photo, given, settings, camera))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _with_cameras(
    images: Iterable[GivenImage], settings: PhotoSettings
) -> Iterator[tuple[GivenImage, _Camera | None]]:
    """Images, and for frames the camera of their sequence: that of its first frame that can be read."""
    sequence, camera = None, None
    for given in images:
        moment = given.file.moment
        if moment is None:
            yield given, None
            continue
        if moment.sequence != sequence:
            sequence, camera = moment.sequence, None
        if camera is None:
            with suppress(_BadImageError):  # prepare_photo finds out, too
                camera = _camera_of(_open(given, settings.times), settings)
        yield given, camera


def prepare_photo(given: GivenImage, settings: PhotoSettings, camera: _Camera | None = None) -> PhotoResult:
    """An image with its people cut out; camera: of its sequence. Errors do not raise: they become a status."""
    photo = given.file
    whole = BoxResult(str(photo.path), None, OK, moment=photo.moment)
    try:
        image = _open(given, settings.times)
        picture = None
        if settings.pictures:
            with settings.times.of("draw"):
                picture = image.picture()
    except _BadImageError as error:
        return PhotoResult(photo, (whole.failed(error.status, error.reason),))
    except Exception as error:  # a decoder may raise anything on bytes that anyone may have made
        return PhotoResult(photo, (whole.failed(*no_image(error)),))
    result = PhotoResult(photo, (), image.size, picture)
    found = camera or _camera_of(image, settings)
    if isinstance(found, InputError):
        return replace(result, boxes=(whole.failed("no_camera", str(found)),))
    try:
        with settings.times.of("detect"):
            boxes = settings.find_boxes(photo.path, image)
    except DetectorError as error:
        return replace(result, boxes=(whole.failed("detector_failed", str(error)),))
    except Exception as error:  # of decoding the image
        return replace(result, boxes=(whole.failed(*no_image(error)),))
    if not boxes:
        return replace(result, boxes=(whole.failed("no_box", "this photo has no box"),))
    results, inputs = [], []
    with settings.times.of("decode"):
        for i, box in enumerate(boxes):
            known = replace(whole, person=i, box=None if box.fault else box[:4], camera=found)
            cut, crop = _cut(box, known, image, settings)
            results.append(cut)
            inputs += [crop] if crop else []
    return replace(result, boxes=tuple(results), inputs=tuple(inputs))


def _open(given: GivenImage, times: StepTimes) -> UprightImage:
    """The image of a file or frame. Raises _BadImageError."""
    if (frame := given.frame) is not None:
        if frame.pixels is None:
            raise _BadImageError(frame.status, frame.reason)
        return upright_frame(frame.pixels)
    with times.of("decode"):
        content = read_image(given.file.path)
        if content.data is None:
            reason = content.detail or (
                _MISSING if content.reason == MISSING else "the image cannot be decoded"
            )
            raise _BadImageError(content.reason, reason)
        try:
            return open_upright(content.data)
        except Exception as error:  # a decoder may raise anything
            raise _BadImageError(*no_image(error)) from error


def _camera_of(image: UprightImage, settings: PhotoSettings) -> _Camera:
    try:
        with settings.times.of("camera"), image.opened() as photo:
            return settings.find_camera(photo)
    except InputError as error:
        return error


def no_image(error: Exception) -> tuple[str, str]:
    """Status and reason for an error that decoding an image raised."""
    picture = faulty_image(error)
    return picture.reason, picture.detail or repr(error)


def _cut(
    box: PersonBox, result: BoxResult, image: UprightImage, settings: PhotoSettings
) -> tuple[BoxResult, CropInput | None]:
    """A box with its status before the prediction, and its input for the network."""

    def failed(status: str, reason: str) -> tuple[BoxResult, None]:
        return result.failed(status, reason), None

    if box.fault:
        return failed("bad_box", box.fault)
    if box.score < settings.min_score:
        return failed("low_score", f"{box.score:g} is less than {settings.min_score:g}")
    square, (width, height) = settings.square(box), image.size
    if box.x >= width or box.y >= height or box.x + box.width <= 0 or box.y + box.height <= 0:
        return failed("bad_box", f"outside of the photo, whose size is {width} x {height} px")
    if not 1 <= square.side <= 8 * max(image.size):
        return failed("bad_box", f"{box.width:g} x {box.height:g} px in a photo of {width} x {height} px")
    try:
        pixels = image.cut(square, settings.crop)
    except Exception as error:  # a decoder may raise anything on bytes that anyone may have made
        return failed(*no_image(error))
    assert result.camera is not None
    return replace(result, square=square), CropInput(pixels, square, result.camera.camera)


def add_predictions(
    photos: Sequence[PhotoResult], predictor: Predictor, batch_size: int, times: StepTimes
) -> Iterator[PhotoResult]:
    """Photos with the predictions of their people, in order."""
    inputs = [crop for photo in photos for crop in photo.inputs]
    with times.of("network"):
        batches = [predictor.estimates(inputs[i : i + batch_size]) for i in range(0, len(inputs), batch_size)]
    estimates = [PredictedPeople.joined(of_layer) for of_layer in zip(*batches, strict=True)]
    start = 0
    for photo in photos:
        rows = slice(start, start + len(photo.inputs))
        start = rows.stop
        yield _with_people(photo, [each.rows(rows) for each in estimates] if photo.inputs else [])


def _with_people(photo: PhotoResult, estimates: Sequence[PredictedPeople]) -> PhotoResult:
    """A photo with its people; those without a finite prediction are left out and get that status."""
    if not estimates:
        return replace(photo, inputs=())
    finite, boxes = estimates[-1].finite, list(photo.boxes)
    for i, good in zip(photo.ok_boxes, finite, strict=True):
        if not good:
            boxes[i] = boxes[i].failed("not_finite", "no finite answer")
    kept = np.flatnonzero(finite)
    layers = tuple(each.rows(kept) for each in estimates) if len(kept) else ()
    people = layers[-1] if layers else None
    return replace(photo, boxes=tuple(boxes), people=people, layers=layers, inputs=())
