"""What a run is reckoned to cost, against sums by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skelfit.api.run_costs import ALONE, MERGE_MS, ROW_BYTES, TOO_FEW_BATCHES, WORKER_BYTES, Amount, run_costs

# 20,000 people/s on each of 8 GPUs: 0.05 ms a person. The rest takes 1 ms of a core.
GPUS = Amount(
    rows=8_000_000,
    batches=400,
    batch_rows=20_000,
    workers=8,
    device="cuda",
    threads=1,
    writers=None,
    core_ms={"reading": 0.05, "images": 0.75, "writing": 0.2},
    alone_seconds=0.0,
)
MERGE_HOURS = 8_000_000 * MERGE_MS / 3_600_000


def test_gpus_with_cores_that_keep_up() -> None:
    costs = run_costs(GPUS, 20_000)
    assert costs.cores_per_worker == 1 + 20  # of which 20 read, cut and write
    assert costs.gpu_hours == pytest.approx(8_000_000 / 20_000 / 3600)
    assert costs.core_hours == pytest.approx({"reading": 1 / 9, "images": 5 / 3, "writing": 4 / 9})
    assert costs.bound == ALONE  # 50 s, and the summary's 240 after them
    fewer = run_costs(replace(GPUS, workers=1), 20_000)
    assert fewer.bound == "fit" and fewer.hours == pytest.approx(400 / 3600 + MERGE_HOURS)
    assert fewer.bytes_per_worker == WORKER_BYTES + 40_000 * ROW_BYTES


@pytest.mark.parametrize(
    ("core_ms", "writers", "bound", "person_ms"),
    [
        ({"reading": 0.0, "images": 0.75, "writing": 0.25}, 4, "images", 0.25),
        ({"reading": 0.0, "images": 0.0, "writing": 0.2}, 2, "writing", 0.1),
        ({"reading": 0.0, "images": 0.0, "writing": 0.2}, 8, "fit", 0.05),
        ({"reading": 0.4, "images": 0.0, "writing": 0.2}, 8, "reading", 0.2),
    ],
)
def test_what_a_gpu_waits_for(core_ms: dict[str, float], writers: int, bound: str, person_ms: float) -> None:
    costs = run_costs(replace(GPUS, core_ms=core_ms, writers=writers, workers=1), 20_000)
    assert costs.bound == bound
    assert costs.hours == pytest.approx(8_000_000 * person_ms / 3_600_000 + MERGE_HOURS)


def test_batches_that_do_not_go_round() -> None:
    costs = run_costs(replace(GPUS, workers=300), 100)
    assert costs.bound == TOO_FEW_BATCHES and costs.workers_used == 300
    assert costs.hours == pytest.approx(2 * 20_000 / 100 / 3600 + MERGE_HOURS)
    few = run_costs(replace(GPUS, workers=1000), 100)
    assert few.workers_used == 400 and few.hours == pytest.approx(20_000 / 100 / 3600 + MERGE_HOURS)


def test_on_a_cpu_the_same_cores_do_all() -> None:
    amount = replace(GPUS, device="cpu", threads=2, workers=4, batches=8000, batch_rows=1000)
    costs = run_costs(amount, 500)
    assert costs.gpu_hours is None and costs.cores_per_worker == 2
    assert costs.core_hours["fit"] == pytest.approx(2 * 8_000_000 / 500 / 3600)
    assert costs.hours == pytest.approx(2_000_000 * (2 + 0.5) / 3_600_000 + MERGE_HOURS)


def test_without_a_speed_or_without_rows() -> None:
    costs = run_costs(GPUS, None)
    assert costs.hours is None and costs.bound is None and "fit" not in costs.core_hours
    done = run_costs(replace(GPUS, rows=0, batches=0, batch_rows=0, alone_seconds=9.0), 10)
    assert (done.hours, done.bound, done.workers_used) == (0.0, "nothing", 0)
