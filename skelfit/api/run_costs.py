"""What a run costs: hours, cores, memory, and what bounds it. All of it is reckoned from measured rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from skelfit.executors.worker_line import READERS

# What one process does alone, of a row: a line of a sidecar is read again for the summary (docs/benchmarks.md).
MERGE_MS = 0.03
# Bytes of a worker: Python, torch, the kernels, the models and their tables, as one run had them; and of each row that
# it holds, which is a guess.
WORKER_BYTES, ROW_BYTES = 900_000_000, 25_000
ALONE = "labels and summary, by one process"
TOO_FEW_BATCHES = "too few batches for the workers"
_UNEVEN = 1.25  # times the mean, which the worker that has most of the rows may have
_MS_PER_HOUR = 3_600_000


@dataclass(frozen=True)
class Amount:
    """What is left to do, and by how many."""

    rows: int
    batches: int  # that are handed to workers
    batch_rows: int  # of the largest
    workers: int  # of all machines
    device: str  # cpu or cuda
    threads: int  # of each worker's fit, on a CPU
    writers: int | None  # of each worker beside a GPU; None: as many as keep up with it
    core_ms: Mapping[
        str, float
    ]  # of a person: reading (labels), images, writing, as one core of this machine does it
    alone_seconds: float  # in which the labels are validated, by one process


@dataclass(frozen=True)
class RunCosts:
    """What a run needs, estimated."""

    core_hours: Mapping[str, float]  # as core_ms; and fit, where it is on a CPU of known speed
    gpu_hours: float | None  # None: it is fitted on a CPU, or the speed is not known
    cores_per_worker: int | None  # with which its fit does not wait; None: the speed is not known
    bytes_per_worker: int  # of memory, without what images take
    hours: float | None  # by the clock; None: the speed is not known
    bound: str | None  # what takes most of them
    workers_used: int  # fewer than there are where there are fewer batches


def run_costs(amount: Amount, people_per_second: float | None) -> RunCosts:
    """What it takes to fit the rows by workers of so many people/s each."""
    core_hours = {name: amount.rows * ms / _MS_PER_HOUR for name, ms in amount.core_ms.items()}
    memory = WORKER_BYTES + round(ROW_BYTES * 2 * amount.batch_rows)  # one is fitted, one is read or written
    used = min(amount.workers, amount.batches)
    if people_per_second is None:
        return RunCosts(core_hours, None, None, memory, None, None, used)
    fit_ms = 1000 / people_per_second
    fit_hours = amount.rows * fit_ms / _MS_PER_HOUR
    if amount.device == "cuda":
        cores = 1 + math.ceil(sum(amount.core_ms.values()) / fit_ms)
    else:
        cores = amount.threads
        core_hours["fit"] = fit_hours * amount.threads
    hours, bound = _wall_clock(amount, fit_ms)
    gpu_hours = fit_hours if amount.device == "cuda" else None
    return RunCosts(core_hours, gpu_hours, cores, memory, hours, bound, used)


def _wall_clock(amount: Amount, fit_ms: float) -> tuple[float, str]:
    """Hours, and what bounds them."""
    if not amount.rows:
        return 0.0, "nothing"
    beside = amount.core_ms
    if amount.device == "cuda":  # beside the fit, on cores of their own
        longer = max("images", "writing", key=beside.__getitem__)
        behind = 0.0 if amount.writers is None else (beside["images"] + beside["writing"]) / amount.writers
        stages = {"fit": fit_ms, "reading": beside["reading"] / READERS, longer: behind}
        person_ms = max(stages.values())
    else:  # on the same cores
        stages = {"fit": fit_ms} | {name: ms / amount.threads for name, ms in beside.items()}
        person_ms = sum(stages.values())
    # The worker that has most of the batches ends last.
    rows = min(amount.rows, math.ceil(amount.batches / amount.workers) * amount.batch_rows)
    busy, alone = rows * person_ms / 1000, amount.alone_seconds + amount.rows * MERGE_MS / 1000
    if alone > busy:
        bound = ALONE
    elif rows > _UNEVEN * amount.rows / amount.workers:
        bound = TOO_FEW_BATCHES
    else:
        bound = max(stages, key=stages.__getitem__)
    return (busy + alone) / 3600, bound
