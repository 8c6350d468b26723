"""A table that a command prints: drawn on a terminal, and lines of text elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Row = tuple[str, ...]


@dataclass(frozen=True)
class ReportTable:
    """The cells of a table, and the same as plain text; the first column holds names, the others numbers."""

    heads: Row
    rows: tuple[Row, ...]
    text: str

    def __str__(self) -> str:
        return self.text


def table_of_counts(heads: Row, counts: Sequence[tuple[str, int]]) -> ReportTable:
    """How many there are of each name. As text it has no heads."""
    text = "\n".join(f"  {name:<40} {count:>9}" for name, count in counts)
    return ReportTable(heads, tuple((name, str(count)) for name, count in counts), text)
