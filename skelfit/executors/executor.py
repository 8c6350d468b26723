"""Where tasks run: in this process, in processes of this machine, or on a Dask cluster that runs already."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distributed.security import Security

from skelfit.errors import ArgumentError, ClusterError
from skelfit.executors.main_guard import refuse_import_by_worker
from skelfit.storage.checked_arguments import local_path_of, local_path_or_none, number_of, whole_number

# One task -> what came of it, or a BatchJob, which an executor takes through its stages. It travels between processes.
Work = Callable[[Any], Any]


class Task(Protocol):
    """What is handed to a worker: a batch of shards to make, or a shard to verify."""

    @property
    def name(self) -> str:
        """Names it to the user."""


@dataclass(frozen=True)
class Tls:
    """The certificate files of a client, in PEM: the authority's, the client's own, and its key.

    `key` may be None when it stands in the file `cert`.
    """

    ca: Path
    cert: Path
    key: Path | None = None

    def security(self) -> Security:
        """What Dask makes of them. Raises ClusterError when they cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(self.ca)
        except (OSError, ValueError) as error:
            raise ClusterError(f"{self.ca}: expected a certificate (PEM), found: {error}") from None
        try:
            # Without an answer at hand, a key with a password would stop the run with a question.
            context.load_cert_chain(self.cert, self.key, password="")
        except (OSError, ValueError) as error:
            where = self.cert if self.key is None else f"{self.cert} and {self.key}"
            raise ClusterError(
                f"{where}: expected a certificate and its key without a password (PEM), found: {error}"
            ) from None
        key = None if self.key is None else str(self.key)
        return Security(
            require_encryption=True,
            tls_ca_file=str(self.ca),
            tls_client_cert=str(self.cert),
            tls_client_key=key,
        )


@dataclass(frozen=True)
class Executor:
    """Where tasks run.

    workers: 0 is this process, N as many processes of this machine, one per GPU with `gpus`. scheduler: the address
    or file of a Dask cluster that runs already, instead. tls: for `scheduler`; None is what Dask's own
    configuration says. patience: seconds to go on without any worker; None is for ever. dashboard: of the processes
    of this machine; a running cluster has one or not. report: file for Dask's performance report. writers: processes
    of each worker that write shards; 0 is a thread, None is what suits the worker's device.
    """

    workers: int = 0
    gpus: tuple[str, ...] = ()  # as CUDA_VISIBLE_DEVICES names them
    scheduler: str | None = None
    tls: Tls | None = None
    patience: float | None = None
    dashboard: bool = False
    report: Path | None = None
    writers: int | None = None

    @property
    def is_here(self) -> bool:
        """Whether that is this process."""
        return self.scheduler is None and self.workers == 0


THIS_PROCESS = Executor()
_MINUTES = "0 minutes or more"


def cores() -> int:
    """The cores that this process may use: a batch system gives it some of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus(count: int) -> tuple[str, ...]:
    """The names of this machine's `count` GPUs, as CUDA_VISIBLE_DEVICES has them."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(str(i) for i in range(count)) if names is None else tuple(names.split(",")[:count])


def chosen_executor(
    workers: int | None = None,
    scheduler: str | None = None,
    tls_ca: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    max_wait: float | None = None,
    gpus: Sequence[str] = (),
) -> Executor:
    """Where tasks run, by the options of a command; by default in a process of this machine for each GPU, or core.

    max_wait: minutes without any worker. Raises ArgumentError.
    """
    if workers is not None:
        workers = whole_number("workers", workers, 0)
    if max_wait is not None and not number_of("max_wait", max_wait, _MINUTES) >= 0:
        raise ArgumentError("max_wait", _MINUTES, f"{max_wait:g}")
    if scheduler is not None and workers:
        raise ArgumentError("workers", "none beside a scheduler, which has its own", str(workers))
    tls = _certificates(scheduler, tls_ca, tls_cert, tls_key)
    patience = None if max_wait is None else 60 * max_wait
    if scheduler is not None:
        return Executor(scheduler=scheduler, tls=tls, patience=patience)
    count = (len(gpus) or cores()) if workers is None else workers
    if count == 0:
        return THIS_PROCESS
    refuse_import_by_worker()
    # Our own processes are there within a minute, or never.
    return Executor(count, tuple(gpus), patience=60.0 if patience is None else patience)


def _certificates(
    scheduler: str | None, ca: str | Path | None, cert: str | Path | None, key: str | Path | None
) -> Tls | None:
    """The certificates for a scheduler. Raises ArgumentError."""
    given = {"tls_ca": ca, "tls_cert": cert, "tls_key": key}
    names = [name for name, path in given.items() if path is not None]
    if not names:
        return None
    if scheduler is None:
        raise ArgumentError(names[0], "a scheduler, whose certificate it is", "none")
    if ca is None or cert is None:
        raise ArgumentError(names[0], "tls_ca and tls_cert together", " and ".join(names))
    return Tls(
        local_path_of("tls_ca", ca), local_path_of("tls_cert", cert), local_path_or_none("tls_key", key)
    )
