"""The options of where tasks run: processes of this machine, or a Dask cluster that runs already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from skelfit.cli.path_types import FILE, SCHEDULER

workers_option = click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes on this machine  [default: one per GPU, or else per core]; 0: no other than this.",
)
OPTIONS = (
    workers_option,
    click.option(
        "--scheduler",
        type=SCHEDULER,
        help="Instead of --workers: address or scheduler file of a running Dask cluster.",
    ),
    click.option("--tls-ca", type=FILE, help="For --scheduler: the certificate authority of the cluster,"),
    click.option("--tls-cert", type=FILE, help="a certificate signed by it,"),
    click.option("--tls-key", type=FILE, help="and its key, where it is not in the same file."),
    click.option(
        "--max-wait",
        type=click.FloatRange(min=0),
        help="Minutes to wait while the cluster has no worker  [default: for ever; own processes: 1].",
    ),
)


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of where its tasks run."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
