"""The options of where tasks run: processes of this machine, or a Dask cluster that runs already."""

from __future__ import annotations

import click

from skelfit.cli.path_types import FILE, SCHEDULER
from skelfit.cli.shared_options import FiniteRange, options_of

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
        type=FiniteRange(min=0),
        help="Minutes to wait while the cluster has no worker  [default: for ever; own processes: 1].",
    ),
)


RUN_OPTIONS = (
    click.option(
        "--writers",
        type=click.IntRange(min=0),
        help="Processes of each worker that read images and write shards; 0: a thread  [default: GPU: its cores "
        "but two, at most 32; CPU: 0].",
    ),
    *OPTIONS,
    click.option(
        "--rank",
        type=click.IntRange(min=0),
        help="Make only this rank's share of the shards, from 0 on; other processes make the others.",
    ),
    click.option("--world", type=click.IntRange(min=1), help="How many ranks there are."),
    click.option("--dashboard", is_flag=True, help="Serve Dask's dashboard on this machine; says where."),
    click.option("--performance-report", type=FILE, help="HTML file for Dask's report of all tasks."),
)


# Where the tasks of a command run.
worker_options = options_of(*OPTIONS)
# Of a run that makes shards: where, by which ranks, and how it is watched.
run_options = options_of(*RUN_OPTIONS)
