"""The table of people: one line for each sample of the tars, with the numbers of its label vector by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skelfit.exports.parquet_tables.column_arrays import numbers, record_batch, table_schema
from skelfit.exports.parquet_tables.table_columns import ANGLES, ERRORS, OF_METADATA, PEOPLE, VECTORS
from skelfit.shards.finished_run import FinishedRun
from skelfit.shards.label_vector import FloatArray, unpack
from skelfit.shards.shard_files import ShardFiles
from skelfit.shards.shard_reader import read_rows

GROUP = 5000  # people in a row group: about 4 MB


@dataclass(frozen=True)
class TablePerson:
    """One line of the table, as the shard has it."""

    key: str
    shard: str
    label: FloatArray  # (LABEL_SIZE,)
    meta: Mapping[str, Any]
    reason: str  # from the sidecar


def people_schema(run: FinishedRun) -> Any:
    """The Arrow schema of the table."""
    return table_schema(PEOPLE, run)


def people_batches(run: FinishedRun, size: int = GROUP) -> Iterator[Any]:
    """The table of a run in batches of `size` people, in the order of the shards. Raises ShardError."""
    schema, people = people_schema(run), list[TablePerson]()
    for person in _people(run):
        people.append(person)
        if len(people) == size:
            yield people_batch(schema, people)
            people = []
    if people:
        yield people_batch(schema, people)


def people_batch(schema: Any, people: Sequence[TablePerson]) -> Any:
    """The batch of some people."""
    labels = unpack(np.array([person.label for person in people], np.float32))
    metas = [person.meta for person in people]
    arrays: dict[str, Any] = {
        "key": [person.key for person in people],
        "shard": [person.shard for person in people],
        "reason": [person.reason for person in people],
        **{name: [meta[name] for meta in metas] for name in ("subset", "label_file", "row", "status")},
        **{column.name: [meta[name] for meta in metas] for name, column in OF_METADATA.items()},
        **{column.name: numbers(labels["errors"][:, i]) for i, column in enumerate(ERRORS)},
        **{column.name: numbers(labels["skel_poses"][:, i]) for i, column in enumerate(ANGLES)},
    }
    for flag, columns in VECTORS.items():
        known = np.array([not flag or bool(meta[flag]) for meta in metas], bool)
        arrays |= {column.name: numbers(labels[column.name], known) for column in columns}
    return record_batch(schema, arrays)


def reasons_of(files: ShardFiles) -> dict[str, str]:
    """The reason of each row of a shard that has one, by key."""
    return {row["key"]: row["reason"] for row in read_rows(files.sidecar) if row["reason"]}


def _people(run: FinishedRun) -> Iterator[TablePerson]:
    shards = {files.name: files for files, _ in run.shards}
    shard, reasons = "", dict[str, str]()
    for key, name, label, meta in run.samples():
        if name != shard:
            shard, reasons = name, reasons_of(shards[name])
        yield TablePerson(key, name, label, meta, reasons.get(key, ""))
