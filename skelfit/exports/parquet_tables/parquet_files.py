"""Parquet files that are written batch by batch: whole or absent, and with the same bytes for the same table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet

from skelfit.storage.atomic_write import atomic_write
from skelfit.storage.locations import Location

# Zstandard is read everywhere. The page index lets a viewer fetch some rows of a large file.
_SETTINGS: dict[str, Any] = {"compression": "zstd", "write_page_index": True}


@dataclass(frozen=True)
class WrittenTable:
    """What became of a table."""

    files: tuple[Location, ...]
    lines: int
    bytes: int  # in memory, as Arrow has it


def write_parquet(
    path_of: Callable[[int], Location],
    schema: Any,
    batches: Iterable[Any],
    step: Callable[[int], object],
    lines_per_file: int | None = None,
) -> WrittenTable:
    """Write the batches of a table, each as a row group. Raises OutputError.

    path_of: the path of file 0, 1 ...; lines_per_file: a file is closed when it has as many; None: one file.
    """
    files, lines, size = list[Location](), 0, 0
    source = iter(batches)
    batch = next(source, None)
    while batch is not None or not files:
        files.append(path_of(len(files)))
        written = 0
        with (
            atomic_write(files[-1]) as temporary,
            pyarrow.parquet.ParquetWriter(temporary, schema, **_SETTINGS) as writer,
        ):
            while batch is not None and (lines_per_file is None or written < lines_per_file):
                writer.write_batch(batch)
                written, size = written + len(batch), size + batch.nbytes
                step(len(batch))
                batch = next(source, None)
        lines += written
    return WrittenTable(tuple(files), lines, size)
