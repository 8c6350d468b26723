"""Workers of this machine: the same bytes with any number of them, and what Dask promises us, as installed."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from cluster_by_hand import (
    deadly_work,
    flaky_work,
    interrupted_workers_work,
    notes,
    noting_work,
    slow_work,
    slowly_written_work,
    wait_until,
)
from distributed import Client, LocalCluster, as_completed
from job_fakes import batches_of, failing_work, hashes, in_tars, make_run, work

from skelfit import __version__
from skelfit.config.pipeline import ImageConfig
from skelfit.conversion.run_plan import Run, plan_shards
from skelfit.conversion.shard_outcome import ShardFailure, ShardResult
from skelfit.conversion.shard_task import announce
from skelfit.errors import ClusterError
from skelfit.executors import dask_tasks as tasks
from skelfit.executors import dask_worker as worker
from skelfit.executors import worker_processes as local
from skelfit.executors.dask_tasks import RETRIES, run_tasks
from skelfit.executors.executor import Executor, cores, visible_gpus
from skelfit.shards.shard_files import remove_temporaries
from skelfit.shards.shard_reader import read_rows


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="distributed")


def run_in(folder: Path, **options: Any) -> Run:
    run = make_run(folder, **options)
    Path(run.out).mkdir()
    return run


@contextmanager
def threads_as_workers(workers: int, saturation: float = 1.0) -> Iterator[Client]:
    """Workers in this process: they start at once, and Dask schedules for them as for any."""
    with (
        dask.config.set({**local.SETTINGS, "distributed.scheduler.worker-saturation": saturation}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=False,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Client]:
    """Two worker processes, for tests that leave them as they are."""
    with local.local_client(2, ()) as client:
        wait_until(lambda: len(client.nthreads()) == 2)
        yield client


@pytest.fixture
def in_two_workers(two_workers: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs find these workers, in place of new ones of their own."""
    monkeypatch.setattr(tasks, "local_client", lambda *_: nullcontext(two_workers))


@pytest.mark.usefixtures("in_two_workers")
def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    """With crops, whose images the workers find in tars."""
    found = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        run = in_tars(make_run(folder, images=True, side=256), folder / "tars")
        crops = ImageConfig("crop", size=64)
        run = dataclasses.replace(run, pipeline=dataclasses.replace(run.pipeline, images=crops))
        Path(run.out).mkdir()
        results = list(run_tasks(batches_of(run), Executor(workers), work))
        assert all(isinstance(r, ShardResult) for r in results)
        assert sorted(r.name for r in results) == ["fake-000000", "fake-000001", "fake-000002"]
        found.append(hashes(Path(run.out)))
        images = [row["image"] for path in sorted(Path(run.out).glob("*.jsonl")) for row in read_rows(path)]
        assert (images.count(True), images.count(False)) == (16, 1)
    assert len(found[0]) == 9
    assert found[0] == found[1]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.usefixtures("in_two_workers")
def test_a_failing_shard_is_named_and_the_others_go_on(tmp_path: Path, workers: int) -> None:
    run = run_in(tmp_path)
    results = {r.name: r for r in run_tasks(batches_of(run), Executor(workers), failing_work)}
    failure = results.pop("fake-000001")
    assert isinstance(failure, ShardFailure) and failure.error == "RuntimeError: no such luck"
    assert "failing_work" in failure.trace
    assert all(isinstance(r, ShardResult) for r in results.values()) and len(results) == 2


def test_an_error_of_ours_comes_without_a_trace(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (Path(run.out) / "fake-000000.tar").mkdir(parents=True)  # in the way
    failure = next(run_tasks(batches_of(run), work=work))
    assert isinstance(failure, ShardFailure)
    assert "cannot be written" in failure.error and failure.trace == ""


def test_keys_tell_runs_apart(tmp_path: Path) -> None:
    first, second, again = (plan_shards(make_run(tmp_path / name))[0] for name in ("a", "b", "a"))
    assert tasks._task_key(first) == tasks._task_key(again) != tasks._task_key(second)


def test_exceptions_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "local_client", lambda workers, *_: threads_as_workers(workers))
    run = run_in(tmp_path)
    results = list(run_tasks(batches_of(run), Executor(1), flaky_work))
    assert all(isinstance(r, ShardResult) for r in results) and len(results) == 3
    assert set(Counter(notes(tmp_path)).values()) == {RETRIES + 1}


def test_a_shard_that_ends_its_workers_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries are not for this: the deaths that Dask allows are counted apart."""
    allowed = 1
    monkeypatch.setitem(local.SETTINGS, "distributed.scheduler.allowed-failures", allowed)
    run = run_in(tmp_path)
    results = {r.name: r for r in run_tasks(batches_of(run), Executor(1), deadly_work)}
    failure = results.pop("fake-000001")
    assert isinstance(failure, ShardFailure) and failure.trace == ""
    assert f"{allowed + 1} workers died while they had it" in failure.error
    assert all(isinstance(r, ShardResult) for r in results.values()) and len(results) == 2
    # The innocent are not counted out with it, because they wait at the scheduler and not at the worker.
    assert Counter(notes(tmp_path))["fake-000001"] == allowed + 1


def test_a_killed_worker_comes_back_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    expected = run_in(tmp_path / "one")
    assert len(list(run_tasks(batches_of(expected), work=work))) == 3
    run = run_in(tmp_path / "two")
    results = list(run_tasks(batches_of(run), Executor(1), interrupted_workers_work))
    assert all(isinstance(r, ShardResult) for r in results) and len(results) == 3
    assert Counter(notes(tmp_path / "two"))["fake-000001"] == 2
    remove_temporaries(Path(run.out), run.subset)  # of the shard that was being written beside it
    assert hashes(Path(run.out)) == hashes(Path(expected.out))


def test_a_task_that_runs_twice_at_once_writes_the_same_bytes(tmp_path: Path) -> None:
    expected = run_in(tmp_path / "one", shard_size=20)
    assert len(list(run_tasks(batches_of(expected), work=work))) == 1
    run = run_in(tmp_path / "two", shard_size=20)
    (task,) = batches_of(run)
    do = partial(worker.do, work, __version__, None, 0)
    with threads_as_workers(2) as client:
        for _ in range(5):
            task.tasks[0].files.marker.unlink(missing_ok=True)  # or it is not done again
            futures = [client.submit(do, task, workers=[w], pure=False) for w in client.nthreads()]
            client.gather(futures)
            assert hashes(Path(run.out)) == hashes(Path(expected.out))


@pytest.mark.parametrize(("saturation", "most"), [(1.0, 1), (3.0, 3)])
def test_tasks_wait_at_the_scheduler(tmp_path: Path, saturation: float, most: int) -> None:
    """Our keys form one group of tasks, which Dask queues; and worker-saturation means what we think."""
    todo = batches_of(run_in(tmp_path, shard_size=1))[:10]
    with threads_as_workers(1, saturation) as client:
        futures = client.map(slow_work, todo, key=[tasks._task_key(task) for task in todo])
        wait_until(lambda: len(notes(tmp_path)) > 1)
        (found,) = client.processing().values()
        assert len(found) == most
        del futures


def test_each_worker_has_its_gpu_its_threads_and_one_set_of_models(tmp_path: Path) -> None:
    """No GPU is needed: what counts is which of them a process may see."""
    run = run_in(tmp_path, shard_size=2)
    assert len(list(run_tasks(batches_of(run), Executor(2, ("3", "GPU-5")), noting_work))) == 10
    lines = [line.split() for line in notes(tmp_path)]
    shards = [line[1:] for line in lines if line[0].startswith("fake")]
    workers = {process: gpu for process, _, gpu in shards}
    assert sorted(process for first, process in (x[:2] for x in lines) if first == "loaded") == sorted(
        workers
    )
    assert sorted(workers.values()) == ["3", "GPU-5"]
    assert {threads for _, threads, _ in shards} == {str(max(1, cores() // 2))}


def test_gpus_are_those_that_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(2) == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5,7")
    assert visible_gpus(2) == ("3", "GPU-5")


def test_only_this_machine_can_reach_the_workers_and_only_with_their_key(two_workers: Client) -> None:
    assert all(address.startswith("tls://127.0.0.1:") for address in two_workers.nthreads())
    listening = [
        connection.laddr.ip
        for process in (os.getpid(), *two_workers.run(os.getpid).values())
        for connection in psutil.Process(process).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 5 and set(listening) == {"127.0.0.1"}
    plain = two_workers.scheduler_info()["address"].replace("tls:", "tcp:")
    with pytest.raises(OSError):
        Client(plain, timeout=1)


def test_workers_log_no_heartbeat_that_failed(two_workers: Client) -> None:
    def logged() -> list[bool]:
        logger = logging.getLogger("distributed.worker")
        texts = "Failed to communicate with scheduler during heartbeat.", "Something else"
        records = [logger.makeRecord(logger.name, logging.ERROR, "", 0, text, (), None) for text in texts]
        return [bool(logger.filter(record)) for record in records]

    assert list(two_workers.run(logged).values()) == 2 * [[False, True]]


@pytest.mark.usefixtures("in_two_workers")
def test_a_run_says_at_its_end_that_results_were_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def losing(*_: object) -> Iterator[None]:
        logging.getLogger("distributed.client").warning("Couldn't gather %s keys, rescheduling %s", 1, ["a"])
        yield

    monkeypatch.setattr(tasks, "watched", losing)
    said: list[str] = []
    assert len(list(run_tasks(batches_of(run_in(tmp_path)), Executor(2), work, said.append))) == 3
    assert said == ["results lost with their workers, and asked for again: 1"]


def test_connections_outlast_a_busy_scheduler(two_workers: Client) -> None:
    assert two_workers.scheduler_comm is not None
    socket_of_client = two_workers.scheduler_comm.comm.stream.socket
    assert socket_of_client.getsockopt(socket.SOL_TCP, socket.TCP_USER_TIMEOUT) == 1000 * 300
    assert set(two_workers.run(lambda: dask.config.get("distributed.comm.timeouts.tcp")).values()) == {
        "5 minutes"
    }


def test_a_worker_of_another_version_says_so(tmp_path: Path) -> None:
    task = batches_of(run_in(tmp_path))[0]
    with pytest.raises(ClusterError, match=f"a worker runs skelfit {__version__}, expected 9.9"):
        worker.do(work, "9.9", None, 0, task)
    assert not list(Path(task.run.out).iterdir())


def test_threads_of_a_worker_started_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, threads in (("3", 3), ("", 1), ("many", 1), ("0", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert worker._environment_threads() == threads
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert worker._environment_threads() == 1


def test_a_run_without_any_worker_left_says_so_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "WATCH_SECONDS", 0.2)
    said: list[str] = []
    todo = batches_of(run_in(tmp_path))
    with local.local_client(0, ()) as client:
        futures = client.map(work, todo)
        watch = tasks._Watch(client, Executor(scheduler="x", patience=0.5), said.append)
        with pytest.raises(ClusterError, match=r"no worker for \d+ s, 3 shards left"):
            list(tasks._as_completed(as_completed(futures), watch, {task.name: task for task in todo}))
    assert len(said) == 1 and "no worker is connected, 3 shards wait for one; start one with: dask" in said[0]


def test_a_shard_is_written_while_the_next_is_fitted(tmp_path: Path) -> None:
    """And no more than one waits to be written: a slow disk holds the fit up."""
    run = run_in(tmp_path, shard_size=4)
    assert len(list(run_tasks(batches_of(run), Executor(1), slowly_written_work))) == 5
    lines = notes(tmp_path)
    for what in ("fit", "write"):  # one at a time
        assert [line for line in lines if line.startswith(what)] == [f"{what} begins", f"{what} ends"] * 5
    ends = [k for k, line in enumerate(lines) if line == "write ends"]
    assert [lines[:k].count("fit ends") for k in ends] == [3, 4, 5, 5, 5]
    assert [lines[:k].count("fit begins") for k in ends] == [3, 4, 5, 5, 5]


def test_a_batch_that_was_lost_has_its_worker_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour that ends all its workers must not take a good shard with it time and again."""
    run = run_in(tmp_path, shard_size=10)
    first, second = batches_of(run)
    asked: list[bool] = []
    monkeypatch.setattr(worker, "secede", lambda: asked.append(True))
    worker.do(work, __version__, None, 0, first)
    assert asked == [True]
    announce(second.tasks[0].files)  # by a worker that ended
    worker.do(work, __version__, None, 0, second)
    assert asked == [True] and second.tasks[0].files.marker.exists()


def test_the_dashboard_and_the_report(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    said: list[str] = []
    report = tmp_path / "report.html"
    executor = Executor(1, dashboard=True, report=report)
    assert len(list(run_tasks(batches_of(run), executor, work, said.append))) == 3
    assert said[0].startswith("dashboard: http://127.0.0.1:") and said[-1] == f"performance report: {report}"
    assert "convert" in report.read_text() or "fake" in report.read_text()


def test_a_script_without_a_main_guard_ends_with_a_sentence(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from skelfit.executors.executor import chosen_executor\n"
        "from skelfit.executors.worker_processes import local_client\n"
        "with local_client(chosen_executor(workers=1).workers, ()):\n"
        "    print('begun')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=55)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count('put its calls under `if __name__ == "__main__":`, or give workers=0\n') == 1
    last = done.stderr.splitlines()[-1]
    assert "ClusterError: 1 worker processes on 127.0.0.1 do not start" in last
