"""People of finished shards, as validation uses them, with labels beside the predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from skelfit.images.decoding import open_image, to_rgb
from skelfit.learning.data.person_crops import read_crop, square_around
from skelfit.learning.data.person_stream import ALL, PersonSample, PersonSource, find_tars, in_order
from skelfit.learning.data.training_batch import CROP
from skelfit.learning.inference.intrinsics import PhotoCamera, SourcedCamera
from skelfit.learning.inference.photo_results import OK, BoxResult, PhotoFile, PhotoResult
from skelfit.learning.inference.photos import add_predictions, no_image
from skelfit.learning.inference.predictor import CropInput, Predictor
from skelfit.learning.inference.step_times import StepTimes
from skelfit.learning.inference.upright_image import shrunk
from skelfit.shards.label_vector import FloatArray, unpack


def people_of_shards(tars: Sequence[Path], held_out: float | None) -> Iterator[PersonSample]:
    """The people of shards with an image and a camera; with `held_out`, only the share that training never saw.

    Raises ShardError.
    """
    paths = (tuple(path for tar in tars for path in find_tars(str(tar))),)
    source = PersonSource(paths, None, images=True)
    if held_out is not None:
        source = replace(source, held_out=held_out, validation=True)
    return in_order(source, ALL)


def predict_people(
    people: Iterable[PersonSample],
    predictor: Predictor,
    batch_size: int,
    times: StepTimes | None = None,
    *,
    widen: bool,
    pictures: bool = True,
) -> Iterator[PhotoResult]:
    """All people in order, with predictions and labels, by the boxes and cameras of the labels.

    widen: as the training's data.widen; pictures: whether results have a picture to draw on.
    """
    times = times or StepTimes()
    people = iter(people)
    while chunk := list(islice(people, batch_size)):
        labels = [unpack(person.label) for person in chunk]
        crop = predictor.network.backbone.crop
        with times.of("decode"):
            prepared = [
                prepare_sample(person, label, crop, widen=widen, pictures=pictures)
                for person, label in zip(chunk, labels, strict=True)
            ]
        results = add_predictions(prepared, predictor, batch_size, times)
        for person, label, result in zip(chunk, labels, results, strict=True):
            if result.people is None or person.meta["skel_gender"] != predictor.body.gender:
                yield result
                continue
            pose, betas, trans = (label[name][None] for name in ("skel_poses", "skel_betas", "skel_trans"))
            yield replace(result, labels=predictor.posed(pose, betas, trans, result.people.cam_int))


def prepare_sample(
    person: PersonSample,
    label: dict[str, FloatArray],
    crop: int = CROP,
    *,
    widen: bool = False,
    pictures: bool = True,
) -> PhotoResult:
    """A person, cut out as for validation; crop: its side, px. An unreadable image becomes a status."""
    (x, y), (width, height) = label["center"].tolist(), (200 * label["scale"]).tolist()
    square = square_around(x, y, width, height, widen=widen)
    box = BoxResult(person.key, 0, OK, box=(x - width / 2, y - height / 2, width, height), square=square)
    meta = person.meta
    camera = _camera(label["cam_int"], meta["camera"], meta["image_size"])
    photo = PhotoFile(Path(person.key), person.key)
    if camera is None:
        return PhotoResult(
            photo, (box.failed("no_camera", "neither intrinsics nor the image's size are known"),)
        )
    try:
        pixels = read_crop(person.image, meta["affine"], square, crop)
        with open_image(person.image) as image:
            size, picture = image.size, shrunk(to_rgb(image)) if pictures else None
    except Exception as error:  # a decoder may raise anything on bytes that anyone may have made
        return PhotoResult(photo, (box.failed(*no_image(error)),))
    affine = np.array(meta["affine"], np.float32)
    inputs = CropInput(pixels, square, camera.camera)
    boxes = (replace(box, camera=camera),)
    return PhotoResult(photo, boxes, size, picture, (inputs,), affine=affine)


def _camera(cam_int: FloatArray, known: bool, size: Sequence[int] | None) -> SourcedCamera | None:
    """The camera of a label; where it is unknown, the one with the image's diagonal as focal length, as in training."""
    if known:
        (fx, _, cx), (_, fy, cy) = cam_int[:2].tolist()
        return SourcedCamera(PhotoCamera(fx, fy, cx, cy), "label")
    if not size:
        return None
    focal = math.hypot(*size)
    return SourcedCamera(PhotoCamera(focal, focal, size[0] / 2, size[1] / 2), "diagonal")
