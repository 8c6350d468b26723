"""A conversion with a fitter that takes no time: what all the rest costs of a core, and whether memory stays flat.

The answers for a few people of the demo are computed once and given again for every row that has their pose. The label
store and the images are read, checked and written as in any run, in this process.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image

from skelfit.api.run_shards import convert_run
from skelfit.benchmark.text_table import table
from skelfit.config.manifest import LabelSource
from skelfit.config.pipeline import ImageMode
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.run_fitter import make_fitter
from skelfit.conversion.run_plan import LabelFile, Run
from skelfit.executors.allocator import keep_freed_memory
from skelfit.executors.progress_bars import Reporter
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.sequences.frame_index import FrameIndex
from skelfit.labels.demo_people import write_demo
from skelfit.labels.label_store import build_store, read_rows, store_info
from tools.studies.setup import Setup, Study

_DISTINCT = 250  # people, who come over and over
_STORE_ROWS = 50_000  # at most: more rows are the same label file several times
_SIZE = (640, 480)  # px, of the photographs
_MOST_IMAGES = 5000  # people with images, at most
# What is converted: what becomes of images, and whether they are photographs or the demo's pictures.
_KINDS: dict[str, tuple[ImageMode, str]] = {
    "labels only": ("none", ""),
    "image bytes, 256 px": ("bytes", "demo/images"),
    "image bytes, 640 x 480": ("bytes", "photographs"),
    "crops of 640 x 480": ("crop", "photographs"),
}
_MIB = 2**20


@dataclass(frozen=True)
class ReplayedFitter:
    """Gives the answer for a row's pose that was computed before."""

    keys: NDArray[np.float32]  # (K,) ascending: a number of each pose that no two share
    order: NDArray[np.int64]  # (K,) their rows of the answers
    answers: FitResult

    @classmethod
    def of(cls, pose: NDArray[np.float32], answers: FitResult) -> ReplayedFitter:
        """The fitter for the people of poses (K,24,3), all different."""
        order = np.argsort(pose[:, 1, 0])
        return cls(pose[order, 1, 0], order, answers)

    def fit(
        self,
        smpl_gender: str,
        pose: torch.Tensor,
        betas: torch.Tensor,
        transl: torch.Tensor,
        frames: FrameIndex | None = None,
    ) -> FitResult:
        """The answers for N people."""
        rows = torch.from_numpy(self.order[np.searchsorted(self.keys, pose[:, 1, 0].numpy())])
        columns: dict[str, Any] = {
            name: None if column is None else column[rows] for name, column in vars(self.answers).items()
        }
        return replace(self.answers, **columns)


def run(setup: Setup) -> list[dict[str, Any]]:
    """A record for each kind of images."""
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="skelfit-job-") as folder:
        setup.say(f"drawing {_DISTINCT} people")
        made = _make(setup, Path(folder))
        records = []
        torch.set_num_threads(1)
        keep_freed_memory()  # as workers do
        try:
            for name, (_, images) in _KINDS.items():
                people = min(setup.people, _MOST_IMAGES) if images else setup.people
                setup.say(f"{people} people, {name}")
                records.append({"kind": name} | made.converted(setup, name, people))
        finally:
            torch.set_num_threads(threads)
    return records


@dataclass(frozen=True)
class _Made:
    """Labels, images and answers."""

    folder: Path
    store: Path
    sha256: str
    rows: int
    fitter: ReplayedFitter

    def run_of(self, setup: Setup, kind: str, people: int) -> Run:
        """A run of so many people; the label file comes as often as they need."""
        mode, images = _KINDS[kind]
        file = LabelFile(
            str(self.store), "people.npz", self.sha256, self.rows, "camerahmr", "neutral", "none"
        )
        files = [replace(file, rows=min(self.rows, people - at)) for at in range(0, people, self.rows)]
        pictures = replace(setup.pipeline.images, mode=mode, size=256)
        return Run(
            subset="made",
            out=str(self.folder / "out"),
            images=str(self.folder / images) if images else None,
            models=None,
            models_sha256=setup.models.sha256,
            pipeline=replace(setup.pipeline, images=pictures),
            device=setup.device,
            labels=tuple(files),
        )

    def converted(self, setup: Setup, kind: str, people: int) -> dict[str, Any]:
        """Speed, the share of each phase, and memory over time."""
        run, process = self.run_of(setup, kind, people), psutil.Process()
        shutil.rmtree(run.out, ignore_errors=True)
        Path(run.out).mkdir()
        memory: list[tuple[int, float]] = []
        started, cpu = time.perf_counter(), time.process_time()
        before_summary = cpu

        def watch(done: int, _: int) -> None:
            nonlocal before_summary
            before_summary = time.process_time()
            memory.append((done, process.memory_info().rss / _MIB))

        summary = convert_run(
            run, work=partial(convert_batch, fitter=self.fitter), reporter=Reporter(progress=watch)
        )
        seconds, ended = time.perf_counter() - started, time.process_time()
        cpu = ended - cpu
        written = sum(path.stat().st_size for path in Path(run.out).glob("*.tar"))
        return {
            "people": people,
            "rows_out": summary["rows_out"],
            "people_per_second_of_a_core": people / cpu,
            "cpu_us_per_person": 1e6 * cpu / people,
            "people_per_second": people / seconds,
            "summary_cpu_us_per_person": 1e6 * (ended - before_summary) / people,
            "bytes_per_person": written / people,
            "shares": summary["time"]["shares"],
            "memory_mib": {share: _at(memory, share * people) for share in (0.1, 0.25, 0.5, 0.75, 1.0)},
        }


def _at(memory: list[tuple[int, float]], rows: float) -> float:
    """The memory when so many rows were done."""
    return next(mib for done, mib in memory if done >= rows)


def _make(setup: Setup, folder: Path) -> _Made:
    with np.load(write_demo(folder / "demo", _DISTINCT, models=setup.models)) as archive:
        columns = {name: archive[name] for name in archive.files}
    (folder / "photographs").mkdir()
    corner = np.array([0, 0])
    for name in columns["imgname"].tolist():
        with Image.open(folder / "demo" / "images" / name) as picture:
            corner = (np.array(_SIZE) - picture.size) // 2
            _photograph(picture, corner).save(folder / "photographs" / name, quality=90)
    columns["center"] = columns["center"] + corner.astype(np.float32)
    rows = np.arange(min(setup.people, _STORE_ROWS)) % _DISTINCT
    np.savez(folder / "people.npz", **{name: column[rows] for name, column in columns.items()})
    source = LabelSource("people.npz", "camerahmr")
    store = build_store(source, folder / "people.npz", folder / "stores")
    labels = read_rows(store, 0, min(_DISTINCT, len(rows)))
    fitter = make_fitter(setup.models, setup.pipeline, setup.device)
    pose, betas, transl = (torch.tensor(a) for a in (labels.pose, labels.betas, labels.transl))
    answers = ReplayedFitter.of(labels.pose, fitter.fit("neutral", pose, betas, transl))
    return _Made(folder, store, store_info(store).sha256, len(rows), answers)


def _photograph(picture: Image.Image, corner: NDArray[np.int64]) -> Image.Image:
    """A picture in the middle of a larger one, with as much detail as a photograph of its size has."""
    rng = np.random.default_rng(int(np.asarray(picture, np.int64).sum()))
    width, height = _SIZE
    whole = Image.fromarray(rng.integers(40, 215, (height // 16, width // 16, 3), dtype=np.uint8))
    whole = whole.resize(_SIZE, Image.Resampling.BICUBIC)
    whole.paste(picture, tuple(corner.tolist()))
    grain = rng.normal(0, 5, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(whole) + grain, 0, 255).astype(np.uint8))


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per kind, where the time went, and the memory."""
    heads = (
        "converted",
        "people",
        "people/s of a core",
        "CPU us each",
        "people/s",
        "its summary",
        "bytes each",
    )
    rows = [
        (r["kind"], r["people"], f"{r['people_per_second_of_a_core']:.0f}", f"{r['cpu_us_per_person']:.1f}")
        + (
            f"{r['people_per_second']:.0f}",
            f"{r['summary_cpu_us_per_person']:.1f}",
            f"{r['bytes_per_person']:.0f}",
        )
        for r in records
    ]
    phases = list(records[0]["shares"])
    times = [(r["kind"], *(f"{100 * r['shares'][phase]:.1f} %" for phase in phases)) for r in records]
    shares = list(records[0]["memory_mib"])
    memory = [(r["kind"], *(f"{mib:.0f}" for mib in r["memory_mib"].values())) for r in records]
    return [
        *table(heads, rows),
        "",
        *table(("share of the time", *phases), times),
        "",
        *table(("MiB when done", *(f"{100 * share:.0f} %" for share in shares)), memory),
    ]


STUDY = Study(
    "a conversion with a fitter that takes no time, one process: speed and memory", 20_000, (), run, text
)
