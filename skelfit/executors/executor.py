"""Where a run takes place: in this process, in processes of this machine, or on a Dask cluster that runs already."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from distributed.security import Security

from skelfit.errors import ClusterError


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
class Place:
    """Where tasks run.

    workers: 0 is this process, N as many processes of this machine, one per GPU with `gpus`. scheduler: the address
    or file of a Dask cluster that runs already, in place of them. tls: for `scheduler`; None is what Dask's own
    configuration says. patience: seconds to go on without any worker; None is for ever. dashboard: of the processes
    of this machine; a running cluster has one or not. report: file for Dask's performance report.
    """

    workers: int = 0
    gpus: tuple[str, ...] = ()  # as CUDA_VISIBLE_DEVICES names them
    scheduler: str | None = None
    tls: Tls | None = None
    patience: float | None = None
    dashboard: bool = False
    report: Path | None = None


HERE = Place()


def cores() -> int:
    """The cores that this process may use: a batch system gives it some of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus(count: int) -> tuple[str, ...]:
    """The names of this machine's `count` GPUs, as CUDA_VISIBLE_DEVICES has them."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(str(i) for i in range(count)) if names is None else tuple(names.split(",")[:count])
