"""Images into shards: from a folder and from tars, as bytes and as crops; speed, and whether pixels change."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from PIL import Image

from skelfit.benchmark.text_table import table
from skelfit.config.pipeline import ImageConfig, ImageMode
from skelfit.images.image_source import open_images, read_images
from skelfit.images.square_crop import CropBox
from skelfit.images.tar_index import INDEX_NAME, build_index
from skelfit.labels.demo_people import write_demo
from tools.studies.setup import Setup, Study

_TAR = 1000  # images per tar, as 4D-Humans has them
_MODES: tuple[ImageMode, ...] = ("bytes", "crop")


@dataclass(frozen=True)
class _Demo:
    """The demo's pictures, as files and in tars, and the boxes of their people."""

    folder: Path
    index: Path
    crops: list[tuple[str, CropBox]]
    index_seconds: float


def run(setup: Setup) -> list[dict[str, Any]]:
    """Images and bytes per second of each source and mode, and the number of images that changed."""
    with tempfile.TemporaryDirectory(prefix="skelfit-images-") as folder:
        demo = _make(setup, Path(folder))
        records = []
        for mode in _MODES:
            config = replace(setup.pipeline.images, mode=mode)
            for kind, location in (("folder", demo.folder), ("tars", demo.index)):
                setup.say(f"{len(demo.crops)} images from {kind}, mode {mode}")
                out = Path(folder) / f"{kind}-{mode}.tar"
                timed = _pass_through(location, demo.crops, config, out)
                records.append({"source": kind, "mode": mode} | timed)
            setup.say("looking at what came out")
            one, other = (Path(folder) / f"{kind}-{mode}.tar" for kind in ("folder", "tars"))
            for record in records[-2:]:
                record["same_from_folder_and_tars"] = one.read_bytes() == other.read_bytes()
                if mode == "bytes":
                    out = Path(folder) / f"{record['source']}-bytes.tar"
                    record["differing"] = _differing(demo.folder, out)
            one.unlink()
            other.unlink()
    return [record | {"index_seconds": demo.index_seconds, "cores": os.cpu_count()} for record in records]


def _make(setup: Setup, folder: Path) -> _Demo:
    setup.say(f"drawing {setup.people} people")
    with np.load(write_demo(folder / "demo", setup.people, models=setup.models)) as labels:
        names = labels["imgname"].tolist()
        sides = 200.0 * labels["scale"].reshape(len(names), -1).max(axis=1)
        boxes = np.column_stack([labels["center"], sides]).astype(float).tolist()
    images = folder / "demo" / "images"
    tars = []
    for start in range(0, len(names), _TAR):
        tars.append(folder / f"{start // _TAR:06d}.tar")
        with tarfile.open(tars[-1], "w") as tar:
            for name in names[start : start + _TAR]:
                tar.add(images / name, name)
    started = time.perf_counter()
    build_index(tars, folder / INDEX_NAME)
    seconds = time.perf_counter() - started
    crops = [(name, CropBox(*box)) for name, box in zip(names, boxes, strict=True)]
    return _Demo(images, folder / INDEX_NAME, crops, seconds)


def _pass_through(
    location: Path, crops: list[tuple[str, CropBox]], config: ImageConfig, out: Path
) -> dict[str, Any]:
    """Read, check and, in crop mode, cut the images, and write them to a tar as a shard has them."""
    count = bytes_out = 0
    started, cpu = time.perf_counter(), time.process_time()
    with (
        closing(open_images(location)) as source,
        webdataset.TarWriter(str(out), user="", group="", mtime=0, encoder=False) as tar,
    ):
        for (name, _), picture in zip(crops, read_images(source, crops, config), strict=True):
            if picture.data is not None:
                tar.write({"__key__": name.partition(".")[0], picture.ending: picture.data})
                count += 1
                bytes_out += len(picture.data)
    seconds = time.perf_counter() - started
    return {
        "images": count,
        "lost": len(crops) - count,
        "bytes_out": bytes_out,
        "seconds": seconds,
        "images_per_second": count / seconds,
        "cpu_ms_per_image": 1000 * (time.process_time() - cpu) / len(crops),
    }


def _differing(folder: Path, out: Path) -> int:
    """How many images of a tar are not, once decoded, exactly those of the folder."""
    return sum(
        not np.array_equal(_decoded((folder / name).read_bytes()), _decoded(data))
        for name, data in _members(out)
    )


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            assert stream is not None
            yield member.name, stream.read()


def _decoded(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per mode and source, and what changed."""
    heads = (
        "mode",
        "source",
        "images",
        "lost",
        "img/s",
        "CPU ms each",
        "bytes each",
        "MB",
        "decoded otherwise",
    )
    rows = [
        (r["mode"], r["source"], r["images"], r["lost"], f"{r['images_per_second']:.0f}")
        + (f"{r['cpu_ms_per_image']:.2f}", round(r["bytes_out"] / max(1, r["images"])))
        + (f"{r['bytes_out'] / 1e6:.1f}", r.get("differing", "-"))
        for r in records
    ]
    same = "yes" if all(r["same_from_folder_and_tars"] for r in records) else "NO"
    index = f"index of the tars: {records[0]['index_seconds']:.2f} s"
    return [*table(heads, rows), f"folder and tars give the same bytes: {same}; {index}"]


STUDY = Study("images into shards: as bytes and as crops, from a folder and from tars", 10_000, (), run, text)
