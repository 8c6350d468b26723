"""Which shards a run consists of, and which of them are still to do.

A run continues when it is started again: the markers on disk alone say what is finished. The run's identity is all
that its results depend on. Finished shards of another identity are never mixed with new ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeVar

from skelfit.bodies.dofs import LIMITS_VERSION
from skelfit.config.identity import difference, mapping_hash
from skelfit.config.manifest import Filters, Origin, PathRule, ReadOptions
from skelfit.config.pipeline import Pipeline
from skelfit.conversion.planned_shard import PlannedShard, ShardRun
from skelfit.conversion.rank import Rank
from skelfit.errors import OutputError
from skelfit.images.square_crop import CROP_VERSION
from skelfit.shards.content_seal import is_broken
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
# have one of their own (CROP_VERSION). Raise it by one when the same input gives other results than before, and record
# the golden parameters again (`python tests/support/golden_fit.py --record`). Finished shards of another version are
# never mixed with new ones; an edited comment, a new name or a faster loop that gives the same results leaves it as it
# is.
ALGORITHM_VERSION = 3
AnyShard = TypeVar("AnyShard", bound=PlannedShard)


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
    earlier: tuple[tuple[LabelFile, ...], ...] = ()  # the labels before each --extend, in order

    @property
    def made(self) -> str:
        """What is done with the rows, as a message says it."""
        return "fitted"

    def identity(self) -> dict[str, Any]:
        """What the results depend on, without places: a run may go on in another folder or machine."""
        crops = self.images is not None and self.pipeline.images.mode == "crop"
        return {
            "subset": self.subset,
            "labels": _plain(self.labels),
            "images": self.images is not None,
            "filters": asdict(self.filters),
            "pipeline": asdict(self.pipeline),
            "models_sha256": self.models_sha256,
            "limits": LIMITS_VERSION,
            "layout": LAYOUT_VERSION,
            "algorithm": self.algorithm,
            # Shards without crops are the same whatever the version of crops.
            **({"crops": CROP_VERSION} if crops else {}),
            # Only an extended run has it: the others keep the identity that they had.
            **({"extends": [_plain(labels) for labels in self.earlier]} if self.earlier else {}),
        }

    @property
    def identity_sha256(self) -> str:
        """One hash of the identity."""
        return mapping_hash(self.identity())

    def steps(self) -> list[Run]:
        """The run as it was before each --extend, and as it is."""
        labels = [*self.earlier, self.labels]
        return [replace(self, labels=files, earlier=self.earlier[:i]) for i, files in enumerate(labels)]


def _plain(labels: Sequence[LabelFile]) -> list[dict[str, Any]]:
    # Not the store: it is a place, and follows from the rest.
    return [{k: v for k, v in asdict(file).items() if k != "store"} for file in labels]


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

    Rows that an extended run added have shards of their own, behind all others. These stay as they were.
    """
    size = run.pipeline.shard_size
    spans: list[tuple[Run, int, int, int]] = []
    done: Counter[int] = Counter()
    for step in run.steps():
        for i, file in enumerate(step.labels):
            spans += [(step, i, *span) for span in _spans(done[i], file.rows, size, sequences.get(i, ()))]
            done[i] = file.rows
    return [ShardTask(of, shard_name(run.subset, k), *span) for k, (of, *span) in enumerate(spans)]


def _spans(first: int, rows: int, size: int, sequences: Sequence[int]) -> list[tuple[int, int]]:
    """First rows of the shards of a file's rows from `first` on, each with one past its last."""
    if not sequences:
        return [(start, min(start + size, rows)) for start in range(first, rows, size)]
    starts = [first]
    for start, stop in pairwise([*(start for start in sequences if first <= start < rows), rows]):
        if stop - starts[-1] > size and start > starts[-1]:
            starts.append(start)
    return list(pairwise([*starts, rows])) if rows > first else []


def read_identities(folder: Location, subset: str) -> dict[str, Mapping[str, Any]]:
    """The identities in the markers of a subset, by the names of their shards; equal ones are one object."""
    known: dict[str, Mapping[str, Any]] = {}
    listed = list_shards(folder, subset)
    identities = zip(listed, side_by_side(_identity_of, listed, folder), strict=True)
    return {
        files.name: known.setdefault(json.dumps(identity), identity)
        for files, identity in identities
        if identity is not None
    }


def _identity_of(files: ShardFiles) -> dict[str, Any] | None:
    try:
        # Nothing else of the marker: one that another version of skelfit wrote may be of another form.
        content = read_json(files.marker)
    except ShardError:
        return None
    identity = content.get("identity")
    return identity if isinstance(identity, dict) and not is_broken(content) else None


def pending(
    run: ShardRun,
    tasks: Sequence[AnyShard],
    identities: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    overwrite: bool = False,
    rank: Rank | None = None,
) -> list[AnyShard]:
    """The tasks that are not finished, of a rank or of all. Damaged and unfinished shards of these are removed.

    identities: as `read_identities` has them; None: they are read. Raises OutputError as `check_subset` and, unless
    `overwrite`, `finished_shards` do.
    """
    check_subset(run)
    if identities is None:
        identities = read_identities(location_of(run.out), run.subset)
    finished = set() if overwrite else finished_shards(run, tasks, identities, rank)
    todo = [task for task in tasks if task.name not in finished and (rank is None or rank.owns(task.name))]
    folder = location_of(run.out)
    # The summary marks a complete run. It is written again at the end, also when nothing is left to do; but a rank
    # that has nothing to do leaves that of a run that is complete.
    if rank is None or todo:
        remove_file(folder / SUMMARY_NAME)
    for files in list_shards(folder, run.subset):
        if files.name not in finished and (rank is None or rank.owns(files.name)):
            remove_shard(files)
    return todo


def finished_shards(
    run: ShardRun,
    tasks: Sequence[PlannedShard],
    identities: Mapping[str, Mapping[str, Any]],
    rank: Rank | None = None,
) -> set[str]:
    """The names of the finished shards of a run, or of a rank; identities: as `read_identities` has them.

    Raises OutputError when its folder has finished shards of another configuration, naming the difference.
    """
    for name, changed in _foreign(run, tasks, identities):
        raise OutputError(
            f"{run.out}: has finished shards of another configuration ({name}, found against wanted): "
            f"{'; '.join(changed)}. Choose another --out, or --overwrite"
        )
    return _whole(run, [task for task in tasks if rank is None or rank.owns(task.name)], identities)


def unfinished_shards(run: ShardRun, tasks: Sequence[PlannedShard]) -> set[str]:
    """The names of the shards of a run that are not finished, and of those that another run left."""
    names = {task.name for task in tasks}
    listed = list_shards(location_of(run.out), run.subset)
    # Names alone first: where others are at work, most often some are missing.
    if left := names.symmetric_difference(files.name for files in listed):
        return left
    identities = read_identities(location_of(run.out), run.subset)
    foreign = {name for name, _ in _foreign(run, tasks, identities)}
    return foreign | (names - _whole(run, tasks, identities))


def _whole(
    run: ShardRun, tasks: Sequence[PlannedShard], identities: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """The names of the shards whose files are those that their markers tell of."""
    marked = [task for task in tasks if task.name in identities]
    whole = side_by_side(lambda task: _is_whole(task.files), marked, location_of(run.out))
    return {task.name for task, is_whole in zip(marked, whole, strict=True) if is_whole}


def _foreign(
    run: ShardRun, tasks: Sequence[PlannedShard], identities: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, list[str]]]:
    """The finished shards of another configuration than they are to have, and the fields that differ."""
    of = {task.name: task.run for task in tasks}
    wanted: dict[int, Any] = {}  # through JSON, as the markers went: tuples are lists there
    differences: dict[tuple[int, int], list[str]] = {}
    for name, identity in identities.items():
        step = of.get(name, run)
        pair = id(identity), id(step)
        if pair not in differences:
            if id(step) not in wanted:
                wanted[id(step)] = json.loads(json.dumps(step.identity()))
            differences[pair] = difference(identity, wanted[id(step)])
        if differences[pair]:
            yield name, differences[pair]


def check_subset(run: ShardRun) -> None:
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


def _is_whole(files: ShardFiles) -> bool:
    try:
        check_shard(files, read_marker(files))
    except ShardError:
        return False
    return True
