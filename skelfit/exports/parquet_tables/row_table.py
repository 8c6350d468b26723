"""The table of rows: one line for each row of the label files, published or not, with its status and reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skelfit.errors import SkelfitError
from skelfit.exports.parquet_tables.column_arrays import record_batch, table_schema
from skelfit.exports.parquet_tables.table_columns import Column, row_columns
from skelfit.shards.finished_run import FinishedRun
from skelfit.shards.row_status import PUBLISHED
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_rows

GROUP = 20_000  # rows in a row group: about 2 MB
_COPIED = (
    "key", "row", "status", "reason", "pve_mm", "max_vertex_mm", "unseen_keypoints", "skel_gender", "target_gender",
    "root", "sequence", "frame", "frame_rate", "fitted_rate", "subject",
)  # fmt: skip


def columns_of(run: FinishedRun) -> tuple[Column, ...]:
    """The columns of the table of a run: its first row names the stages of the fit. Raises ShardError."""
    for files, _ in run.shards:
        for row in read_rows(files.sidecar):
            return row_columns(tuple(row["stage_pve_mm"]), tuple(row["betas_mm"]))
    raise SkelfitError(f"{run.folder}: expected at least one row, found none")


def row_schema(run: FinishedRun) -> Any:
    """The Arrow schema of the table. Raises ShardError."""
    return table_schema(columns_of(run), run)


def row_batches(run: FinishedRun, size: int = GROUP) -> Iterator[Any]:
    """The table of a run in batches of `size` rows, in the order of the shards. Raises ShardError."""
    schema, rows = row_schema(run), list[Mapping[str, Any]]()
    for files, marker in run.shards:
        names = [str(file["name"]) for file in marker.identity["labels"]]
        for row in read_rows(files.sidecar):
            rows.append(row | {"shard": files.name, "label_file": names[int(row["key"].split("-")[-2])]})
            if len(rows) == size:
                yield _batch(schema, run, rows)
                rows = []
    if rows:
        yield _batch(schema, run, rows)


def _batch(schema: Any, run: FinishedRun, rows: Sequence[Mapping[str, Any]]) -> Any:
    stages, steps = (tuple(rows[0][part]) for part in ("stage_pve_mm", "betas_mm"))
    try:
        arrays: dict[str, Any] = {
            **{name: [row[name] for row in rows] for name in (*_COPIED, "shard", "label_file")},
            **{f"pve_mm_{name}": [row["stage_pve_mm"][name] for row in rows] for name in stages},
            **{f"betas_mm_{name}": [row["betas_mm"][name] for row in rows] for name in steps},
            "subset": [run.subset] * len(rows),
            "published": [row["status"] in PUBLISHED for row in rows],
            "has_image": [row["image"] for row in rows],
        }
    except KeyError as error:
        expected = "a value, as rows of this version of skelfit have it"
        raise ShardError(run.folder, str(error.args[0]), expected, "no such key") from None
    return record_batch(schema, arrays)
