"""Ranks: processes that share the shards of a run without a scheduler, in any order, and when some of them die."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from job_fakes import failing_work, hashes, make_run, work, write_labels

from skelfit.api.run_shards import ShardsFailedError, convert_rank, convert_run
from skelfit.cli import main
from skelfit.config.manifest import LabelSource
from skelfit.conversion.batch_job import BatchJob
from skelfit.conversion.rank import Rank
from skelfit.conversion.run_lock import is_written_to, sharing, writing
from skelfit.conversion.run_plan import Run, plan_shards
from skelfit.conversion.run_status import read_status
from skelfit.conversion.shard_batch import ShardBatch
from skelfit.conversion.shard_task import announce
from skelfit.errors import OutputError
from skelfit.labels import known_hashes
from skelfit.labels.known_hashes import file_sha256
from skelfit.labels.label_store import build_store
from skelfit.shards.shard_reader import read_json
from skelfit.storage.locations import location_of

OF_THAT_TIME = ("people_per_second", "time", "content_sha256")


def convert(run: Run, rank: Rank | None = None, work: Any = work, **options: Any) -> dict[str, Any] | None:
    with writing(location_of(run.out), run.subset, rank):
        if rank is None:
            return convert_run(run, work=work, **options)
        return convert_rank(run, rank, work=work, **options)


def summary_of(run: Run) -> dict[str, Any]:
    """What a summary says of the rows."""
    content = read_json(Path(run.out) / "summary.json")
    return {key: value for key, value in content.items() if key not in OF_THAT_TIME}


class Killed(BaseException):
    """A rank that died."""


class Turns:
    """Runs threads one at a time, from one call of `wait` to the next; who is next, and who dies, is drawn."""

    def __init__(self, seed: int, deaths: float) -> None:
        self.draw, self.deaths = random.Random(seed), deaths
        self.gates: dict[int, threading.Semaphore] = {}
        self.back = threading.Semaphore(0)
        self.doomed: set[int] = set()

    def wait(self, number: int) -> None:
        self.back.release()
        self.gates[number].acquire()
        if number in self.doomed:
            self.doomed.remove(number)
            raise Killed

    def play(self, rank: Callable[[int], bool], count: int) -> None:
        """Let each rank run to its end, those that die again; `rank` says whether it came to its end."""
        left: set[int] = set(range(count))
        threads: dict[int, threading.Thread] = {}

        def life(number: int) -> None:
            self.gates[number].acquire()
            if rank(number):
                left.discard(number)
            del threads[number]
            self.back.release()

        while left:
            number = self.draw.choice(sorted(left))
            if number not in threads:
                self.gates[number] = threading.Semaphore(0)
                threads[number] = threading.Thread(target=life, args=(number,))
                threads[number].start()
            elif self.draw.random() < self.deaths:
                self.doomed.add(number)
            self.gates[number].release()
            assert self.back.acquire(timeout=60)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one process."""
    run = make_run(tmp_path_factory.mktemp("alone"), people=46, shard_size=5)
    convert(run)
    return run


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_ranks_and_deaths_gives_the_same_bytes(tmp_path: Path, alone: Run, seed: int) -> None:
    """Also the same summary, which the last one writes; each shard is made once, but for those that a death cost."""
    run, world = make_run(tmp_path, people=46, shard_size=5), 1 + seed % 4
    turns, made = Turns(seed, deaths=0.15 if seed % 2 else 0.0), []

    def shard(batch: ShardBatch, number: int) -> BatchJob:
        turns.wait(number)
        made.append(batch.name)
        return work(batch)

    def rank(number: int) -> bool:
        try:
            convert(run, Rank(number, world), partial(shard, number=number))
        except Killed:
            # What a kill leaves, which an exception does not.
            (Path(run.out) / f".fake-{number:06d}.tar.0123456789ab.tmp").write_bytes(b"half")
            return False
        return True

    turns.play(rank, world)
    assert hashes(Path(run.out)) == hashes(Path(alone.out))
    assert summary_of(run) == summary_of(alone)
    assert set(made) == {task.name for task in plan_shards(run)}
    if not turns.deaths:
        assert len(made) == len(set(made)) == 10


def test_ranks_in_a_store_write_what_a_run_on_a_disk_does(tmp_path: Path, alone: Run) -> None:
    """And leave no lock behind."""
    out = location_of("memory://tests-of-ranks/out")
    run = dataclasses.replace(make_run(tmp_path, people=46, shard_size=5), out="memory://tests-of-ranks/out")
    with writing(out, run.subset, Rank(1, 2)):
        (other,) = [path.name for path in out.glob("*.lock")]
        assert other == ".run.1-of-2.lock" and is_written_to(out)
        assert convert(run, Rank(0, 2)) is None
        with pytest.raises(OutputError, match="rank 1 of 2 is writing here"):
            convert(run)
    assert [rank.state for rank in read_status(out).ranks] == ["finished", "not started"]
    assert convert(run, Rank(1, 2)) is not None
    found = {path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith(".run.")}
    here = Path(alone.out)
    expected = {path.name: path.read_bytes() for path in here.iterdir() if not path.name.startswith(".run.")}
    del found["summary.json"], expected["summary.json"]
    assert found == expected and not list(out.glob("*.lock"))


def test_the_rank_that_ends_last_writes_the_summary_with_the_times_of_all(tmp_path: Path) -> None:
    run = make_run(tmp_path, people=40)
    path = Path(run.out) / "summary.json"
    assert convert(run, Rank(1, 2)) is None and not path.exists()
    summary = convert(run, Rank(0, 2))
    assert summary is not None and summary["rows_in"] == 40
    results = [
        result
        for number in range(2)
        for result in read_json(Path(run.out) / f".run.{number}-of-2.json")["results"]
    ]
    assert sorted(result["name"] for result in results) == [task.name for task in plan_shards(run)]
    first, last = min(r["span"][0] for r in results), max(r["span"][1] for r in results)
    assert summary["people_per_second"] == pytest.approx(40 / (last - first))
    assert summary["time"]["seconds"] == round(last - first, 1)
    before = path.read_bytes()
    for number in (1, 0):
        assert convert(run, Rank(number, 2)) is not None
        assert path.read_bytes() == before, "a rank with nothing to do says the same"
    assert convert(run) is not None, "a run without ranks goes on from there"
    assert not list(Path(run.out).glob(".run.*-of-*.json"))


def test_what_excludes_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skelfit.conversion.run_lock._PAUSE_SECONDS", 0.01)
    with writing(tmp_path, "fake", Rank(0, 2)):
        with writing(tmp_path, "fake", Rank(1, 2)):
            pass
        for other, message in (
            (Rank(0, 2), "another process with --rank 0 is writing here; give each process its own --rank"),
            (Rank(1, 3), r"rank 0 of 2 is writing here; .* same --world \(2, not 3\)"),
            (None, "rank 0 of 2 is writing here; wait for it"),
        ):
            with pytest.raises(OutputError, match=message), writing(tmp_path, "fake", other):
                pass
    with (
        writing(tmp_path, "fake"),
        pytest.raises(OutputError, match="another run is writing here"),
        writing(tmp_path, "fake", Rank(0, 2)),
    ):
        pass
    with writing(tmp_path, "fake", Rank(1, 3)):
        pass


def test_a_rank_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    """Temporary files, shards without markers and notes of what is being made are those of the rank of their number."""
    run, out = make_run(tmp_path, people=40), tmp_path / "out"
    convert(run, Rank(0, 2))
    tasks = plan_shards(run)
    others = [out / ".fake-000001.tar.0123456789ab.tmp", out / "fake-000003.tar"]
    own = [out / ".fake-000004.tar.0123456789ab.tmp"]
    for path in [*others, *own]:
        path.write_bytes(b"half")
    tasks[2].files.marker.unlink()
    announce(tasks[1].files)
    convert(run, Rank(0, 2))
    assert tasks[1].files.started.exists() and not tasks[2].files.started.exists()
    assert tasks[2].files.marker.exists()
    assert all(path.exists() for path in others) and not any(path.exists() for path in own)
    convert(run, Rank(1, 2))
    assert not others[0].exists() and (out / "summary.json").exists()


def test_a_rank_that_begins_again_takes_the_summary_away_only_if_it_has_to(tmp_path: Path) -> None:
    run, out = make_run(tmp_path, people=40), tmp_path / "out"
    for number in range(2):
        convert(run, Rank(number, 2))
    plan_shards(run)[1].files.marker.unlink()
    with pytest.raises(ShardsFailedError):
        convert(run, Rank(1, 2), failing_work)
    assert not (out / "summary.json").exists()
    assert convert(run, Rank(0, 2)) is None, "it has nothing to do, and the run is not complete"
    assert convert(run, Rank(1, 2)) is not None


def test_overwriting_ranks_do_not_count_the_shards_of_the_other_configuration(tmp_path: Path) -> None:
    old, new = make_run(tmp_path, people=40, shard_size=5), make_run(tmp_path, people=40)
    convert(old)
    with pytest.raises(OutputError, match="shard_size: 5 against 8"):
        convert(new, Rank(0, 2))
    assert convert(new, Rank(0, 2), overwrite=True) is None
    assert convert(new, Rank(1, 2), overwrite=True) is not None
    assert len(list(Path(new.out).glob("*.tar"))) == 5


def test_one_rank_at_a_time_makes_what_all_use(tmp_path: Path) -> None:
    entered = threading.Event()
    said: list[str] = []

    def other() -> None:
        with sharing(tmp_path, Rank(1, 2), said.append):
            entered.set()

    thread = threading.Thread(target=other)
    with sharing(tmp_path, Rank(0, 2), said.append):
        thread.start()
        assert not entered.wait(0.2)
    thread.join(60)
    assert entered.is_set() and said == [
        "waiting for another rank, which reads the labels or writes the summary"
    ]


def test_the_status_of_ranks(tmp_path: Path) -> None:
    run = make_run(tmp_path, people=90)  # 12 shards
    convert(run, Rank(0, 4))
    with pytest.raises(ShardsFailedError):
        convert(run, Rank(1, 4), failing_work)
    with writing(Path(run.out), run.subset, Rank(2, 4)):
        status = read_status(Path(run.out))
        assert status.state == "running" and status.locked
        states = [(rank.state, rank.shards_done, rank.shards) for rank in status.ranks]
        assert states == [("finished", 3, 3), ("dead", 2, 3), ("running", 0, 3), ("not started", 0, 3)]
        assert status.ranks[0].people_per_second is not None and status.ranks[0].rows_done == 24
        assert (status.shards, status.shards_done, status.rows, status.rows_done) == (12, 5, 90, 40)
        assert status.seconds_left is None, "the rank at work has no pace yet"
    text = CliRunner().invoke(main, ["status", run.out]).stdout
    assert "stopped, 4 ranks; give the command again with --rank 1, 2, 3 and --world 4" in text
    assert "ranks: 1 finished, 1 dead, 2 not started, of 4" in text
    found = json.loads(CliRunner().invoke(main, ["status", run.out, "--json"]).stdout)
    assert [rank["state"] for rank in found["ranks"]] == ["finished", "dead", "not started", "not started"]
    for number in (1, 2, 3):
        convert(run, Rank(number, 4))
    assert {rank.state for rank in read_status(Path(run.out)).ranks} == {"finished"}
    assert "finished" in CliRunner().invoke(main, ["status", run.out]).stdout
    (Path(run.out) / "summary.json").unlink()
    text = CliRunner().invoke(main, ["status", run.out]).stdout
    assert "give the command of any rank again: it writes the summary" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rank 0", "--world: expected a number beside rank, found none"),
        ("--world 2", "--rank: expected a number beside world, found none"),
        ("--rank 2 --world 2", "--rank: expected a number from 0 to 1, for a world of 2, found 2"),
        ("--rank 0 --world 2 --scheduler tcp://host:1", "--rank: expected none with a scheduler"),
        ("--rank 0 --world 2 --dry-run", "--rank: expected none with a dry run"),
        ("--extend --overwrite", "--extend: expected none with overwrite"),
    ],
)
def test_options_that_do_not_apply_are_refused(tmp_path: Path, words: str, message: str) -> None:
    options = ["convert", "--labels", str(tmp_path / "x.npz"), "--out", str(tmp_path / "out"), *words.split()]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_a_label_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next rank takes the hash of a file of the same size and time; of another one, it does not."""
    labels, read = write_labels(tmp_path / "people.npz"), []

    def counted(path: Path) -> str:
        read.append(path)
        return file_sha256(path)

    monkeypatch.setattr(known_hashes, "file_sha256", counted)
    source = LabelSource("people.npz")
    first = build_store(source, labels, tmp_path / "stores", shared=True)
    assert build_store(source, labels, tmp_path / "stores", shared=True) == first and len(read) == 1
    os.utime(labels, ns=(0, 0))
    assert build_store(source, labels, tmp_path / "stores", shared=True) == first and len(read) == 2
    write_labels(labels, 21)
    assert build_store(source, labels, tmp_path / "stores", shared=True) != first and len(read) == 3
    (tmp_path / "stores" / known_hashes.NAME).write_text("{")
    build_store(source, labels, tmp_path / "stores", shared=True)
    assert len(read) == 4
