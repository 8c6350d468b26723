"""Which shards a run consists of, which of them are still to do, and what it says of itself at the end.

A run is continued by starting it again: what is finished is told by the markers on disk alone. What a result depends
on is the run's identity; finished shards of another identity are never mixed with new ones.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from skelfit import __version__
from skelfit.body.dofs import LIMITS_VERSION
from skelfit.config import PathRule, Pipeline, difference
from skelfit.errors import OutputError
from skelfit.metrics import Summary
from skelfit.shards import (
    LAYOUT_VERSION,
    SCHEMA_NAME,
    SUMMARY_NAME,
    ShardError,
    ShardFiles,
    check_shard,
    list_shards,
    read_marker,
    read_rows,
    remove_shard,
    remove_temporaries,
    schema,
    shard_name,
    write_json,
)


@dataclass(frozen=True)
class LabelFile:
    """A label file of a run, as its validated store has it."""

    store: str
    name: str
    sha256: str
    rows: int  # how many of its rows the run takes, from the first on
    source: str  # its kind, which names the reader
    gender: str  # of the SMPL body where the file does not say
    path_rule: PathRule


@dataclass(frozen=True)
class Run:
    """What all shards of a run share."""

    subset: str
    out: str
    images: str | None
    models: str | None  # folder; None is the open body
    models_sha256: str
    pipeline: Pipeline
    device: str
    labels: tuple[LabelFile, ...]

    def identity(self) -> dict[str, Any]:
        """What the results depend on, without places: a run may go on in another folder or machine."""
        # Not the store: it is a place, and follows from the rest.
        labels = [{k: v for k, v in asdict(f).items() if k != "store"} for f in self.labels]
        return {
            "subset": self.subset,
            "labels": labels,
            "images": self.images is not None,
            "pipeline": asdict(self.pipeline),
            "models_sha256": self.models_sha256,
            "limits": LIMITS_VERSION,
            "layout": LAYOUT_VERSION,
            "code_version": __version__,
        }


@dataclass(frozen=True)
class ShardTask:
    """Rows [start, stop) of a run's label file `file_index`, which become one shard."""

    run: Run
    name: str
    file_index: int
    start: int
    stop: int

    @property
    def files(self) -> ShardFiles:
        """Where the shard goes."""
        return ShardFiles(Path(self.run.out), self.name)


def plan_shards(run: Run) -> list[ShardTask]:
    """The shards of a run; they are numbered through all label files, and none spans two files."""
    size = run.pipeline.shard_size
    spans = [(i, start) for i, f in enumerate(run.labels) for start in range(0, f.rows, size)]
    return [
        ShardTask(run, shard_name(run.subset, number), i, start, min(start + size, run.labels[i].rows))
        for number, (i, start) in enumerate(spans)
    ]


@contextmanager
def writing(folder: Path, subset: str) -> Iterator[None]:
    """Make the output folder and keep other runs out; at the end, clear up after killed ones. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to: {error}") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{folder}: another run is writing here") from None
        yield
        # At the end: workers of a killed run may have gone on for a moment after this one began.
        remove_temporaries(folder, subset)
    finally:
        os.close(lock)


def pending(run: Run, tasks: Sequence[ShardTask], *, overwrite: bool = False) -> list[ShardTask]:
    """The tasks that are not finished; what stands in their way is removed.

    Raises OutputError when the folder has finished shards of another configuration, naming the difference, unless
    `overwrite`, and when it has shards of another subset.
    """
    folder = Path(run.out)
    others = [p.name for p in folder.glob("*-[0-9][0-9][0-9][0-9][0-9][0-9].done.json")]
    others = sorted(name for name in others if name[: -len("-000000.done.json")] != run.subset)
    if others:
        raise OutputError(f"{folder}: holds shards of another subset ({others[0]}); choose another folder")
    found = list_shards(folder, run.subset)
    finished = set() if overwrite else {files.name for files in found if _is_finished(files, run)}
    # The summary marks a complete run. It is written anew at the end, also when nothing is left to do.
    (folder / SUMMARY_NAME).unlink(missing_ok=True)
    for files in found:
        if files.name not in finished:
            remove_shard(files)
    return [task for task in tasks if task.name not in finished]


def _is_finished(files: ShardFiles, run: Run) -> bool:
    """Whether a shard is whole; OutputError when it is whole and of another run."""
    try:
        marker = read_marker(files)
        check_shard(files, marker)
    except ShardError:
        return False
    # Through JSON, as the marker went: tuples are lists there.
    identity = json.loads(json.dumps(run.identity()))
    if changed := difference(marker.identity, identity):
        raise OutputError(
            f"{files.folder}: has finished shards of another configuration ({files.name}, found against wanted): "
            f"{'; '.join(changed)}. Choose another --out, or --overwrite"
        )
    return True


def finish(run: Run, tasks: Sequence[ShardTask], people_per_second: float | None) -> dict[str, Any]:
    """Write schema.json and, last, summary.json of a run whose shards are all finished; returns the summary.

    All but `people_per_second` is read from the sidecars, so a run that was continued says the same as one that was
    not. Raises ShardError, OutputError.
    """
    folder = Path(run.out)
    summary = Summary.of_rows(chain.from_iterable(read_rows(task.files.sidecar) for task in tasks))
    content = {
        "subset": run.subset,
        **summary.to_json(),
        "people_per_second": people_per_second,
        "shards": len(tasks),
        "identity": run.identity(),
    }
    write_json(folder / SCHEMA_NAME, schema())
    write_json(folder / SUMMARY_NAME, content)
    return content
