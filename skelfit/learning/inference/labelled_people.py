"""People of finished shards, as validation sees them, with their labels beside the prediction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from skelfit.learning.data.person_crops import read_crop, square_around
from skelfit.learning.data.person_stream import ALL, Person, Source, find_tars, in_order
from skelfit.learning.data.training_batch import CROP
from skelfit.learning.inference.intrinsics import Camera, KnownCamera
from skelfit.learning.inference.photos import OK, Finding, Photo, Seen, no_image, with_people
from skelfit.learning.inference.predictor import Predictor, Shot
from skelfit.shards.label_vector import FloatArray, unpack


def find_people(tars: Sequence[Path], held_out: float | None) -> Iterator[Person]:
    """The people of shards who have an image and a camera; with `held_out`, that share whom training never saw.

    Raises ShardError.
    """
    found = (tuple(path for tar in tars for path in find_tars(str(tar))),)
    which = Source(found, None, True) if held_out is None else Source(found, None, True, held_out, True)
    return in_order(which, ALL)


def predict_people(people: Iterable[Person], predictor: Predictor, batch_size: int) -> Iterator[Seen]:
    """Everyone in order, with prediction and label. The labels' boxes and cameras are used as they are."""
    people = iter(people)
    while chunk := list(islice(people, batch_size)):
        labels = [unpack(person.label) for person in chunk]
        crop = predictor.network.backbone.crop
        seen = [look_at(person, label, crop) for person, label in zip(chunk, labels, strict=True)]
        answers = with_people(seen, predictor, batch_size)
        for person, label, one in zip(chunk, labels, answers, strict=True):
            if one.people is None or person.meta["skel_gender"] != predictor.body.gender:
                yield one
                continue
            pose, betas, trans = (label[name][None] for name in ("skel_poses", "skel_betas", "skel_trans"))
            yield replace(one, labels=predictor.posed(pose, betas, trans, one.people.cam_int))


def look_at(person: Person, label: dict[str, FloatArray], crop: int = CROP) -> Seen:
    """A person, cut out as for validation; crop: its side, px. What is wrong with the image does not raise."""
    (x, y), (width, height) = label["center"].tolist(), (200 * label["scale"]).tolist()
    square = square_around(x, y, width, height)
    finding = Finding(person.key, 0, OK, box=(x - width / 2, y - height / 2, width, height), square=square)
    meta = person.meta
    camera = _camera(label["cam_int"], meta["camera"], meta["image_size"])
    photo = Photo(Path(person.key), person.key)
    if camera is None:
        return Seen(
            photo, (finding.failed("no_camera", "neither intrinsics nor the image's size are known"),)
        )
    try:
        pixels = np.asarray(read_crop(person.image, meta["affine"], square, crop))
    except Exception as error:  # a decoder may raise anything on bytes that anyone may have made
        return Seen(photo, (finding.failed(*no_image(error)),))
    affine = np.array(meta["affine"], np.float32)
    shot = Shot(pixels, square, camera.camera)
    return Seen(photo, (replace(finding, camera=camera),), person.image, (shot,), affine=affine)


def _camera(cam_int: FloatArray, known: bool, size: Sequence[int] | None) -> KnownCamera | None:
    """A label's camera; where it is not known, by the image's diagonal, as in training."""
    if known:
        (fx, _, cx), (_, fy, cy) = cam_int[:2].tolist()
        return KnownCamera(Camera(fx, fy, cx, cy), "label")
    if not size:
        return None
    focal = math.hypot(*size)
    return KnownCamera(Camera(focal, focal, size[0] / 2, size[1] / 2), "diagonal")
