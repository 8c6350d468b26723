"""Dask: the same bytes with any number of workers, and failures that stay with their shard."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from job_fakes import failing_work, hashes, make_run, work

from skelfit import cluster
from skelfit.cluster import ShardFailure
from skelfit.errors import OutputError
from skelfit.job import ShardResult
from skelfit.plan import plan_shards


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="distributed")


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for workers in (0, 1, 2):
        run = make_run(tmp_path / str(workers), images=True)
        Path(run.out).mkdir()
        results = list(cluster.run(plan_shards(run), workers, work=work))
        assert all(isinstance(r, ShardResult) for r in results)
        assert sorted(r.name for r in results) == ["fake-000000", "fake-000001", "fake-000002"]
        found.append(hashes(Path(run.out)))
    assert len(found[0]) == 9
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failing_shard_is_named_and_the_others_go_on(tmp_path: Path, workers: int) -> None:
    run = make_run(tmp_path)
    Path(run.out).mkdir()
    results = {r.name: r for r in cluster.run(plan_shards(run), workers, work=failing_work)}
    failure = results.pop("fake-000001")
    assert isinstance(failure, ShardFailure) and failure.error == "RuntimeError: no such luck"
    assert "failing_work" in failure.trace
    assert all(isinstance(r, ShardResult) for r in results.values()) and len(results) == 2


def test_an_error_of_ours_comes_without_a_trace(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (Path(run.out) / "fake-000000.tar").mkdir(parents=True)  # in the way
    failure = next(cluster.run(plan_shards(run), work=work))
    assert isinstance(failure, ShardFailure)
    assert "cannot be written" in failure.error and failure.trace == ""


def test_keys_tell_runs_apart(tmp_path: Path) -> None:
    tasks = [plan_shards(make_run(tmp_path / name))[0] for name in ("a", "b")]
    keys = [cluster._task_key(task) for task in tasks]
    assert keys[0] != keys[1] and keys[0] == cluster._task_key(plan_shards(make_run(tmp_path / "a"))[0])


def test_no_scheduler_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    tasks = plan_shards(make_run(tmp_path))
    with pytest.raises(OutputError, match=r"tcp://127\.0\.0\.1:9: expected a Dask scheduler"):
        list(cluster.run(tasks, scheduler="tcp://127.0.0.1:9", work=work))
