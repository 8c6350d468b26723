"""The connection to a Dask cluster that runs already: every way to fail is one message, within a bounded time."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client
from distributed.security import Security

from skelfit import __version__
from skelfit.errors import ClusterError
from skelfit.executors.executor import Tls

CONNECT_SECONDS = 30.0
# Dask's own values are 30 s. The scheduler of a thousand workers, on a busy machine, may read nothing for longer; the
# system then ends the connection, and with it the client's tasks.
CONNECTION = {"distributed.comm.timeouts.tcp": "5 minutes", "distributed.comm.timeouts.connect": "2 minutes"}
_POLL_SECONDS = 0.1


@contextmanager
def running_client(scheduler: str, tls: Tls | None) -> Iterator[Client]:
    """A client of the scheduler at an address, or of a scheduler file. Raises ClusterError."""
    deadline = time.monotonic() + CONNECT_SECONDS
    given = _is_address(scheduler)
    address, security = _secured(scheduler if given else _read_file(Path(scheduler), deadline), tls)
    where = address if given else f"{address} (of {scheduler})"
    with dask.config.set(CONNECTION):
        try:
            client = Client(address, timeout=max(1.0, deadline - time.monotonic()), security=security)
        # Dask has a dozen kinds of errors here: of sockets, of TLS, of names, of versions.
        except Exception as error:
            raise ClusterError(
                f"{where}: expected a Dask scheduler, found none that answers: {_said(error)}. {_advice(address)}"
            ) from error
        with client:
            _check_versions(client, where)
            yield client


def _is_address(scheduler: str) -> bool:
    """Whether it is host:port or protocol://...; else it is a file."""
    return "://" in scheduler or (not Path(scheduler).exists() and scheduler.rpartition(":")[2].isdigit())


def _read_file(path: Path, deadline: float) -> str:
    """The address in a scheduler file; waits for the file, as Dask's own programs do."""
    while True:
        try:
            address = json.loads(path.read_text("utf-8"))["address"]
        except FileNotFoundError:
            problem = "no such file"
        except json.JSONDecodeError:
            # The scheduler may be about to write it.
            problem = "no JSON"
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            return str(address)
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{path}: expected the file of a Dask scheduler (dask scheduler --scheduler-file {path}), or an "
                f"address like tcp://127.0.0.1:8786, found {problem} for {CONNECT_SECONDS:g} s"
            )
        time.sleep(_POLL_SECONDS)


def _secured(address: str, tls: Tls | None) -> tuple[str, Security]:
    """The address with its protocol, and the certificates to go there with."""
    security = Security() if tls is None else tls.security()
    if "://" not in address:
        address = f"{'tcp' if tls is None else 'tls'}://{address}"
    protocol = address.partition("://")[0]
    if tls is not None and protocol != "tls":
        raise ClusterError(
            f"{address}: certificates were given, which need a scheduler at a tls:// address: "
            "dask scheduler --protocol tls --tls-ca-file FILE --tls-cert FILE --tls-key FILE"
        )
    if protocol == "tls" and not all(
        security.get_tls_config_for_role("client")[name] for name in ("ca_file", "cert")
    ):
        raise ClusterError(
            f"{address}: expected certificates, found none; "
            "give --tls-ca, --tls-cert and --tls-key, the files that its scheduler was started with"
        )
    return address, security


def _said(error: BaseException) -> str:
    """What went wrong at the root of it."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(cause) or str(error) or type(cause).__name__
    return " ".join(text.split()).rstrip(".")


def _advice(address: str) -> str:
    if address.startswith("tls:"):
        return "Is it running, and were its certificates signed by the authority of --tls-ca?"
    return "Is it running, can this machine reach it, and is it without TLS?"


def _check_versions(client: Client, where: str) -> None:
    """Everyone must run this version of skelfit; workers that join later are checked by their tasks."""

    # Defined here to travel by value: there may be no skelfit at the other end.
    def version() -> str | None:
        try:
            return str(importlib.import_module("skelfit").__version__)
        except ImportError:
            return None

    try:
        versions = {f"the scheduler at {where}": client.run_on_scheduler(version)}
        workers = client.run(version, on_error="ignore")
    # What another version of Python makes of the function is anyone's guess.
    except Exception as error:
        raise ClusterError(f"{where}: does not tell which skelfit it runs: {_said(error)}") from error
    versions |= {f"the worker at {address}": running for address, running in workers.items()}
    for process, running in versions.items():
        if running != __version__:
            raise ClusterError(
                f"{process}: expected skelfit {__version__}, as here, "
                f"found {running or 'none'}; start it from the environment of this command"
            )
