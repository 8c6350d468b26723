"""What the command line says of where tasks run: processes of this machine, or a Dask cluster that runs already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from skelfit.cli.path_types import FILE, SCHEDULER
from skelfit.executors.executor import HERE, Place, Tls, cores


@dataclass(frozen=True)
class PlaceOptions:
    """Where tasks run, as far as the options say."""

    workers: int | None
    scheduler: str | None
    tls: Tls | None
    patience: float | None  # seconds

    def place(self, gpus: Sequence[str] = ()) -> Place:
        """The place; by default a process of this machine for each GPU, or else for each core."""
        if self.scheduler is not None:
            return Place(scheduler=self.scheduler, tls=self.tls, patience=self.patience)
        workers = (len(gpus) or cores()) if self.workers is None else self.workers
        # Our own processes are there within a minute, or never.
        patience = 60.0 if self.patience is None else self.patience
        return HERE if workers == 0 else Place(workers, tuple(gpus), patience=patience)


def place_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of where its tasks run; it gets them as `place_options`."""

    @click.option(
        "--workers",
        type=click.IntRange(min=0),
        help="Processes on this machine  [default: one per GPU, or else per core]; 0: no other than this.",
    )
    @click.option(
        "--scheduler",
        type=SCHEDULER,
        help="In place of them: address or scheduler file of a running Dask cluster.",
    )
    @click.option("--tls-ca", type=FILE, help="For --scheduler: the certificate authority of the cluster,")
    @click.option("--tls-cert", type=FILE, help="a certificate signed by it,")
    @click.option("--tls-key", type=FILE, help="and its key, where it is not in the same file.")
    @click.option(
        "--max-wait",
        type=click.FloatRange(min=0),
        help="Minutes to wait while the cluster has no worker  [default: for ever; own processes: 1].",
    )
    @wraps(command)
    def with_options(
        workers: int | None,
        scheduler: str | None,
        tls_ca: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        max_wait: float | None,
        **others: Any,
    ) -> None:
        if scheduler is not None and workers:
            raise click.UsageError(
                "--workers starts processes here, --scheduler uses others: give one of them"
            )
        tls = _tls(scheduler, tls_ca, tls_cert, tls_key)
        patience = None if max_wait is None else 60 * max_wait
        command(place_options=PlaceOptions(workers, scheduler, tls, patience), **others)

    return with_options


def _tls(scheduler: str | None, ca: Path | None, cert: Path | None, key: Path | None) -> Tls | None:
    """The certificates of the options."""
    if (ca, cert, key) == (None, None, None):
        return None
    if scheduler is None:
        raise click.UsageError("certificates are for a running cluster: give --scheduler ADDRESS-OR-FILE")
    if ca is None or cert is None:
        raise click.UsageError("give --tls-ca and --tls-cert together")
    return Tls(ca, cert, key)
