"""Rows that wait on disk until all are known: memory does not grow with a video."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from skelfit.errors import OutputError


class LineSpool:
    """Lines of text in an unnamed file of a folder, which vanishes with the process."""

    def __init__(self, folder: Path) -> None:
        """Raises OutputError."""
        self._folder = folder
        with _writing(folder):
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def add(self, lines: Iterable[str]) -> None:
        """Append lines. Raises OutputError."""
        with _writing(self._folder):
            for line in lines:
                self._file.write(line.encode() + b"\n")

    def __iter__(self) -> Iterator[bytes]:
        """All lines, each with its end."""
        self._file.seek(0)
        yield from self._file

    def close(self) -> None:
        """Remove the lines."""
        self._file.close()


class ColumnSpool:
    """Columns of numbers, each in an unnamed file of a folder, which vanishes with the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, tuple[IO[bytes], np.dtype[Any], tuple[int, ...]]] = {}
        self.rows = 0

    def add(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Append N rows (N,...) of each column: of the same columns each time. Raises OutputError."""
        with _writing(self._folder):
            for name, values in columns.items():
                if name not in self._files:
                    made = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
                    self._files[name] = made, values.dtype, values.shape[1:]
                stream, dtype, _ = self._files[name]
                stream.write(np.ascontiguousarray(values, dtype).data)
        self.rows += len(next(iter(columns.values())))

    def columns(self) -> dict[str, NDArray[Any]]:
        """All rows of each column, read from disk where they are used."""
        found: dict[str, NDArray[Any]] = {}
        for name, (stream, dtype, shape) in self._files.items():
            with _writing(self._folder):
                stream.flush()
            found[name] = np.memmap(stream, dtype, "r", shape=(self.rows, *shape))
        return found

    def close(self) -> None:
        """Remove the rows."""
        for stream, _, _ in self._files.values():
            stream.close()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error}") from error
