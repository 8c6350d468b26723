"""Lines and tables in colours, for a terminal. rich leaves the colours out where NO_COLOR is set."""

from __future__ import annotations

from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from skelfit.executors.report_table import ReportTable

_NEXT = "next: "  # begins a line that names the command for the next step


def draw(line: object, stream: TextIO, style: str = "") -> None:
    """Print a text or a ReportTable on a terminal. style: of the whole text; otherwise numbers and paths stand out."""
    console = Console(file=stream, force_terminal=True)
    if isinstance(line, ReportTable):
        console.print(drawn_table(line))
    elif str(line).startswith(_NEXT):
        command = Text.assemble(_NEXT, (str(line).removeprefix(_NEXT), "bold cyan"))
        console.print(command, soft_wrap=True, highlight=False)
    else:
        highlight = not (style or console.no_color)
        console.print(str(line), style=style, markup=False, emoji=False, soft_wrap=True, highlight=highlight)


def drawn_table(table: ReportTable) -> Table:
    """The table as rich draws it: names to the left, numbers to the right."""
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column, head in enumerate(table.heads):
        drawn.add_column(Text(head.strip()), justify="right" if column else "left", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn
