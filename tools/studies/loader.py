"""The trainer's loader beside plain webdataset, on the same shards: samples and images per second, by workers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import webdataset
from torch.utils.data import DataLoader

from skelfit.benchmark.text_table import table
from skelfit.images.image_bytes import check_image
from skelfit.learning.data.data_loader import DataConfig, Loader
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.shards.label_vector import FIELDS, LAYOUT_VERSION, pack
from skelfit.shards.shard_files import ShardFiles, shard_name
from skelfit.shards.shard_schema import ShardRow, ShardSample
from skelfit.shards.shard_writer import write_shard
from tools.studies.photographs import photograph
from tools.studies.setup import Setup, Study

_DRAWN = 50  # people whose photographs come over and over
_SHARD, _BATCH, _SHUFFLE = 500, 64, 500
_WORKERS = (0, 1, 2, 4)
_ROUNDS = 3
_PASSES = {False: 4, True: 1}  # labels alone are read fast


def run(setup: Setup) -> list[dict[str, Any]]:
    """Medians of several rounds in which plain webdataset and the loader alternate."""
    with tempfile.TemporaryDirectory(prefix="skelfit-loader-") as folder:
        setup.say(f"writing {setup.people} people with photographs of 640 x 480 px")
        tars = write_photographs(Path(folder), setup.people)
        records = []
        for images in (False, True):
            for workers in _WORKERS:
                setup.say(f"{'images' if images else 'labels'}, {workers} workers")
                samples = setup.people * _PASSES[images]
                methods = {
                    "plain": _plain(tars, workers, images),
                    "skelfit": _ours(tars, workers, images, samples),
                }
                rounds = [
                    {method: _timed(make, samples) for method, make in methods.items()}
                    for _ in range(_ROUNDS)
                ]
                medians = {
                    f"{method}_{what}": median(each[method][what] for each in rounds)
                    for method in methods
                    for what in rounds[0][method]
                }
                records.append({"images": images, "workers": workers, "samples": samples} | medians)
    return records


def write_photographs(folder: Path, people: int) -> list[str]:
    """Shards of made-up labels with whole photographs, as of mode `bytes`."""
    rng = np.random.default_rng(0)
    pictures = [check_image(photograph(i, 3), "jpg") for i in range(_DRAWN)]
    fields = {f.name: np.zeros((_DRAWN, *f.shape), np.float32) for f in FIELDS}
    fields["center"] = rng.uniform((200, 150), (440, 330), (_DRAWN, 2)).astype(np.float32)
    fields["scale"] = np.repeat(rng.uniform(0.5, 2, (_DRAWN, 1)), 2, axis=1).astype(np.float32)
    packed = pack(fields)
    tars = []
    for start in range(0, people, _SHARD):
        stop = min(start + _SHARD, people)
        files = ShardFiles(folder, shard_name("made", start // _SHARD))
        entries = []
        for row in range(start, stop):
            i = row % _DRAWN
            key, picture = f"made-0-{row:08d}", pictures[i]
            meta = {
                "key": key,
                "subset": "made",
                "coordinates": "camera",
                "camera": True,
                "skel_gender": "male",
            }
            meta |= {"status": "ok", "imgname": f"{i}.jpg", "layout": LAYOUT_VERSION}
            meta |= {"image_size": picture.size, "affine": picture.affine, "keypoints3d": "labels"}
            line = ShardRow(key, row, "ok", "", 0, 0, {}, "male", {}, 0, True)
            entries.append((line, ShardSample(key, packed[i], meta, picture.data, "jpg")))
        write_shard(files, entries, {}, (start, stop))
        tars.append(str(files.tar))
    return tars


def _plain(tars: list[str], workers: int, images: bool) -> Callable[[], Iterable[Any]]:
    """webdataset as in its documentation: shuffled, decoded, batched; images as stored."""

    def make() -> Iterable[Any]:
        members = ("jpg", "label.npy", "meta.json") if images else ("label.npy", "meta.json")
        dataset = webdataset.WebDataset(
            tars, shardshuffle=len(tars), empty_check=False, select_files=lambda name: name.endswith(members)
        )
        dataset = dataset.shuffle(_SHUFFLE).decode("torchrgb8").to_tuple(*members).batched(_BATCH)
        return DataLoader(dataset.repeat(_PASSES[images]), batch_size=None, num_workers=workers)

    return make


def _ours(tars: list[str], workers: int, images: bool, samples: int) -> Callable[[], Iterable[Any]]:
    subset = SubsetConfig(str(Path(tars[0]).parent / "*.tar"))
    config = DataConfig(
        (subset,), batch_size=_BATCH, workers=workers, shuffle=_SHUFFLE, epoch_samples=samples
    )
    return lambda: Loader(config, images=images)


def _timed(make: Callable[[], Iterable[Any]], samples: int) -> dict[str, float]:
    """Samples per second from the first batch on, and CPU time of each in this process.

    Before it, workers start and fill their memory of samples: once an epoch, be it one of a million.
    """
    cpu = time.process_time()
    batches = iter(make())
    next(batches)
    started = time.perf_counter()
    count = sum(1 for _ in batches)
    seconds = time.perf_counter() - started
    cpu = time.process_time() - cpu
    return {"per_second": count * _BATCH / seconds, "cpu_ms": 1000 * cpu / samples}


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per kind and number of workers."""
    heads = ("read", "workers", "plain/s", "skelfit/s", "ratio", "plain CPU ms", "skelfit CPU ms")
    rows = [
        ("labels and photographs" if r["images"] else "labels", r["workers"], f"{r['plain_per_second']:.0f}")
        + (f"{r['skelfit_per_second']:.0f}", f"{r['skelfit_per_second'] / r['plain_per_second']:.2f}")
        + tuple("-" if r["workers"] else f"{r[f'{method}_cpu_ms']:.3f}" for method in ("plain", "skelfit"))
        for r in records
    ]
    return table(heads, rows)


STUDY = Study("the trainer's loader beside plain webdataset: labels, and photographs", 5000, (), run, text)
