"""Imports what programs need, and forks one for each request: `fork_server.py SOCKET`; see `programs`.

It has one thread, so that a fork copies no lock that somebody holds. It ends when its input ends.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any

import compile_lock
import torch
from spawned import fork_spawned

IMPORTED = (
    "distributed.cli.dask_scheduler",
    "distributed.cli.dask_worker",
    "distributed.dashboard.scheduler",
    "skelfit.cli.convert",
    "skelfit.executors.progress_bars",
    "skelfit.cli.train",
    "skelfit.executors",
    "skelfit.conversion.shard_task",
    "skelfit.labels.demo_people",
    "skelfit.learning.training.training_loop",
    "dask_jobqueue",
    "skelfit.cli.training_curve",
    "skelfit.fitting.fitter",
    "torch.distributed.run",
    "torch.utils.tensorboard",
)


class Server:
    """The programs that run, and who asked for them."""

    def __init__(self, path: str) -> None:
        self.askers: dict[int, socket.socket] = {}  # by process
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self.wake, wakened = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(wakened, False)
        signal.set_wakeup_fd(wakened)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest, which ends us
        for what in (self.listener, self.wake, 0):
            self.selector.register(what, selectors.EVENT_READ)

    def run(self) -> None:
        """Until the input ends."""
        while True:
            for key, _ in self.selector.select():
                if key.fd == 0:
                    return
                if key.fd == self.wake:
                    os.read(self.wake, 4096)
                    self.reap()
                elif key.fileobj is self.listener:
                    self.begin(self.listener.accept()[0])
                else:  # the asker has been killed
                    process, outlives = key.data
                    if not outlives:
                        end(process)
                    self.selector.unregister(key.fileobj)

    def begin(self, asker: socket.socket) -> None:
        """Fork a program."""
        line, files, *_ = socket.recv_fds(asker, 1, 64)
        while not line.endswith(b"\n"):
            line += asker.recv(1 << 16)
        asked = json.loads(line)
        process = os.fork()
        if process == 0:
            self.selector.close()
            self.listener.close()
            for other in (asker, *self.askers.values()):
                other.close()
            become(asked, files)
        for file in files:
            os.close(file)
        self.askers[process] = asker
        self.selector.register(asker, selectors.EVENT_READ, (process, asked["outlives"]))
        asker.sendall(f"{process}\n".encode())

    def reap(self) -> None:
        """Say how programs have ended."""
        while self.askers:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            asker = self.askers.pop(process)
            with suppress(KeyError):
                self.selector.unregister(asker)
            with suppress(OSError):
                asker.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            asker.close()


def end(process: int) -> None:
    """Kill a program and what belongs to its session."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
        os.killpg(process, signal.SIGKILL)


def become(asked: dict[str, Any], files: list[int]) -> None:
    """Run a program in this process, and end it."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number, handler in (
            (signal.SIGCHLD, signal.SIG_DFL),
            (signal.SIGINT, signal.default_int_handler),
        ):
            signal.signal(number, handler)
        high = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 1000) for file in files]  # out of the way
        for file in files:
            os.close(file)
        for into, file in zip(asked["numbers"], high, strict=True):
            os.dup2(file, into)
            os.close(file)
        os.environ.clear()
        os.environ.update(asked["environment"])
        fork_spawned()
        os.chdir(asked["folder"])
        if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
            torch.set_num_threads(int(threads))  # which has read it already
        for name, value in asked["limits"]:
            resource.setrlimit(name, (value, value))
        code = run(asked["arguments"])
    finally:
        os._exit(code)


def run(arguments: list[str]) -> int:
    """What `python` does with its arguments; the exit code."""
    code = 0
    try:
        start(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # wait for its threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def start(arguments: list[str]) -> None:
    kind, *rest = arguments
    if kind == "-m":
        sys.argv = rest
        sys.path.insert(0, os.getcwd())
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.path.insert(0, "")
        exec(rest[0], {"__name__": "__main__"})
    else:
        sys.argv = arguments
        sys.path.insert(0, os.path.dirname(os.path.abspath(kind)))
        runpy.run_path(kind, run_name="__main__")


def main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    compile_lock.compile_once()
    gc.freeze()
    server = Server(sys.argv[1])
    server.run()
    for process in server.askers:
        end(process)


if __name__ == "__main__":
    main()
