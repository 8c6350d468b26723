"""A scheduler and workers as one starts them by hand, and certificates for them; also the work of the tests.

The functions are at the top of a module because workers import them by name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import programs
import torch
import trustme
from job_fakes import FakeFitter, work
from programs import Program

import skelfit.conversion.shard_output
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.batch_job import BatchJob
from skelfit.conversion.run_plan import plan_shards
from skelfit.conversion.shard_batch import ShardBatch
from skelfit.executors.executor import Tls
from skelfit.shards.shard_writer import write_shard


@dataclass
class ByHand:
    """Processes of Dask's own programs, with their scheduler file in a folder."""

    folder: Path
    tls: Tls | None = None
    processes: dict[str, Program] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """The scheduler file."""
        return self.folder / "scheduler.json"

    def start(self, name: str, *arguments: str, environment: Mapping[str, str] = {}) -> None:
        """Start `dask ARGUMENTS`; its log is NAME.log in the folder."""
        command = ["-m", "dask", *arguments, "--scheduler-file", str(self.file)]
        if self.tls is not None:
            command += ["--tls-ca-file", str(self.tls.ca), "--tls-cert", str(self.tls.cert)]
            command += ["--tls-key", str(self.tls.key)]
        self.processes[name] = programs.start(
            *command,
            environment={"OMP_NUM_THREADS": None, **environment},
            folder=self.folder,
            log=self.folder / f"{name}.log",
        )

    def scheduler(self, **environment: str) -> None:
        """Start the scheduler."""
        protocol = ["--protocol", "tls"] if self.tls is not None else []
        arguments = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", *protocol]
        self.start("scheduler", "scheduler", *arguments, environment=environment)

    def worker(self, name: str, **environment: str) -> None:
        """Start a worker: one process, without the nanny that would start it again."""
        arguments = ["--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", "--no-nanny"]
        self.start(name, "worker", *arguments, environment=environment)

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """Signal a program and its children, and wait for its end."""
        process = self.processes.pop(name)
        os.killpg(process.pid, number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def by_hand(folder: Path, tls: Tls | None = None) -> Iterator[ByHand]:
    """What is started in the block ends with it."""
    cluster = ByHand(folder, tls)
    try:
        yield cluster
    finally:
        for name in list(cluster.processes)[::-1]:
            cluster.stop(name, signal.SIGKILL)


def certificates(folder: Path) -> Tls:
    """A new authority, and a certificate of it."""
    folder.mkdir(parents=True)
    tls = Tls(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(tls.ca))
    leaf.cert_chain_pems[0].write_to_path(str(tls.cert))
    assert tls.key is not None
    leaf.private_key_pem.write_to_path(str(tls.key))
    return tls


def wait_until(what: Callable[[], bool], seconds: float = 120) -> None:
    """Wait until something is so; fail when it is not so in time."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def note(batch: ShardBatch, text: str) -> None:
    """Append a line to the file `notes` beside the output folder."""
    with open(Path(batch.run.out).parent / "notes", "a") as file:
        file.write(text + "\n")


def notes(folder: Path) -> list[str]:
    """The lines that workers noted of a run that was made in a folder."""
    path = folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


@lru_cache(maxsize=1)
def _loaded(folder: str) -> FakeFitter:
    with open(Path(folder) / "notes", "a") as file:
        file.write(f"loaded {os.getpid()}\n")
    time.sleep(0.2)  # long enough for another thread to begin as well
    return FakeFitter(0.1)


def noting_work(batch: ShardBatch) -> BatchJob:
    """Notes the process, its threads and which GPUs it may see; slow enough to be watched."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    note(batch, f"{batch.name} {os.getpid()} {torch.get_num_threads()} {gpus}")
    return convert_batch(batch, _loaded(str(Path(batch.run.out).parent)))


def waiting_work(batch: ShardBatch) -> BatchJob:
    """The same, but after some shards it waits until there are two workers."""
    folder = Path(batch.run.out).parent
    # Before the shard is begun: while one is written, the worker begins its next.
    note(batch, f"waiting {os.getpid()}")
    if len(notes(folder)) > 9:
        wait_until(lambda: len({line.split()[1] for line in notes(folder)}) > 1)
    return noting_work(batch)


def slow_work(batch: ShardBatch) -> BatchJob:
    """Takes a third of a second."""
    note(batch, f"{batch.name} {os.getpid()}")
    time.sleep(0.3)
    return work(batch)


def flaky_work(batch: ShardBatch) -> BatchJob:
    """Fails twice on each shard, then does it."""
    note(batch, batch.name)
    if notes(Path(batch.run.out).parent).count(batch.name) <= 2:
        raise OSError("the network is away")
    return work(batch)


def deadly_work(batch: ShardBatch) -> BatchJob:
    """Ends its worker on the second shard."""
    note(batch, batch.name)
    if batch.name == "fake-000001":
        os._exit(1)
    return work(batch)


def interrupted_workers_work(batch: ShardBatch) -> BatchJob:
    """Ends its worker the first time that it has the second shard."""
    note(batch, batch.name)
    if batch.name == "fake-000001" and notes(Path(batch.run.out).parent).count(batch.name) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return work(batch)


class _NotingFitter(FakeFitter):
    """Says when a fit begins and ends."""

    def __init__(self, batch: ShardBatch) -> None:
        super().__init__()
        self.batch = batch

    def fit(self, *args: Any) -> Any:
        note(self.batch, "fit begins")
        found = super().fit(*args)
        note(self.batch, "fit ends")
        return found


def slowly_written_work(batch: ShardBatch) -> BatchJob:
    """Notes what begins and ends; a write takes until the next shard is fitted. For worker processes only."""
    folder = Path(batch.run.out).parent

    def slow_write(*args: Any) -> Any:
        note(batch, "write begins")
        fits = min(notes(folder).count("write ends") + 3, len(plan_shards(batch.run)))
        wait_until(lambda: notes(folder).count("fit ends") >= fits, seconds=60)
        time.sleep(0.2)  # the shard after that would begin now, if it did not wait
        marker = write_shard(*args)
        note(batch, "write ends")
        return marker

    vars(skelfit.conversion.shard_output)["write_shard"] = slow_write
    return convert_batch(batch, _NotingFitter(batch))
