"""Photos to people: read ahead, cut to the people's boxes, and shown to the network in batches across photos."""

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
from skelfit.learning.inference.intrinsics import FindCamera, KnownCamera, rgb_with_exif
from skelfit.learning.inference.person_boxes import Box, FindBoxes
from skelfit.learning.inference.predictor import People, Predictor, Shot
from skelfit.storage.path_checks import count_endings, describe_skipped

_AHEAD, _THREADS = 16, 4
OK = "ok"
_ORIENTATION = 0x0112
_MISSING = "no such file"


@dataclass(frozen=True)
class Photo:
    """An image file, and what its results are called."""

    path: Path
    name: str


@dataclass(frozen=True)
class Finding:
    """What became of one box, or of a photo as a whole."""

    photo: str  # its path
    person: int | None  # which of the photo's boxes; None: the photo as a whole
    status: str
    reason: str = ""
    box: tuple[float, ...] | None = None  # x, y, width, height px
    square: Square | None = None  # what was cut out
    camera: KnownCamera | None = None

    def failed(self, status: str, reason: str) -> Finding:
        """The same with another end."""
        return replace(self, status=status, reason=reason)


@dataclass(frozen=True)
class Seen:
    """A photo and what is to be shown to the network: a shot for each finding that is ok so far."""

    photo: Photo
    findings: tuple[Finding, ...]
    image: bytes | None = None  # upright
    shots: tuple[Shot, ...] = ()
    people: People | None = None  # of the findings that are ok, once they are known
    labels: People | None = None  # the same people as their labels have them, where there are labels
    affine: NDArray[np.float32] | None = (
        None  # (2,3) from px of the photo to px of `image`, where that is a crop
    )

    @property
    def good(self) -> list[int]:
        """Which findings are ok."""
        return [i for i, finding in enumerate(self.findings) if finding.status == OK]


@dataclass(frozen=True)
class Looking:
    """How photos are looked at."""

    find_boxes: FindBoxes
    find_camera: FindCamera
    margin: float = 1.2  # sides of the square that is shown, in the longer side of a box
    min_score: float = 0.0  # of boxes
    crop: int = CROP  # side of what is cut out, px

    def square(self, box: Box) -> Square:
        """What is cut out for a box: as of labels, whose boxes are squares."""
        side = self.margin * max(box.width, box.height)
        return square_around(box.x + box.width / 2, box.y + box.height / 2, side, side)


def find_photos(paths: Sequence[Path], say: Callable[[str], None] | None = None) -> list[Photo]:
    """The images of files and folders, each once, in order; say: is told what is skipped in a folder.

    Whatever has an image's name but is no file is found as well, to be a finding. Raises InputError for a folder
    without any image.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if not p.is_dir()]
            found = [p for p in inside if ending_of(p.name) in ENDINGS]
            skipped = describe_skipped(count_endings(set(inside).difference(found)), "images")
            if not found:
                raise InputError(path, None, f"images ({', '.join(sorted(ENDINGS))})", skipped or "none")
            files |= dict.fromkeys(found)
            if skipped and say is not None:
                say(f"{path}: {skipped}")
        else:
            files[path] = None
    photos, taken = list[Photo](), set[str]()
    for path in files:
        name, number = path.stem, 1
        while name in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name)
        photos.append(Photo(path, name))
    return photos


def predict_photos(
    photos: Iterable[Photo], looking: Looking, predictor: Predictor, batch_size: int
) -> Iterator[Seen]:
    """All photos, in order, with their people. Every box is a finding, so is each photo that has none or is no use."""
    held: list[Seen] = []
    for seen in _look_ahead(photos, looking):
        held.append(seen)
        if sum(len(one.shots) for one in held) >= batch_size or len(held) >= _AHEAD:
            yield from with_people(held, predictor, batch_size)
            held = []
    yield from with_people(held, predictor, batch_size)


def _look_ahead(photos: Iterable[Photo], looking: Looking) -> Iterator[Seen]:
    ahead: deque[Future[Seen]] = deque()
    with ThreadPoolExecutor(_THREADS, "photos") as pool:
        try:
            for photo in photos:
                ahead.append(pool.submit(look, photo, looking))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def look(photo: Photo, looking: Looking) -> Seen:
    """A photo's boxes, cut out. Nothing that is wrong with a photo, a box or a camera raises."""
    name = str(photo.path)
    picture = read_image(photo.path)
    if picture.data is None:
        reason = picture.detail or (_MISSING if picture.reason == MISSING else "the image cannot be decoded")
        return Seen(photo, (Finding(name, None, picture.reason, reason),))
    try:
        image, size, camera = _upright(picture.data, looking.find_camera)
    except InputError as error:
        return Seen(photo, (Finding(name, None, "no_camera", str(error)),))
    except Exception as error:  # a decoder may raise anything
        return Seen(photo, (Finding(name, None, *no_image(error)),))
    boxes = looking.find_boxes(photo.path, size)
    if not boxes:
        return Seen(photo, (Finding(name, None, "no_box", "no box of this photo was given"),), image)
    findings, shots = [], []
    for i, box in enumerate(boxes):
        finding, shot = _cut(
            box, Finding(name, i, OK, box=None if box.fault else box[:4], camera=camera), image, size, looking
        )
        findings.append(finding)
        shots += [shot] if shot else []
    return Seen(photo, tuple(findings), image, tuple(shots))


def _upright(data: bytes, find_camera: FindCamera) -> tuple[bytes, tuple[int, int], KnownCamera]:
    """The image as one looks at it, its size, and its camera; the same bytes where no EXIF orientation turns it."""
    with open_image(data) as image:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return data, image.size, find_camera(image)
        turned = ImageOps.exif_transpose(rgb_with_exif(image))
    stream = io.BytesIO()
    turned.save(stream, "BMP")  # quick, and nothing is lost
    return stream.getvalue(), turned.size, find_camera(turned)


def no_image(error: Exception) -> tuple[str, str]:
    """Status and reason of an image of which decoding raised an error."""
    picture = faulty_image(error)
    return picture.reason, picture.detail or repr(error)


def _cut(
    box: Box, finding: Finding, image: bytes, size: tuple[int, int], looking: Looking
) -> tuple[Finding, Shot | None]:
    """What becomes of a box at first, and what the network is to be shown of it."""

    def failed(status: str, reason: str) -> tuple[Finding, None]:
        return finding.failed(status, reason), None

    if box.fault:
        return failed("bad_box", box.fault)
    if box.score < looking.min_score:
        return failed("low_score", f"{box.score:g} is less than {looking.min_score:g}")
    square, (width, height) = looking.square(box), size
    if box.x >= width or box.y >= height or box.x + box.width <= 0 or box.y + box.height <= 0:
        return failed("bad_box", f"outside of the photo, whose size is {width} x {height} px")
    if not 1 <= square.side <= 8 * max(size):
        return failed("bad_box", f"{box.width:g} x {box.height:g} px in a photo of {width} x {height} px")
    try:
        pixels = np.asarray(read_crop(image, IDENTITY, square, looking.crop))
    except Exception as error:  # a decoder may raise anything on bytes that anyone may have made
        return failed(*no_image(error))
    assert finding.camera is not None
    return replace(finding, square=square), Shot(pixels, square, finding.camera.camera)


def with_people(held: Sequence[Seen], predictor: Predictor, batch_size: int) -> Iterator[Seen]:
    """Some photos with what the network says of their people."""
    shots = [shot for seen in held for shot in seen.shots]
    batches = [predictor(shots[i : i + batch_size]) for i in range(0, len(shots), batch_size)]
    people = People.of(batches) if batches else None
    start = 0
    for seen in held:
        mine = None
        if people is not None and seen.shots:
            mine, start = people.rows(slice(start, start + len(seen.shots))), start + len(seen.shots)
        yield _answered(seen, mine)


def _answered(seen: Seen, people: People | None) -> Seen:
    """A photo with its people, of whom those without a finite answer are left out, with their status."""
    if people is None:
        return replace(seen, shots=())
    finite, findings = people.finite, list(seen.findings)
    for i, good in zip(seen.good, finite, strict=True):
        if not good:
            findings[i] = findings[i].failed("not_finite", "no finite answer")
    left = people.rows(np.flatnonzero(finite)) if finite.any() else None
    return replace(seen, findings=tuple(findings), people=left, shots=())
