"""Batches of shards: the same bytes however shards are fitted together, and whatever writes them."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from job_fakes import FakeFitter, batches_of, hashes, in_tars, make_run

from skelfit import __version__
from skelfit.api.conversion_lines import summary_lines_of
from skelfit.api.run_shards import convert_run
from skelfit.api.run_time import this_time
from skelfit.config.pipeline import ImageConfig
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.run_plan import Run, ShardTask
from skelfit.conversion.shard_batch import GPU_ROWS, ShardBatch, cut_batches, default_rows
from skelfit.conversion.shard_outcome import ShardFailure, ShardOutcome, ShardResult
from skelfit.conversion.shard_output import write_fitted
from skelfit.conversion.shard_task import announce, read_shard
from skelfit.conversion.stopwatch import PHASES
from skelfit.errors import LabelError
from skelfit.executors import dask_tasks, shard_writers
from skelfit.executors import dask_worker as worker
from skelfit.executors.dask_tasks import run_tasks
from skelfit.executors.executor import Executor
from skelfit.executors.shard_writers import WRITER_TRIES, ShardWriters, default_writers
from skelfit.executors.worker_line import LOST_TOO_OFTEN, WorkerLine
from skelfit.executors.writer_process import WriterDiedError
from skelfit.fitting.fit_result import FitResult

NAMES = [f"fake-{number:06d}" for number in range(6)]


def run_in(folder: Path, files: int = 2, **options: Any) -> Run:
    """Six shards of two label files, with crops from tars."""
    run = in_tars(make_run(folder, images=True, side=256, **options), folder / "tars")
    crops = dataclasses.replace(run.pipeline, images=ImageConfig("crop", size=32))
    Path(run.out).mkdir()
    return dataclasses.replace(run, pipeline=crops, labels=run.labels * files)


def convert(
    run: Run, rows: int | None, writers: int = 0, fitter: Any = None
) -> tuple[dict[str, ShardOutcome], FakeFitter]:
    """Convert in this process: what became of each shard, and the fitter."""
    fitter = fitter or FakeFitter()
    work = partial(convert_batch, fitter=fitter)
    outcomes = list(run_tasks(batches_of(run, rows), Executor(writers=writers), work))
    assert sorted(outcome.name for outcome in outcomes) == NAMES[: len(outcomes)]
    return {outcome.name: outcome for outcome in outcomes}, fitter


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a run whose shards are fitted one by one, and written in a thread."""
    run = run_in(tmp_path_factory.mktemp("expected"))
    outcomes, fitter = convert(run, None)
    assert len(outcomes) == fitter.calls == 6 and all(isinstance(o, ShardResult) for o in outcomes.values())
    return hashes(Path(run.out))


# --- cutting ---


def sizes(batches: list[ShardBatch]) -> list[int]:
    return [batch.rows for batch in batches]


def test_a_batch_has_whole_shards_and_about_so_many_rows(tmp_path: Path) -> None:
    run = make_run(tmp_path)  # shards of 8, 8 and 4 rows
    run = dataclasses.replace(run, labels=run.labels * 2)
    assert sizes(batches_of(run)) == sizes(batches_of(run, 1)) == [8, 8, 4, 8, 8, 4]
    assert sizes(batches_of(run, 16)) == [16, 12, 12]
    assert sizes(batches_of(run, 17)) == [16, 12, 12]
    assert sizes(batches_of(run, 1000)) == [40]
    (whole,) = batches_of(run, 1000)
    assert whole.name == "fake-000000..000005" and whole.run == run
    assert [batch.name for batch in whole.single_shards()] == NAMES
    assert cut_batches([], 8) == []
    assert repr(whole).count("models_sha256") == 1, "the run comes once"


def test_the_batch_that_a_device_gets_by_itself() -> None:
    assert default_rows("cpu", 10**9, 2) is None and default_rows("auto", 10**9, 0) is None
    assert default_rows("cuda", 10**9, 2) == GPU_ROWS
    assert default_rows("cuda", 80_000, 8) == 2500, "all workers have some to do"
    assert default_rows("cuda", 10**9, 2, meshes=True) * 6890 * 3 * 4 < 400e6, "bytes of a batch"  # type: ignore


def test_the_writers_that_a_device_gets_by_itself() -> None:
    assert default_writers("cpu", 64) == 0
    assert [default_writers("cuda", cores) for cores in (1, 2, 16, 64)] == [1, 1, 14, 32]


# --- the same bytes ---


@pytest.mark.parametrize(("rows", "writers", "calls"), [(16, 0, 3), (1000, 0, 1), (16, 4, 3)])
def test_any_batch_and_any_writers_write_the_same_bytes(
    tmp_path: Path, expected: dict[str, str], rows: int, writers: int, calls: int
) -> None:
    run = run_in(tmp_path)
    outcomes, fitter = convert(run, rows, writers)
    assert all(isinstance(outcome, ShardResult) for outcome in outcomes.values())
    assert fitter.calls == calls
    assert hashes(Path(run.out)) == expected


# --- one shard that fails ---


class _Breakable(FakeFitter):
    """Fails where a person of the second shard is among those who are fitted."""

    def fit(
        self, smpl_gender: str, pose: Any, betas: Any, transl: torch.Tensor, frames: Any = None
    ) -> FitResult:
        if (pose == self.bad).all(2).all(1).any():
            raise MemoryError("too much")
        return super().fit(smpl_gender, pose, betas, transl, frames)

    bad = torch.zeros(24, 3)  # of the person


def _in_the_way(task: ShardTask) -> None:
    task.files.tar.mkdir()


def _no_labels(task: ShardTask) -> None:
    Path(task.run.labels[task.file_index].store).unlink()


@pytest.mark.parametrize(
    ("spoil", "shard", "message"),
    [(_in_the_way, 1, "cannot be written"), (_no_labels, 3, "label store")],
    ids=["writing", "labels"],
)
def test_a_shard_that_fails_costs_itself_alone(
    tmp_path: Path, expected: dict[str, str], spoil: Callable[[ShardTask], None], shard: int, message: str
) -> None:
    run = run_in(tmp_path)
    if spoil is _no_labels:  # of one file, which is a copy
        store = Path(run.labels[0].store)
        copy = store.with_name("copy.h5")
        copy.write_bytes(store.read_bytes())
        run = dataclasses.replace(
            run, labels=(run.labels[0], dataclasses.replace(run.labels[1], store=str(copy)))
        )
    (batch,) = batches_of(run, 1000)
    spoil(batch.tasks[shard])
    outcomes, fitter = convert(run, 1000)
    failed = {name for name, outcome in outcomes.items() if isinstance(outcome, ShardFailure)}
    assert failed == ({NAMES[shard]} if spoil is _in_the_way else set(NAMES[3:])) and fitter.calls == 1
    failure = outcomes[NAMES[shard]]
    assert isinstance(failure, ShardFailure) and message in failure.error and failure.trace == ""
    assert not list(Path(run.out).glob(".*")), "nothing half-done, nothing announced"
    for name, found in hashes(Path(run.out)).items():
        assert found == expected[name]


def test_a_fit_that_fails_is_tried_shard_by_shard(tmp_path: Path, expected: dict[str, str]) -> None:
    run = run_in(tmp_path)
    fitter = _Breakable()
    (batch,) = batches_of(run, 1000)
    fitter.bad = torch.from_numpy(read_shard(batch.tasks[1]).labels.pose[0].copy())
    outcomes, _ = convert(run, 1000, fitter=fitter)
    failed = [name for name, outcome in outcomes.items() if isinstance(outcome, ShardFailure)]
    assert sorted(failed) == [NAMES[1], NAMES[4]], "the second file has the same people"
    assert "MemoryError: too much" in getattr(outcomes[NAMES[1]], "error", "")
    assert len(list(Path(run.out).glob("*.done.json"))) == 4


# --- writers that die, and queues that are full ---


def _until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_a_writer_that_is_killed_costs_nothing(tmp_path: Path, expected: dict[str, str]) -> None:
    """One writer, which is stopped when a shard comes, and killed with the shard in its hands."""
    run = run_in(tmp_path)
    outcomes: SimpleQueue[ShardOutcome] = SimpleQueue()
    with WorkerLine(1) as line:
        (writer,) = line.writers._processes
        victim = writer._process
        os.kill(victim.pid, signal.SIGSTOP)
        begun = line.begin(convert_batch(batches_of(run, 1000)[0], FakeFitter()), outcomes)
        killer = threading.Timer(0.2, os.kill, (victim.pid, signal.SIGKILL))
        killer.start()
        begun.fit()
        found = [outcomes.get(timeout=60) for _ in NAMES]
        killer.join()
        second = writer._process
        assert second.pid != victim.pid and victim.returncode == -signal.SIGKILL
    assert all(isinstance(outcome, ShardResult) for outcome in found)
    assert second.wait(10) is not None, "it ends with its line"
    assert hashes(Path(run.out)) == expected


class _Dying:
    """A writer that dies with each shard."""

    deaths = 0

    def write(self, shard: Any) -> Any:
        self.deaths += 1
        raise WriterDiedError

    def end(self) -> None:
        """Nothing runs."""

    close = end


def test_a_shard_that_ends_its_writers_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_writers, "WriterProcess", _Dying)
    run = make_run(tmp_path, shard_size=10)
    Path(run.out).mkdir()
    outcomes, _ = convert(run, None, 1)
    for outcome in outcomes.values():
        assert isinstance(outcome, ShardFailure)
        assert f"{WRITER_TRIES} writer processes died while they had it" in outcome.error


@pytest.mark.parametrize(("rows", "fits", "shards"), [(None, 3, 3), (4, 2, 4)])
def test_a_slow_disk_holds_the_fit_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int | None, fits: int, shards: int
) -> None:
    """One shard is written, a batch waits, and with one more the fit waits too: memory does not grow."""
    run = make_run(tmp_path, shard_size=2)
    Path(run.out).mkdir()
    go_on, begun = threading.Event(), []

    def slow(shard: Any, stop: Any) -> Any:
        begun.append(shard)
        go_on.wait()
        return write_fitted(shard, stop)

    monkeypatch.setattr(shard_writers, "write_fitted", slow)
    fitter, handed = FakeFitter(), []
    put = ShardWriters.put

    def counted(self: ShardWriters, shard: Any, places: int) -> Any:
        handed.append(shard)
        return put(self, shard, places)

    monkeypatch.setattr(ShardWriters, "put", counted)
    runner = threading.Thread(
        target=lambda: list(run_tasks(batches_of(run, rows), work=partial(convert_batch, fitter=fitter)))
    )
    runner.start()
    try:
        _until(lambda: len(handed) >= shards)
        time.sleep(0.1)  # in which more would come, if there were no bound
        assert (fitter.calls, len(handed), len(begun)) == (fits, shards, 1)
    finally:
        go_on.set()
        runner.join()
    assert len(begun) == 10 and len(list(Path(run.out).glob("*.done.json"))) == 10


# --- batches that are tried again ---


def test_what_is_finished_is_not_done_again(tmp_path: Path, expected: dict[str, str]) -> None:
    """As when a worker dies after some shards of its batch; but what another run finished does not count."""
    run = run_in(tmp_path)
    (batch,) = batches_of(run, 1000)
    single = batch.single_shards()
    outcomes = list(run_tasks([single[0], single[4]], work=partial(convert_batch, fitter=FakeFitter())))
    before = [task.files.tar.stat().st_mtime_ns for task in (batch.tasks[0], batch.tasks[4])]
    other = dataclasses.replace(run, description="", subset=run.subset, models_sha256="1" * 64)
    (stale,) = batches_of(dataclasses.replace(other, out=run.out), 1000)
    list(run_tasks([stale.single_shards()[1]], work=partial(convert_batch, fitter=FakeFitter())))
    again, fitter = convert(run, 1000)
    assert fitter.rows == [8 + 4 + 7 + 4], "one is a bad row"
    assert [task.files.tar.stat().st_mtime_ns for task in (batch.tasks[0], batch.tasks[4])] == before
    for outcome in outcomes:
        assert isinstance(outcome, ShardResult)
        result = again[outcome.name]
        assert isinstance(result, ShardResult) and sum(result.seconds.values()) == 0
        assert (result.rows_in, result.statuses) == (outcome.rows_in, outcome.statuses)
    assert hashes(Path(run.out)) == expected


def test_a_batch_that_was_lost_too_often_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is fitted; a shard of it alone is, for that is how the poisonous one shows itself."""
    monkeypatch.setattr(worker, "secede", lambda: None)
    run = run_in(tmp_path)
    (batch,) = batches_of(run, 1000)
    for _ in range(LOST_TOO_OFTEN):
        announce(batch.tasks[2].files)
    fitter = FakeFitter()
    do = partial(worker.do, partial(convert_batch, fitter=fitter), __version__, None, 0)
    outcomes = do(batch)
    assert sorted(outcome.name for outcome in outcomes) == NAMES and fitter.calls == 0
    assert all("lost with 2 workers" in outcome.error for outcome in outcomes)
    (result,) = do(batch.single_shards()[2])
    assert isinstance(result, ShardResult) and fitter.calls == 1


def _ends(
    batch: ShardBatch, result: Any, error: BaseException | None = None, tried: int = 0
) -> tuple[list[str], list[Any]]:
    """The names of the batches that are done again, and the results."""
    tries = Counter(dict.fromkeys(NAMES, tried))
    found = list(dask_tasks._ends(batch, result, error, tries))
    return [again.name for again, _ in found if again is not None], [
        outcome for again, outcome in found if again is None
    ]


def test_of_a_batch_that_failed_each_shard_is_tried_by_itself(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    whole, one = batches_of(run, 1000)[0], batches_of(run)[1]
    done = [ShardFailure(NAMES[1], "the network is away"), "a result"]
    assert _ends(whole, done) == ([NAMES[1]], ["a result"])
    assert _ends(whole, done, tried=dask_tasks.RETRIES) == ([], done)
    # What ends workers, and errors that are not ours.
    assert _ends(whole, None, RuntimeError("no such luck")) == (NAMES, [])
    again, (failure,) = _ends(one, None, RuntimeError("no such luck"))
    assert again == [] and failure.name == NAMES[1] and "no such luck" in failure.error
    again, failures = _ends(whole, None, LabelError("a", None, "b", "c"))
    assert again == [] and [failure.name for failure in failures] == NAMES


# --- what bound a run ---


def _result(process: str, writers: int = 1, **seconds: float) -> ShardResult:
    """Of a worker that was there for ten seconds."""
    spent = dict.fromkeys(PHASES, 0.0) | seconds
    return ShardResult("x", 10, 9, {"ok": 9}, {}, spent, process, writers, (0.0, 10.0))


@pytest.mark.parametrize(
    ("writers", "seconds", "bound"),
    [
        (1, {"fit": 9.0, "writing": 8.0}, "fit"),
        (1, {"fit": 6.0, "images": 5.0, "writing": 3.0}, "images"),
        (1, {"fit": 6.0, "images": 3.0, "writing": 5.0}, "writing"),
        (4, {"fit": 6.0, "images": 12.0, "writing": 8.0}, "fit"),  # four of them share it
        (1, {"fit": 6.0, "labels": 18.0}, "reading"),  # two threads read
        (1, {"preparing": 7.0, "fit": 1.0, "writing": 5.0}, "fit"),
    ],
)
def test_the_busiest_part_bounds_a_run(writers: int, seconds: dict[str, float], bound: str) -> None:
    time_ = this_time([_result("a", writers, **seconds)], 10.0)["time"]
    assert time_["bound"] == bound
    assert time_["busy"]["fit"] == pytest.approx((seconds.get("preparing", 0) + seconds["fit"]) / 10)


def test_the_summary_says_what_bound_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    Path(run.out).mkdir()
    summary = convert_run(run, work=partial(convert_batch, fitter=FakeFitter(delay=0.05)))
    lines = list(map(str, summary_lines_of(summary)))
    (line,) = [line for line in lines if line.startswith("bound by ")]
    assert line.startswith("bound by the fit: it was busy ") and "; reading labels " in line
