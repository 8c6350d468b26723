"""Which shards a run consists of, and which of them are still to do.

A run continues when it is started again: the markers on disk alone say what is finished. The run's identity is all
that its results depend on. Finished shards of another identity are never mixed with new ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from skelfit.bodies.dofs import LIMITS_VERSION
from skelfit.config.identity import difference, mapping_hash
from skelfit.config.manifest import Filters, Origin, PathRule, ReadOptions
from skelfit.config.pipeline import Pipeline
from skelfit.errors import OutputError
from skelfit.images.square_crop import CROP_VERSION
from skelfit.shards.label_vector import LAYOUT_VERSION
from skelfit.shards.shard_files import (
    SUMMARY_NAME,
    ShardError,
    ShardFiles,
    list_shards,
    list_subsets,
    remove_shard,
    shard_name,
)
from skelfit.shards.shard_reader import check_shard, read_json, read_marker
from skelfit.storage.atomic_write import remove_file
from skelfit.storage.locations import Location, location_of, side_by_side

# The version of all that turns a label row into a published row: readers, filters, the fit, the layout of a row. Crops
# have one of their own (CROP_VERSION). Raise it by one when the same input gives other results than before, and record the golden parameters again (`python
# tests/support/golden_fit.py --record`). Finished shards of another version are never mixed with new ones; an
# edited comment, a new name or a faster loop that gives the same results leaves it as it is.
ALGORITHM_VERSION = 3


@dataclass(frozen=True)
class LabelFile:
    """A label file of a run, as its validated store has it."""

    store: str
    name: str
    sha256: str
    rows: int  # how many of its rows the run takes, from the first on
    source: str  # its layout, which names the reader
    gender: str  # of the SMPL body where the file does not say
    path_rule: PathRule
    path_prefix: str = ""
    read: ReadOptions = ReadOptions()
    notes: tuple[str, ...] = ()  # what the reader found by value, and what it did not use


@dataclass(frozen=True)
class Run:
    """What all shards of a run share."""

    subset: str
    out: str
    images: str | None  # folder, or index of tars
    models: str | None  # folder; None is the open body
    models_sha256: str
    pipeline: Pipeline
    device: str
    labels: tuple[LabelFile, ...]
    filters: Filters = Filters()
    description: str = ""  # as the manifest has it; no result depends on it, nor on the next
    origins: tuple[Origin, ...] = ()
    algorithm: int = ALGORITHM_VERSION

    def identity(self) -> dict[str, Any]:
        """What the results depend on, without places: a run may go on in another folder or machine."""
        # Not the store: it is a place, and follows from the rest.
        labels = [{k: v for k, v in asdict(f).items() if k != "store"} for f in self.labels]
        crops = self.images is not None and self.pipeline.images.mode == "crop"
        return {
            "subset": self.subset,
            "labels": labels,
            "images": self.images is not None,
            "filters": asdict(self.filters),
            "pipeline": asdict(self.pipeline),
            "models_sha256": self.models_sha256,
            "limits": LIMITS_VERSION,
            "layout": LAYOUT_VERSION,
            "algorithm": self.algorithm,
            # Shards without crops are the same whatever the version of crops.
            **({"crops": CROP_VERSION} if crops else {}),
        }

    @property
    def identity_sha256(self) -> str:
        """One hash of the identity."""
        return mapping_hash(self.identity())


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
        return ShardFiles(location_of(self.run.out), self.name)


def plan_shards(run: Run, sequences: Mapping[int, Sequence[int]] = MappingProxyType({})) -> list[ShardTask]:
    """The shards of a run; they are numbered through all label files, and none spans two files.

    sequences: index of a label file -> first rows of its sequences. None of these is cut: a shard holds as many whole
    ones as it has room for, and one at least, so that their angles can be made continuous within it.
    """
    size = run.pipeline.shard_size
    spans = [
        (i, *span) for i, f in enumerate(run.labels) for span in _spans(f.rows, size, sequences.get(i, ()))
    ]
    return [ShardTask(run, shard_name(run.subset, number), *span) for number, span in enumerate(spans)]


def _spans(rows: int, size: int, sequences: Sequence[int]) -> list[tuple[int, int]]:
    """First rows of a file's shards, each with one past its last."""
    if not sequences:
        return [(start, min(start + size, rows)) for start in range(0, rows, size)]
    starts = [0]
    for start, stop in pairwise([*(first for first in sequences if first < rows), rows]):
        if stop - starts[-1] > size and start > starts[-1]:
            starts.append(start)
    return list(pairwise([*starts, rows])) if rows else []


def pending(run: Run, tasks: Sequence[ShardTask], *, overwrite: bool = False) -> list[ShardTask]:
    """The tasks that are not finished. Damaged and unfinished shards are removed.

    Raises OutputError as `check_subset` and, unless `overwrite`, `finished_shards` do.
    """
    check_subset(run)
    finished = set() if overwrite else finished_shards(run)
    folder = location_of(run.out)
    # The summary marks a complete run. It is written again at the end, also when nothing is left to do.
    remove_file(folder / SUMMARY_NAME)
    for files in list_shards(folder, run.subset):
        if files.name not in finished:
            remove_shard(files)
    return [task for task in tasks if task.name not in finished]


def finished_shards(run: Run) -> set[str]:
    """The names of the finished shards of a run.

    Raises OutputError when its folder has finished shards of another configuration, naming the difference.
    """
    folder = location_of(run.out)
    listed = list_shards(folder, run.subset)
    whole = side_by_side(lambda files: _is_finished(files, run), listed, folder)
    return {files.name for files, finished in zip(listed, whole, strict=True) if finished}


def check_subset(run: Run) -> None:
    """Raise OutputError when the folder of a run has shards of another subset."""
    folder = location_of(run.out)
    if others := [name for name in list_subsets(folder) if name != run.subset]:
        raise OutputError(f"{folder}: holds shards of another subset ({others[0]}); choose another folder")


def check_summary(folder: Location) -> None:
    """Raise OutputError when a folder without shards has a summary.json that no run wrote: a run would replace it."""
    path = folder / SUMMARY_NAME
    if not path.exists() or list_subsets(folder):
        return
    try:
        ours = "identity_sha256" in read_json(path)
    except ShardError:
        ours = False
    if not ours:
        raise OutputError(f"{path}: expected the summary of a run, found another file; choose another folder")


def _is_finished(files: ShardFiles, run: Run) -> bool:
    """Whether a shard is whole; OutputError when its marker is of another run."""
    # Through JSON, as the marker went: tuples are lists there.
    identity = json.loads(json.dumps(run.identity()))
    try:
        # Before the rest is looked at: a marker that another version of skelfit wrote may be of another form.
        marked = read_json(files.marker).get("identity")
        if isinstance(marked, dict) and (changed := difference(marked, identity)):
            raise OutputError(
                f"{files.folder}: has finished shards of another configuration ({files.name}, found against "
                f"wanted): {'; '.join(changed)}. Choose another --out, or --overwrite"
            )
        check_shard(files, read_marker(files))
    except ShardError:
        return False
    return True
