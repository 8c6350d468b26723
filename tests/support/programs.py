"""Programs that start at once: forked from a process that has imported what they need.

Python, torch and Dask take seconds to start, and tests of faults start dozens of programs. These are processes like
any: each in a session of its own, with its arguments, environment, folder, signals, limits and exit code. What a fork
cannot show, how a program starts from nothing, is for tests that start a real `python`.
"""

from __future__ import annotations

import atexit
import os
import select
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from fork_client import request

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]
PATHS = os.pathsep.join([str(SUPPORT), str(ROOT)])
SERVER_VARIABLE = "SKELFIT_TESTS_SERVER"  # the socket of a server that several pytest processes share
SECONDS = 120.0  # that a program may take: test machines are busy


class Program:
    """A program that runs, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, connection: socket.socket, files: Sequence[IO[bytes]] = ()) -> None:
        self._connection, self._files = connection, files
        self._answers = connection.makefile("r")
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative after a signal; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float | None = SECONDS) -> int:
        """The exit code, when there is one; None waits for ever. Raises TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a program", timeout or 0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float = SECONDS) -> tuple[str, str]:
        """What it said, and its errors, once it has ended; not where all went to a log. Raises TimeoutExpired."""
        self.wait(timeout)
        said = []
        for file in self._files:
            file.seek(0)
            said.append(file.read().decode())
            file.close()
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        """Signal it."""
        os.kill(self.pid, number)


def start(
    *arguments: object,
    environment: Mapping[str, str | None] = {},
    folder: Path = ROOT,
    limits: Iterable[tuple[int, int]] = (),
    log: Path | None = None,
) -> Program:
    """Start `python ARGUMENTS` in a session of its own, with PYTHONPATH to skelfit and the tests, and one thread.

    environment: what differs from that, None for what is not set; limits: those of `resource`; log: where all that it
    says goes.
    """
    own = {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", SERVER_VARIABLE: server()}
    variables = {**os.environ, **own, **environment}
    asked = (
        [str(word) for word in arguments],
        {name: value for name, value in variables.items() if value is not None},
        str(folder),
    )
    with open(os.devnull, "rb") as nothing:
        if log is not None:
            with open(log, "wb") as file:
                files = [nothing.fileno(), file.fileno(), file.fileno()]
                return Program(request(server(), *asked, files, list(limits)))
        kept = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - communicate closes them
        files = [nothing.fileno(), *(file.fileno() for file in kept)]
        return Program(request(server(), *asked, files, list(limits)), kept)


def run(*arguments: object, **options: Any) -> tuple[int, str, str]:
    """Exit code, output and errors of `python ARGUMENTS`, started as by `start`."""
    program = start(*arguments, **options)
    said, errors = program.communicate()
    assert program.returncode is not None
    return program.returncode, said, errors


def address_space() -> int:
    """How many bytes of addresses a program has before it does anything."""
    code, said, errors = run("-c", "print(open('/proc/self/statm').read())")
    assert code == 0, errors
    return int(said.split()[0]) * os.sysconf("SC_PAGE_SIZE")


def shell_words(*paths: Path) -> str:
    """What stands for `python` in a shell script; paths: its PYTHONPATH."""
    words = [sys.executable, "-I", "-S", SUPPORT / "fork_client.py", server(), *paths, "--"]
    return shlex.join(map(str, words))


@cache
def server() -> str:
    """The socket of the server, which is started where there is none yet, and ends with this process."""
    if SERVER_VARIABLE in os.environ:
        return os.environ[SERVER_VARIABLE]
    folder = tempfile.mkdtemp(prefix="skelfit-tests-")
    path = os.path.join(folder, "server")
    process = subprocess.Popen(
        # Newer Pythons warn of forks beside the idle threads of libraries.
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", SUPPORT / "fork_server.py", path],
        env={**os.environ, "PYTHONPATH": PATHS},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(_end, process, folder)
    return path


def _end(process: subprocess.Popen[bytes], folder: str) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)
