"""The simulation of many workers: it ends with every row although workers die, and with figures that agree."""

from __future__ import annotations

from pathlib import Path

from skelfit.bodies.model_set import ModelSet
from skelfit.config.pipeline import load_pipeline
from tools.studies.scheduler_load import Load, loads, loads_of_many, simulate, text
from tools.studies.setup import Setup

PIPELINE = Path(__file__).parents[2] / "pipelines" / "hmr-skel.yaml"


def test_a_small_load(models: ModelSet) -> None:
    setup = Setup(models, load_pipeline(PIPELINE), "cpu", 0, (), None, print)
    load = Load(40, workers=8, batch_shards=2, seconds_per_shard=0.2, deaths_per_second=4, idle_seconds=0.2)
    record = simulate(setup, load, kinds=2)  # raises where a row is lost
    assert (record["shards"], record["tasks"]) == (40, 20) and record["deaths"] >= 1
    assert record["tasks_seconds"] >= 40 * 0.1 / 8 and record["scheduler_cpu_seconds"] > 0
    assert record["merge_cpu_seconds"] > 0 < record["check_cpu_seconds"]
    assert (
        len(record["client_mib_quarters"]) and max(record["client_mib_quarters"]) <= record["client_mib_most"]
    )
    assert any(line.split()[:3] == ["40", "8", "20"] for line in text([record]))


def test_loads_of_the_study() -> None:
    assert [(load.shards, load.workers) for load in loads(3_000_000)][:3] == [
        (300, 200),
        (1000, 200),
        (3000, 200),
    ]
    assert {(load.workers, load.batch_shards) for load in loads(3_000_000)} == {
        (200, 1),
        (200, 4),
    }
    assert loads_of_many(1_000_000) == [Load(1000, workers=1000)]
