"""`skelfit status`: how far a run is."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator

import click

from skelfit.cli.console import Console, pass_console
from skelfit.cli.path_types import PLACE
from skelfit.cli.shared_options import JSON_HELP
from skelfit.conversion.run_status import RankStatus, Status, read_status
from skelfit.executors.progress_bars import duration, rejections
from skelfit.executors.report_table import ReportTable, table_of_counts
from skelfit.storage.command_lines import next_command
from skelfit.storage.locations import Location

SHOWN = 8  # shards in progress that are listed


@click.command("status")
@click.argument("folder", metavar="DIR", type=PLACE)
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
@pass_console
def status_command(console: Console, folder: Location, as_json: bool) -> None:
    """How far the run in DIR is, from its files alone; it may run on another machine."""
    status = read_status(folder)
    if as_json:
        console.result(json.dumps(status.to_json(), indent=2))
        return
    console.result(f"{status.subset} in {folder}: {_state(status)}")
    for line in _details(folder, status):
        console.say(line)


def _details(folder: Location, status: Status) -> list[str | ReportTable]:
    lines: list[str | ReportTable] = []
    total = "?" if status.shards is None else status.shards
    shards = f"shards: {status.shards_done} of {total} done"
    if status.in_progress:
        shards += f", {len(status.in_progress)} {'in progress' if status.locked else 'begun'}"
    lines.append(shards)
    rows = "?" if status.rows is None else status.rows
    lines.append(f"rows: {status.rows_done} of {rows} done, {status.rows_out} people out")
    if status.statuses:
        lines.append(table_of_counts(("status", "rows"), list(status.statuses.items())))
    if status.rejected:
        lines.append(rejections(status.rejected))
    if status.people_per_second is not None:
        left = ""
        if status.seconds_left and status.state != "finished":
            left = f", {duration(status.seconds_left)} left at this speed"
        lines.append(f"speed: {status.people_per_second:.1f} people/s in the last run{left}")
    lines += _of_ranks(status)
    if status.last_activity is not None:
        lines.append(f"last activity: {duration(status.last_activity)} ago")
    for shard in status.in_progress[:SHOWN]:
        lines.append(
            f"  {shard.name}: process {shard.process} on {shard.host}, for {duration(shard.seconds)}"
        )
    if len(status.in_progress) > SHOWN:
        lines.append(f"  and {len(status.in_progress) - SHOWN} more")
    if status.state == "finished":
        lines.append(next_command("verify", folder))
    return lines


def _of_ranks(status: Status) -> Iterator[str | ReportTable]:
    """The ranks that are not finished, and what to do about them."""
    if not status.ranks:
        return
    counts = Counter(rank.state for rank in status.ranks)
    yield f"ranks: {', '.join(f'{count} {state}' for state, count in counts.items())}, of {len(status.ranks)}"
    rows = [_of_rank(rank) for rank in status.ranks if rank.state != "finished"]
    if rows:
        heads = ("rank", "state", "shards", "people/s", "process")
        lines = [
            f"  {rank:>5} {state:<12} {shards:>13} {speed:>9}   {process}"
            for rank, state, shards, speed, process in (heads, *rows[:SHOWN])
        ]
        lines += [f"  and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
        yield ReportTable(heads, tuple(rows[:SHOWN]), "\n".join(lines))


def _of_rank(rank: RankStatus) -> tuple[str, str, str, str, str]:
    speed = "-" if rank.people_per_second is None else f"{rank.people_per_second:.1f}"
    process = f"{rank.record.process}, since {rank.record.started}" if rank.record else "-"
    return str(rank.number), rank.state, f"{rank.shards_done} of {rank.shards}", speed, process


def _advice(status: Status) -> str:
    """How a run with ranks goes on."""
    if status.shards_done == status.shards:
        return "give the command of any rank again: it writes the summary"
    numbers = [str(rank.number) for rank in status.ranks if rank.state in ("dead", "not started")]
    shown = ", ".join(numbers[:SHOWN]) + (", ..." if len(numbers) > SHOWN else "")
    return f"give the command again with --rank {shown} and --world {len(status.ranks)}" if numbers else ""


def _state(status: Status) -> str:
    record = status.record
    if status.ranks and status.state != "finished":
        advice = _advice(status)
        return f"{status.state}, {len(status.ranks)} ranks{f'; {advice}' if advice else ''}"
    process = f" ({record.process}, since {record.started})" if record else ""
    if status.state == "finished":
        return "finished"
    if status.state == "running":
        return f"running{process}"
    if record and record.host != socket.gethostname():
        # Not all network file systems show the locks of other machines.
        return f"no run is seen from this machine; the last was {record.process}, since {record.started}"
    return f"stopped{process}; the same command goes on"
