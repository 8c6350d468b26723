"""The tables of a dataset: people, rows and, where there are images, a preview with pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skelfit.exports.parquet_tables.parquet_files import WrittenTable, write_parquet
from skelfit.exports.parquet_tables.people_table import people_batches, people_schema
from skelfit.exports.parquet_tables.row_table import columns_of, row_batches, row_schema
from skelfit.exports.parquet_tables.table_columns import PEOPLE, Column
from skelfit.images.image_bytes import ending_of
from skelfit.publishing import preview_table
from skelfit.shards.finished_run import FinishedRun, Step, no_step

PEOPLE_TABLE, ROW_TABLE, PREVIEW_TABLE = "people", "rows", "preview"
LINES_PER_FILE = 500_000  # a file of people is then about 350 MB


@dataclass(frozen=True)
class DatasetTable:
    """A table of a dataset: what the Hub calls a configuration."""

    name: str
    columns: tuple[Column, ...]
    written: WrittenTable

    @property
    def file_bytes(self) -> int:
        """The size of its files."""
        return sum(path.stat().st_size for path in self.written.files)


@dataclass(frozen=True)
class DatasetTables:
    """All tables, and the endings of the images in the tars."""

    tables: tuple[DatasetTable, ...]
    image_endings: tuple[str, ...]


def write_tables(run: FinishedRun, folder: Path, step: Step) -> DatasetTables:
    """Write the tables of a run below a folder; step: called with how many more people are done.

    Raises ShardError, OutputError.
    """
    endings: set[str] = set()
    batches = _noting_endings(people_batches(run), endings)
    people = _write(run, folder, PEOPLE_TABLE, PEOPLE, people_schema(run), batches, step)
    rows = _write(run, folder, ROW_TABLE, columns_of(run), row_schema(run), row_batches(run))
    tables = [people, rows]
    if endings:
        images = preview_table.preview_batches(run)
        schema = preview_table.preview_schema(run)
        tables.append(_write(run, folder, PREVIEW_TABLE, preview_table.COLUMNS, schema, images))
    return DatasetTables(tuple(tables), tuple(sorted(endings)))


def _write(
    run: FinishedRun,
    folder: Path,
    name: str,
    columns: tuple[Column, ...],
    schema: Any,
    batches: Iterable[Any],
    step: Step = no_step,
) -> DatasetTable:
    def path_of(number: int) -> Path:
        return folder / name / f"{run.subset}-{number:05d}.parquet"

    return DatasetTable(name, columns, write_parquet(path_of, schema, batches, step, LINES_PER_FILE))


def _noting_endings(batches: Iterator[Any], endings: set[str]) -> Iterator[Any]:
    """The same batches of people; adds the endings that their images may have in the tars."""
    for batch in batches:
        names, flags = (batch.column(name).to_pylist() for name in ("imgname", "has_image"))
        seen = {ending_of(name) for name, has_image in zip(names, flags, strict=True) if has_image}
        # Crops are JPEGs, whatever the file was that they are cut from.
        endings |= seen | ({"jpg"} if seen else set())
        yield batch
