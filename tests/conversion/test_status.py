"""`skelfit status`: from files alone, of runs that run, are finished, were killed, and of none."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import programs
import pytest
from click.testing import CliRunner
from job_fakes import FakeFitter, failing_work, hashes, make_run

from skelfit.api.run_shards import ShardsFailedError, convert_run
from skelfit.cli import main
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.run_lock import RECORD_NAME, writing
from skelfit.conversion.run_plan import Run, plan_shards
from skelfit.conversion.run_status import read_status
from skelfit.conversion.shard_task import announce
from skelfit.executors.progress_bars import duration
from skelfit.shards.shard_files import ShardError


def convert(run: Run) -> None:
    with writing(Path(run.out), run.subset):
        convert_run(run, work=partial(convert_batch, fitter=FakeFitter()))


def status_text(folder: str, *options: str) -> str:
    result = CliRunner().invoke(main, ["status", folder, *options])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_finished_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    convert(run)
    status = read_status(Path(run.out))
    assert (status.state, status.locked, status.shards, status.shards_done) == ("finished", False, 3, 3)
    assert (status.rows, status.rows_done, status.rows_out) == (20, 20, 17)
    assert sum(status.statuses.values()) == 20
    assert status.rejected["residual_above_gate: pve_mm"] == 1
    assert status.people_per_second is not None and status.people_per_second > 0
    assert status.last_activity is not None and status.last_activity < 60
    text = status_text(run.out)
    assert "finished" in text and "shards: 3 of 3 done" in text and "rows: 20 of 20 done" in text
    assert "left" not in text


def test_a_run_that_was_cut_short(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ShardsFailedError), writing(Path(run.out), run.subset):
        convert_run(run, work=failing_work)
    status = read_status(Path(run.out))
    assert (status.state, status.shards_done, status.rows_done) == ("stopped", 2, 12)
    assert status.seconds_left is not None and status.seconds_left > 0
    text = status_text(run.out)
    assert "stopped" in text and "the same command goes on" in text and "left at this speed" in text


def test_a_run_that_runs_in_another_process(tmp_path: Path) -> None:
    """The status sees the lock, the shard in progress and who works on it, and leaves all as it is."""
    run = make_run(tmp_path)
    with pytest.raises(ShardsFailedError), writing(Path(run.out), run.subset):
        convert_run(run, work=failing_work)
    task = plan_shards(run)[1]
    with writing(Path(run.out), run.subset):
        announce(task.files)
        before = hashes(Path(run.out))
        code, said, errors = programs.run("-m", "skelfit", "status", run.out, "--json")
        assert code == 0, errors
        found = json.loads(said)
        assert found["state"] == "running" and found["locked"] and found["pid"] == os.getpid()
        (busy,) = found["shards"]["in_progress"]
        assert busy["name"] == "fake-000001" and busy["process"] == os.getpid()
        assert found["shards"] == {"total": 3, "done": 2, "pending": 1, "in_progress": [busy]}
        assert found["rows"] == {"total": 20, "done": 12, "out": 9}
        text = status_text(run.out)
        assert f"running (process {os.getpid()} on" in text and "1 in progress" in text
        assert hashes(Path(run.out)) == before
    assert read_status(Path(run.out)).in_progress == ()


def test_what_cannot_be_told_is_left_open(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    convert(run)
    (Path(run.out) / RECORD_NAME).unlink()
    assert read_status(Path(run.out)).shards == 3
    (Path(run.out) / "summary.json").unlink()
    (Path(run.out) / "fake-000001.done.json").write_text("{")
    status = read_status(Path(run.out))
    assert (status.shards, status.shards_done, status.rows) == (None, 2, None)
    assert "shards: 2 of ? done" in status_text(run.out)
    json.loads(status_text(run.out, "--json"))


def test_another_machine_may_hold_a_lock_that_we_do_not_see(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ShardsFailedError), writing(Path(run.out), run.subset):
        convert_run(run, work=failing_work)
    path = Path(run.out) / RECORD_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "node17"}))
    assert "no run is seen from this machine; the last was process" in status_text(run.out)


def test_no_run_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="expected the folder of a run, found no shards"):
        read_status(tmp_path)
    assert CliRunner().invoke(main, ["status", str(tmp_path / "nowhere")]).exit_code == 2


def test_durations() -> None:
    texts = [duration(s) for s in (0.4, 59, 60, 185, 7620, 90000, 86400)]
    assert texts == ["0 s", "59 s", "1 min", "3 min 5 s", "2 h 7 min", "1 d 1 h", "1 d"]
