"""A real Dask scheduler, and workers that pretend: their fit sleeps, their tars are empty, their sidecars are copies.

Dozens of workers live in one process. Some of them die without a word, time and again, and others come in their place.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
from distributed import Scheduler, Worker

from skelfit.config.identity import mapping_hash
from skelfit.conversion.run_plan import ShardTask
from skelfit.conversion.shard_batch import ShardBatch
from skelfit.conversion.shard_outcome import ShardResult
from skelfit.conversion.shard_task import announce, finished_marker, withdraw
from skelfit.conversion.stopwatch import Stopwatch
from skelfit.executors.dask_connection import CONNECTION
from skelfit.executors.worker_processes import SETTINGS
from skelfit.shards.content_seal import sealed
from skelfit.shards.shard_schema import ShardMarker, ShardRow
from skelfit.storage.hashed_write import FileRecord, write_atomically, write_json
from skelfit.storage.locations import address_of

KINDS_FOLDER = "kinds"  # beside the folder of the shards
_PROCESSES = 4  # that hold the workers
# Of the workers, which share a machine here; on a cluster each has its own. The scheduler has what it always has.
_WORKER_SETTINGS = CONNECTION | {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "60s",
    "distributed.admin.tick.interval": "5s",
}


@dataclass(frozen=True)
class Role:
    """A process of the simulation, and the pipe to it."""

    process: psutil.Process
    pipe: Connection

    def cpu_seconds(self) -> float:
        """What the process has used of a core."""
        return cpu_seconds(self.process)

    def mib(self) -> float:
        """The memory of the process that is not swapped out."""
        return float(self.process.memory_info().rss / 2**20)


def cpu_seconds(process: psutil.Process) -> float:
    """What a process has used of a core."""
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def role(target: Callable[..., None], *args: object, patience: float = 0.0) -> Iterator[Role]:
    """A process of its own that runs `target` with one end of a pipe.

    It is killed at the end of the block, unless it ends by itself within a patience of some seconds.
    """
    # Forks of this process would begin with its threads and memory.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *args), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Role(psutil.Process(process.pid), ours)
    finally:
        process.join(patience)
        process.kill()
        process.join()


def run_scheduler(pipe: Connection) -> None:
    """Be a scheduler, as skelfit sets it up; sends its address."""

    async def serve() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0") as s:
            pipe.send(s.address)
            await asyncio.Event().wait()

    _keep_quiet()
    with dask.config.set(SETTINGS):
        asyncio.run(serve())


def _keep_quiet() -> None:
    """Dask says each worker that comes and goes."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


def split(workers: int) -> list[int]:
    """How many workers each process holds."""
    shares = [workers // _PROCESSES + (i < workers % _PROCESSES) for i in range(_PROCESSES)]
    return [share for share in shares if share]


def run_workers(pipe: Connection, scheduler: str, count: int, folder: str) -> None:
    """Be some workers; sends a word when they are connected. See `Flock` for what it takes then."""
    _keep_quiet()
    with dask.config.set(_WORKER_SETTINGS):
        asyncio.run(Flock(pipe, scheduler, folder).live(count))


class Flock:
    """The workers of a process. A number on the pipe starts the deaths, so many seconds apart on average; the next word
    ends them, and is answered by their count.
    """

    def __init__(self, pipe: Connection, scheduler: str, folder: str) -> None:
        self.pipe, self.scheduler, self.folder = pipe, scheduler, folder
        self.workers: list[Worker] = []
        self.chosen = random.Random(os.getpid())

    async def live(self, count: int) -> None:
        """Start, and die now and then."""
        for start in range(0, count, 10):
            born = [self._born() for _ in range(min(10, count - start))]
            self.workers += await asyncio.gather(*born)
        self.pipe.send("connected")
        pause = await self._received()
        deaths, word = 0, asyncio.create_task(self._received())
        while not word.done():
            await asyncio.wait([word], timeout=self.chosen.expovariate(1 / pause))
            if not word.done():
                await self._die()
                deaths += 1
        self.pipe.send(deaths)
        await asyncio.Event().wait()

    async def _received(self) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, self.pipe.recv)

    async def _born(self) -> Worker:
        """A worker of one thread, as `dask worker --nthreads 1` has it."""
        return await Worker(
            self.scheduler,
            nthreads=1,
            host="127.0.0.1",
            dashboard=False,
            memory_limit=0,
            local_directory=self.folder,
        )

    async def _die(self) -> None:
        """A worker's connections break, as when its machine is lost; another one comes."""
        worker = self.workers.pop(self.chosen.randrange(len(self.workers)))
        stream = worker.batched_stream
        if stream is not None and stream.comm is not None:
            stream.comm.abort()
        self.workers.append(await self._born())


def write_kinds(folder: Path, kinds: int, rows: int, seed: int) -> None:
    """Different sidecars of a shard, with errors much as the demo's people have them, and their records."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for kind in range(kinds):
        lines = []
        for row, pve in enumerate(rng.gamma(9.0, 1.0, rows).round(4).tolist()):
            stages = {
                "lower_body": round(2.5 * pve, 4),
                "upper_body": round(1.1 * pve, 4),
                "full": pve,
            }
            betas = {"transferred": round(pve + 2, 4), "refined": round(pve + 1, 4)}
            line = ShardRow(f"made-0-{row:08d}", row, "ok", "", pve, 3 * pve, stages, "male", betas, 0, None)
            lines.append(json.dumps(vars(line)) + "\n")
        record = write_atomically(folder / f"{kind}.jsonl", partial(_write_text, "".join(lines)))
        write_json(folder / f"{kind}.json", asdict(record))


def _write_text(text: str, stream: io.RawIOBase) -> None:
    stream.write(text.encode())


def pretend(seconds: float, kinds: int, batch: ShardBatch) -> list[ShardResult]:
    """For each shard sleep in place of a fit, then link one of the sidecars and write the real marker."""
    return [_pretend(seconds, kinds, task) for task in batch.tasks]


def _pretend(seconds: float, kinds: int, task: ShardTask) -> ShardResult:
    stopwatch, began, chosen = Stopwatch(), time.time(), random.Random(task.name)
    marker = finished_marker(task)  # of a worker that was lost, perhaps
    if marker is None:
        announce(task.files)
        with stopwatch.phase("fit"):
            time.sleep(seconds * chosen.uniform(0.5, 1.5))
        with stopwatch.phase("writing"):
            marker = _write(task, chosen.randrange(kinds))
    withdraw(task.files)
    result = ShardResult.of(marker, stopwatch.seconds, 1, (began, time.time()))
    # A worker has one thread, and is one of many in this process.
    return replace(result, process=f"{result.process} {threading.get_ident()}")


def _write(task: ShardTask, kind: int) -> ShardMarker:
    files, rows, identity = task.files, task.stop - task.start, task.run.identity()
    sidecar = files.folder.parent / KINDS_FOLDER / f"{kind}.jsonl"
    files.sidecar.unlink(missing_ok=True)
    os.link(address_of(sidecar), address_of(files.sidecar))
    marker = ShardMarker(
        name=task.name,
        start=task.start,
        stop=task.stop,
        rows_in=rows,
        rows_out=rows,
        statuses={"ok": rows},
        rejected={},
        tar=write_atomically(files.tar, lambda stream: stream.write(b"")),
        sidecar=FileRecord(**json.loads(sidecar.with_suffix(".json").read_text())),
        identity_sha256=mapping_hash(identity),
        identity=identity,
    )
    write_json(files.marker, sealed(asdict(marker)))
    return marker
