"""From photos to people: photos are read ahead, people are cut out, and the network gets batches across photos."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from skelfit.errors import InputError
from skelfit.images.decoding import ENDINGS, open_image
from skelfit.images.image_bytes import IDENTITY, MISSING, ending_of, faulty_image
from skelfit.images.image_source import read_image
from skelfit.learning.data.person_crops import Square, read_crop, square_around
from skelfit.learning.data.training_batch import CROP
from skelfit.learning.inference.intrinsics import CameraSource, SourcedCamera, rgb_with_exif
from skelfit.learning.inference.person_boxes import FindBoxes, PersonBox
from skelfit.learning.inference.predictor import CropInput, PredictedPeople, Predictor
from skelfit.storage.path_checks import count_endings, describe_skipped

_AHEAD, _THREADS = 16, 4
OK = "ok"
_ORIENTATION = 0x0112
_MISSING = "no such file"


@dataclass(frozen=True)
class PhotoFile:
    """An image file, and the name of its results."""

    path: Path
    name: str


@dataclass(frozen=True)
class BoxResult:
    """The outcome of one box, or of a whole photo without boxes."""

    photo: str  # its path
    person: int | None  # number of the box in its photo; None: the whole photo
    status: str
    reason: str = ""
    box: tuple[float, ...] | None = None  # x, y, width, height px
    square: Square | None = None  # the crop
    camera: SourcedCamera | None = None

    def failed(self, status: str, reason: str) -> BoxResult:
        """The same box with another status."""
        return replace(self, status=status, reason=reason)


@dataclass(frozen=True)
class PhotoResult:
    """A photo, its boxes, and an input of the network for each box that is ok so far."""

    photo: PhotoFile
    boxes: tuple[BoxResult, ...]
    image: bytes | None = None  # upright
    inputs: tuple[CropInput, ...] = ()
    people: PredictedPeople | None = None  # of the boxes that are ok, once they are predicted
    labels: PredictedPeople | None = None  # the same people by their labels, where there are labels
    affine: NDArray[np.float32] | None = (
        None  # (2,3) from px of the photo to px of `image`, where that is a crop
    )

    @property
    def ok_boxes(self) -> list[int]:
        """Numbers of the boxes that are ok."""
        return [i for i, box in enumerate(self.boxes) if box.status == OK]


@dataclass(frozen=True)
class PhotoSettings:
    """How people are cut out of photos."""

    find_boxes: FindBoxes
    find_camera: CameraSource
    margin: float = 1.2  # side of the crop, in the longer side of a box
    min_score: float = 0.0  # of boxes
    crop: int = CROP  # side of the crops, px
    widen: bool = False  # as the training's data.widen

    def square(self, box: PersonBox) -> Square:
        """The square that is cut out for a box, as for the square boxes of labels."""
        side = self.margin * max(box.width, box.height)
        return square_around(box.x + box.width / 2, box.y + box.height / 2, side, side, widen=self.widen)


def find_photos(paths: Sequence[Path], say: Callable[[str], None] | None = None) -> list[PhotoFile]:
    """The images of files and folders, each once, in order; say: is told what is skipped in a folder.

    Something with the name of an image that is no file is included, and gets a status. Raises InputError for a folder
    without images.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if not p.is_dir()]
            images = [p for p in inside if ending_of(p.name) in ENDINGS]
            skipped = describe_skipped(count_endings(set(inside).difference(images)), "images")
            if not images:
                raise InputError(path, None, f"images ({', '.join(sorted(ENDINGS))})", skipped or "none")
            files |= dict.fromkeys(images)
            if skipped and say is not None:
                say(f"{path}: {skipped}")
        else:
            files[path] = None
    photos, used = list[PhotoFile](), set[str]()
    for path in files:
        name, number = path.stem, 1
        while name in used:
            number += 1
            name = f"{path.stem}-{number}"
        used.add(name)
        photos.append(PhotoFile(path, name))
    return photos


def predict_photos(
    photos: Iterable[PhotoFile], settings: PhotoSettings, predictor: Predictor, batch_size: int
) -> Iterator[PhotoResult]:
    """All photos, in order, with their people. Each box has a status, as has a photo without boxes or image."""
    waiting: list[PhotoResult] = []
    for result in _read_ahead(photos, settings):
        waiting.append(result)
        if sum(len(each.inputs) for each in waiting) >= batch_size or len(waiting) >= _AHEAD:
            yield from add_predictions(waiting, predictor, batch_size)
            waiting = []
    yield from add_predictions(waiting, predictor, batch_size)


def _read_ahead(photos: Iterable[PhotoFile], settings: PhotoSettings) -> Iterator[PhotoResult]:
    ahead: deque[Future[PhotoResult]] = deque()
    with ThreadPoolExecutor(_THREADS, "photos") as pool:
        try:
            for photo in photos:
                ahead.append(pool.submit(prepare_photo, photo, settings))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def prepare_photo(photo: PhotoFile, settings: PhotoSettings) -> PhotoResult:
    """A photo with its people cut out. Errors of a photo, box or camera do not raise: they become a status."""
    name = str(photo.path)
    picture = read_image(photo.path)
    if picture.data is None:
        reason = picture.detail or (_MISSING if picture.reason == MISSING else "the image cannot be decoded")
        return PhotoResult(photo, (BoxResult(name, None, picture.reason, reason),))
    try:
        image, size, camera = _upright(picture.data, settings.find_camera)
    except InputError as error:
        return PhotoResult(photo, (BoxResult(name, None, "no_camera", str(error)),))
    except Exception as error:  # a decoder may raise anything
        return PhotoResult(photo, (BoxResult(name, None, *no_image(error)),))
    boxes = settings.find_boxes(photo.path, size)
    if not boxes:
        return PhotoResult(photo, (BoxResult(name, None, "no_box", "no box of this photo was given"),), image)
    results, inputs = [], []
    for i, box in enumerate(boxes):
        result, crop = _cut(
            box,
            BoxResult(name, i, OK, box=None if box.fault else box[:4], camera=camera),
            image,
            size,
            settings,
        )
        results.append(result)
        inputs += [crop] if crop else []
    return PhotoResult(photo, tuple(results), image, tuple(inputs))


def _upright(data: bytes, find_camera: CameraSource) -> tuple[bytes, tuple[int, int], SourcedCamera]:
    """The upright image, its size, and its camera; the same bytes where no EXIF orientation turns it."""
    with open_image(data) as image:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return data, image.size, find_camera(image)
        turned = ImageOps.exif_transpose(rgb_with_exif(image))
    stream = io.BytesIO()
    turned.save(stream, "BMP")  # fast and lossless
    return stream.getvalue(), turned.size, find_camera(turned)


def no_image(error: Exception) -> tuple[str, str]:
    """Status and reason for an error that decoding an image raised."""
    picture = faulty_image(error)
    return picture.reason, picture.detail or repr(error)


def _cut(
    box: PersonBox, result: BoxResult, image: bytes, size: tuple[int, int], settings: PhotoSettings
) -> tuple[BoxResult, CropInput | None]:
    """A box with its status before the prediction, and its input for the network."""

    def failed(status: str, reason: str) -> tuple[BoxResult, None]:
        return result.failed(status, reason), None

    if box.fault:
        return failed("bad_box", box.fault)
    if box.score < settings.min_score:
        return failed("low_score", f"{box.score:g} is less than {settings.min_score:g}")
    square, (width, height) = settings.square(box), size
    if box.x >= width or box.y >= height or box.x + box.width <= 0 or box.y + box.height <= 0:
        return failed("bad_box", f"outside of the photo, whose size is {width} x {height} px")
    if not 1 <= square.side <= 8 * max(size):
        return failed("bad_box", f"{box.width:g} x {box.height:g} px in a photo of {width} x {height} px")
    try:
        pixels = read_crop(image, IDENTITY, square, settings.crop)
    except Exception as error:  # a decoder may raise anything on bytes that anyone may have made
        return failed(*no_image(error))
    assert result.camera is not None
    return replace(result, square=square), CropInput(pixels, square, result.camera.camera)


def add_predictions(
    photos: Sequence[PhotoResult], predictor: Predictor, batch_size: int
) -> Iterator[PhotoResult]:
    """Photos with the predictions of their people, in order."""
    inputs = [crop for photo in photos for crop in photo.inputs]
    batches = [predictor(inputs[i : i + batch_size]) for i in range(0, len(inputs), batch_size)]
    people = PredictedPeople.joined(batches) if batches else None
    start = 0
    for photo in photos:
        of_photo = None
        if people is not None and photo.inputs:
            stop = start + len(photo.inputs)
            of_photo, start = people.rows(slice(start, stop)), stop
        yield _with_people(photo, of_photo)


def _with_people(photo: PhotoResult, people: PredictedPeople | None) -> PhotoResult:
    """A photo with its people; those without a finite prediction are left out and get that status."""
    if people is None:
        return replace(photo, inputs=())
    finite, boxes = people.finite, list(photo.boxes)
    for i, good in zip(photo.ok_boxes, finite, strict=True):
        if not good:
            boxes[i] = boxes[i].failed("not_finite", "no finite answer")
    kept = people.rows(np.flatnonzero(finite)) if finite.any() else None
    return replace(photo, boxes=tuple(boxes), people=kept, inputs=())
