"""Processes that multiprocessing spawns, Dask's workers among them, forked from the server of `programs`.

A spawned process imports torch, Dask and skelfit, which takes seconds of a core, and these tests start dozens of
workers. Descriptors, environment, signals and exit codes are as ever, and a worker must notice by itself that its
parent has died. What differs: its parent, as the system sees it, is the server.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from multiprocessing import popen_spawn_posix, resource_tracker, util
from multiprocessing.process import BaseProcess

import programs
from fork_client import request

# The environment of a program that spawns as ever, so that its processes are its children.
REAL = {"SKELFIT_TESTS_SPAWN": "real"}


def fork_spawned() -> None:
    """From now on, what this process spawns is forked from the server; not with the environment REAL."""
    if REAL.items() <= os.environ.items():
        return
    popen_spawn_posix.Popen = ForkedPopen  # type: ignore[assignment, misc]


class ForkedPopen(popen_spawn_posix.Popen):
    """In place of multiprocessing's own class, which can wait only for children."""

    _program: programs.Program

    def __init__(self, process: BaseProcess) -> None:
        self._asking = threading.Lock()  # one thread waits for the end, others ask for it
        super().__init__(process)

    def _launch(self, process: BaseProcess) -> None:
        # The first launch would start the tracker of resources, too, and take it for the program.
        resource_tracker.ensure_running()
        own = util.spawnv_passfds
        with _LAUNCHING:
            util.spawnv_passfds = self._fork  # type: ignore[assignment]
            try:
                super()._launch(process)  # type: ignore[misc]
            finally:
                util.spawnv_passfds = own

    def _fork(self, path: bytes, words: Sequence[object], descriptors: Sequence[int]) -> int:
        command = [os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in words]
        server = programs.server()
        self._program = programs.Program(
            request(
                server,
                command[command.index("-c") :],
                {**os.environ, programs.SERVER_VARIABLE: server},
                os.getcwd(),
                [0, 1, 2, *sorted(descriptors)],
                outlives=True,
            )
        )
        return self._program.pid

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit code, negative after a signal; None while it runs. Without WNOHANG it waits."""
        if self.returncode is None and self._asking.acquire(blocking=not flag):
            try:
                if self.returncode is None:
                    self.returncode = self._program.poll() if flag else self._program.wait(None)
            finally:
                self._asking.release()
        return self.returncode


_LAUNCHING = threading.Lock()
