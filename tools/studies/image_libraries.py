"""A photograph of 640 x 480 px and a crop of 256 px: what each library takes, and a crop by the people who share it.

Only what is installed is measured. Pillow, simplejpeg and cykooz-resizer come with skelfit; for the others: pip install
opencv-python-headless kornia-rs.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image

from skelfit.benchmark.text_table import table
from skelfit.config.pipeline import ImageConfig
from skelfit.images.decoding import decode
from skelfit.images.image_bytes import check_image
from skelfit.images.resampling import cut_square
from skelfit.images.square_crop import CropBox, cut_crops
from tools.studies.photographs import photograph
from tools.studies.setup import Setup, Study

_SQUARE = 100, 70, 300  # left, top, side px: in whole pixels, which all libraries can cut out
_CROP = 256
_GRAINS, _PEOPLE = (0, 3, 5), (1, 2, 3, 4)
_CONFIG = ImageConfig(mode="crop", size=_CROP, margin=1.5)
_Steps = dict[str, Callable[[], object]]


def run(setup: Setup) -> list[dict[str, Any]]:
    """The least CPU time of many single runs of each step, ms: other work on the machine makes them longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    records: list[dict[str, Any]] = []
    try:
        data = photograph(0, 3)
        pixels = np.ascontiguousarray(decode(data)[0][..., :3])
        for name, steps in _libraries(data, pixels):
            setup.say(name)
            records.append({"library": name} | {step: _least(do, setup.people) for step, do in steps.items()})
        for grain in _GRAINS:
            picture = check_image(photograph(1, grain), "jpg")
            assert picture.data is not None
            setup.say(f"crops from {len(picture.data)} bytes")
            times = {
                people: _least(partial(cut_crops, picture, _boxes(people), _CONFIG), setup.people) / people
                for people in _PEOPLE
            }
            records.append({"bytes": len(picture.data), "crop": times})
    finally:
        torch.set_num_threads(threads)
    return records


def _boxes(people: int) -> list[CropBox]:
    rng = np.random.default_rng(people)
    low, high = (200, 150, 100), (440, 330, 330)  # x, y, side px
    return [CropBox(x, y, side) for x, y, side in rng.uniform(low, high, (people, 3)).tolist()]


def _libraries(data: bytes, pixels: np.ndarray[Any, Any]) -> Iterator[tuple[str, _Steps]]:
    left, top, side = _SQUARE
    image, crop = Image.fromarray(pixels), np.ascontiguousarray(pixels[:_CROP, :_CROP])
    four = decode(data)[0]
    part = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    yield (
        "skelfit",
        {
            "decode": lambda: decode(data),
            "half": lambda: decode(data, 2),
            "bicubic": lambda: cut_square(four, left, top, side, _CROP),
            "encode": lambda: simplejpeg.encode_jpeg(four[:_CROP, :_CROP].copy(), 90, "RGBX", "420"),
        },
    )
    box = (left, top, left + side, top + side)
    yield (
        "Pillow",
        {
            "decode": lambda: _pillow(data, 1),
            "half": lambda: _pillow(data, 2),
            "bicubic": lambda: image.resize((_CROP, _CROP), Image.Resampling.BICUBIC, box),
            "bilinear": lambda: image.resize((_CROP, _CROP), Image.Resampling.BILINEAR, box),
            "encode": lambda: Image.fromarray(crop).save(io.BytesIO(), "JPEG", quality=90),
        },
    )
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None][..., top : top + side, left : left + side]

    def torch_resized(mode: str) -> torch.Tensor:
        return torch.nn.functional.interpolate(planes, size=(_CROP, _CROP), mode=mode, antialias=True)

    yield (
        "torch",
        {"bicubic": lambda: torch_resized("bicubic"), "bilinear": lambda: torch_resized("bilinear")},
    )
    if (cv2 := _installed("cv2")) is not None:
        cv2.setNumThreads(1)
        coded, size = np.frombuffer(data, np.uint8), (_CROP, _CROP)
        yield (
            "opencv (bilinear and bicubic without antialiasing)",
            {
                "decode": lambda: cv2.imdecode(coded, cv2.IMREAD_COLOR),
                "half": lambda: cv2.imdecode(coded, cv2.IMREAD_REDUCED_COLOR_2),
                "bicubic": lambda: cv2.resize(part, size, interpolation=cv2.INTER_CUBIC),
                "bilinear": lambda: cv2.resize(part, size, interpolation=cv2.INTER_LINEAR_EXACT),
                "area": lambda: cv2.resize(part, size, interpolation=cv2.INTER_AREA),
                "encode": lambda: cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 90]),
            },
        )
    if (kornia := _installed("kornia_rs")) is not None:
        decoder, size = kornia.io.ImageDecoder(), (_CROP, _CROP)
        yield (
            "kornia-rs",
            {
                "decode": lambda: decoder.decode(data),
                "bicubic": lambda: kornia.imgproc.resize(part, size, "bicubic", antialias=True),
                "bilinear": lambda: kornia.imgproc.resize(part, size, "bilinear", antialias=True),
            },
        )


def _installed(name: str) -> Any:
    """A module; None where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


def _pillow(data: bytes, shrink: int) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, (image.width // shrink, image.height // shrink))
        image.load()
        return image


def _least(do: Callable[[], object], times: int) -> float:
    """The least CPU time of several runs, ms."""
    shortest = float("inf")
    for _ in range(times):
        started = time.process_time()
        do()
        shortest = min(shortest, time.process_time() - started)
    return 1000 * shortest


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per library, and one per photograph."""
    steps = ("decode", "half", "bicubic", "bilinear", "area", "encode")
    libraries = [r for r in records if "library" in r]
    rows = [(r["library"], *(f"{r[step]:.2f}" if step in r else "-" for step in steps)) for r in libraries]
    crops = [
        (f"{r['bytes'] / 1000:.0f} kB", *(f"{ms:.2f}" for ms in r["crop"].values()))
        for r in records
        if "crop" in r
    ]
    return [
        *table(("ms of one core", *steps), rows),
        "",
        *table(("a crop, by people of its photograph", *map(str, _PEOPLE)), crops),
    ]


STUDY = Study("decoding, cutting and coding an image, by library; people: repetitions", 200, (), run, text)
