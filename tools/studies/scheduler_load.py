"""What Dask's scheduler, the client and the merge cost as shards and workers become many: pretended workers.

The scheduler, the client's way through a conversion and the markers are the real ones (`pretended_workers`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from skelfit.api.run_shards import convert_run
from skelfit.benchmark.text_table import table
from skelfit.config.manifest import LabelSource
from skelfit.conversion.run_plan import LabelFile, Run, plan_shards, unfinished_shards
from skelfit.conversion.shard_batch import cut_batches
from skelfit.executors.executor import Executor
from skelfit.executors.progress_bars import Reporter
from skelfit.labels.demo_people import write_demo
from skelfit.labels.label_store import build_store, store_info
from tools.studies.pretended_workers import (
    KINDS_FOLDER,
    Role,
    cpu_seconds,
    pretend,
    role,
    run_scheduler,
    run_workers,
    split,
    write_kinds,
)
from tools.studies.setup import SEED, Setup, Study

_ROWS = 1000  # of a shard
_WORKERS, _MANY_WORKERS = 200, 1000
_KINDS = 200  # different sidecars
_SAMPLE_SECONDS = 0.2


@dataclass(frozen=True)
class Load:
    """How much is simulated."""

    shards: int
    workers: int = _WORKERS
    batch_shards: int = 1  # that a task has
    seconds_per_shard: float = 2.0  # which a worker sleeps, on average
    deaths_per_second: float = 1.0  # of all workers
    idle_seconds: float = 8.0  # in which the cost of workers without work is measured


def loads(rows: int) -> list[Load]:
    """A tenth, a third and all of the rows; then a third in larger tasks."""
    shards = max(1, rows // _ROWS)
    tenth, third = max(1, shards // 10), max(1, shards // 3)
    return [Load(tenth), Load(third), Load(shards), Load(third, batch_shards=4)]


def loads_of_many(rows: int) -> list[Load]:
    """All of the rows, on many workers. They share one machine here, which has to be quiet for it."""
    return [Load(max(1, rows // _ROWS), workers=_MANY_WORKERS)]


def run(choose: Callable[[int], list[Load]], setup: Setup) -> list[dict[str, Any]]:
    """The figures of each load."""
    records = []
    for load in choose(setup.people):
        setup.say(f"{load.shards} shards on {load.workers} workers, {load.batch_shards} in a task")
        records.append(simulate(setup, load))
    return records


def simulate(setup: Setup, load: Load, kinds: int = _KINDS) -> dict[str, Any]:
    """Scheduler, workers and client, each in processes of their own; what they cost."""
    with tempfile.TemporaryDirectory(prefix="skelfit-load-") as folder, ExitStack() as stack:
        run = _made_run(setup, Path(folder), load.shards, kinds)
        client = stack.enter_context(role(run_client, run, load, kinds, patience=10.0))
        with ExitStack() as cluster:
            scheduler = cluster.enter_context(role(run_scheduler))
            address, own = scheduler.pipe.recv(), str(Path(folder) / "workers")
            flocks = [cluster.enter_context(role(run_workers, address, n, own)) for n in split(load.workers)]
            for flock in flocks:
                flock.pipe.recv()
            idle = _idle(scheduler, load.idle_seconds)
            for flock in flocks:
                flock.pipe.send(len(flocks) / load.deaths_per_second)
            figures = _watched(client, address, scheduler, idle)
            for flock in flocks:
                flock.pipe.send("end")
            figures["deaths"] = sum(flock.pipe.recv() for flock in flocks)
            merged, most = _until_merged(client)
            figures |= merged | {"client_mib_most": most}
        client.pipe.send("check")
        checked: dict[str, Any] = client.pipe.recv()
    return asdict(load) | figures | checked


def _made_run(setup: Setup, folder: Path, shards: int, kinds: int) -> Run:
    """A run of so many shards. Its label store has two rows, which nothing reads."""
    labels = write_demo(folder / "people", 2, SEED, images=False, models=setup.models)
    store = build_store(LabelSource(labels.name, "camerahmr"), labels, folder / "stores")
    write_kinds(folder / KINDS_FOLDER, kinds, _ROWS, SEED)
    (folder / "out").mkdir()
    (folder / "workers").mkdir()
    rows, sha256 = shards * _ROWS, store_info(store).sha256
    file = LabelFile(str(store), labels.name, sha256, rows, "camerahmr", "neutral", "none")
    return Run(
        "made", str(folder / "out"), None, None, setup.models.sha256, setup.pipeline, "cpu", labels=(file,)
    )


def _idle(scheduler: Role, seconds: float) -> float:
    """The share of a core that the scheduler uses for its workers without work."""
    before = scheduler.cpu_seconds()
    time.sleep(seconds)
    return (scheduler.cpu_seconds() - before) / seconds


def _watched(client: Role, address: str, scheduler: Role, idle: float) -> dict[str, Any]:
    """Let the client convert, and note what it and the scheduler use until the last shard is done."""
    used, began = scheduler.cpu_seconds(), time.monotonic()
    client.pipe.send(address)
    samples, most = [client.mib()], 0.0
    while not client.pipe.poll(_SAMPLE_SECONDS):
        samples.append(client.mib())
        most = max(most, scheduler.mib())
    tasks = client.pipe.recv()
    used, seconds = scheduler.cpu_seconds() - used, time.monotonic() - began
    return {
        "tasks": tasks,
        "tasks_seconds": seconds,
        "scheduler_cpu_seconds": used,
        "scheduler_idle_share": idle,
        "scheduler_cpu_ms_per_task": 1000 * (used - idle * seconds) / tasks,
        "scheduler_mib": most,
        "client_mib_quarters": [float(max(part)) for part in np.array_split(samples, 4) if len(part)],
    }


def _until_merged(client: Role) -> tuple[dict[str, Any], float]:
    """What the client sends at its end, and its largest memory meanwhile."""
    most = client.mib()
    while not client.pipe.poll(_SAMPLE_SECONDS):
        most = max(most, client.mib())
    return client.pipe.recv(), most


def run_client(pipe: Connection, run: Run, load: Load, kinds: int) -> None:
    """Convert as `skelfit convert --scheduler` does. When it is asked to, check what is finished, as a rerun does."""
    executor, work = Executor(scheduler=pipe.recv()), partial(pretend, load.seconds_per_shard, kinds)
    rows, process = load.batch_shards * _ROWS, psutil.Process()
    tasks, last = len(cut_batches(plan_shards(run), rows)), [0.0, 0.0]

    def count(done: int, total: int) -> None:
        if done == total:  # the merge begins
            last[:] = time.monotonic(), cpu_seconds(process)
            pipe.send(tasks)

    used = cpu_seconds(process)
    summary = convert_run(run, executor, work=work, reporter=Reporter(progress=count), fit_batch=rows)
    if summary["rows_in"] != load.shards * _ROWS:
        raise ValueError(f"expected {load.shards * _ROWS} rows, found {summary['rows_in']}")
    figures = {
        "client_cpu_ms_per_shard": 1000 * (last[1] - used) / load.shards,
        "merge_seconds": time.monotonic() - last[0],
        "merge_cpu_seconds": cpu_seconds(process) - last[1],
    }
    pipe.send(figures)
    pipe.recv()
    used = cpu_seconds(process)
    if unfinished := unfinished_shards(run, plan_shards(run)):
        raise ValueError(f"expected no unfinished shards, found {len(unfinished)}")
    pipe.send({"check_cpu_seconds": cpu_seconds(process) - used})


def text(records: list[dict[str, Any]]) -> list[str]:
    """Two rows per load: of the scheduler, and of the client."""
    heads: tuple[str, ...] = ("shards", "workers", "tasks", "deaths", "s", "idle share of a core")
    heads += ("CPU s", "ms of a task", "MiB")
    schedulers = [
        (r["shards"], r["workers"], r["tasks"], r["deaths"], f"{r['tasks_seconds']:.1f}")
        + (f"{r['scheduler_idle_share']:.1%}", f"{r['scheduler_cpu_seconds']:.1f}")
        + (f"{r['scheduler_cpu_ms_per_task']:.2f}", f"{r['scheduler_mib']:.0f}")
        for r in records
    ]
    clients = [
        (r["shards"], r["workers"], r["tasks"], f"{r['client_cpu_ms_per_shard']:.2f}")
        + (", ".join(f"{mib:.0f}" for mib in r["client_mib_quarters"]), f"{r['merge_cpu_seconds']:.1f}")
        + (f"{r['client_mib_most']:.0f}", f"{r['check_cpu_seconds']:.1f}")
        for r in records
    ]
    client_heads: tuple[str, ...] = ("shards", "workers", "tasks", "ms of a shard", "MiB by quarters")
    client_heads += ("merge s", "MiB with the merge", "check when begun again, s")
    return ["scheduler", *table(heads, schedulers), "", "client", *table(client_heads, clients)]


STUDY = Study(
    "what Dask's scheduler, the client and the summary cost with many shards and workers",
    3_000_000,
    (),
    partial(run, loads),
    text,
)
MANY_WORKERS = Study(
    "the same with 1,000 workers, on a quiet machine",
    1_000_000,
    (),
    partial(run, loads_of_many),
    text,
)
