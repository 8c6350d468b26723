"""Runs whose labels grow: new rows get new shards, and all that was finished stays as it is."""

from __future__ import annotations

import dataclasses
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from job_fakes import FakeFitter, hashes, make_run, work, write_labels
from label_files import amass, write
from verify_fakes import damage_kinds, damage_of, edit_json

import skelfit
from skelfit.api.run_shards import ShardsFailedError, convert_rank, convert_run
from skelfit.cli import main
from skelfit.config.manifest import LabelLayout, LabelSource
from skelfit.conversion.batch_job import BatchJob
from skelfit.conversion.rank import Rank
from skelfit.conversion.run_lock import writing
from skelfit.conversion.run_plan import LabelFile, Run
from skelfit.conversion.run_status import read_status
from skelfit.conversion.shard_batch import ShardBatch
from skelfit.errors import OutputError
from skelfit.labels.label_store import build_store, store_info
from skelfit.shards.shard_files import ShardFiles
from skelfit.shards.shard_reader import read_json, read_rows

PEOPLE, SIZE = 46, 8


class Made:
    """Makes shards, and notes which; some fail."""

    def __init__(self, *failing: int) -> None:
        self.names: list[int] = []
        self.failing = failing

    def __call__(self, batch: ShardBatch) -> BatchJob:
        numbers = [int(task.name[-6:]) for task in batch.tasks]
        if set(numbers) & set(self.failing):
            raise RuntimeError("no such luck")
        self.names += numbers
        return work(batch)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labels(tmp_path_factory.mktemp("labels") / "people.npz", PEOPLE)


def cut(labels: Path, path: Path, start: int, stop: int, **changes: Any) -> Path:
    """A label file of some rows of another; changes: of columns, by the row that is set to 0."""
    with np.load(labels) as archive:
        columns = {name: archive[name][start:stop].copy() for name in archive.files}
    for name, row in changes.items():
        columns[name][row] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **columns)
    return path


def run_of(out: Path, *files: tuple[Path, int | None], source: LabelLayout = "camerahmr") -> Run:
    """A run of label files, with as many of their rows; None: all of them."""
    made = []
    for path, rows in files:
        store = build_store(LabelSource(path.name, source), path, out.parent / "stores")
        info = store_info(store)
        rows = info.rows if rows is None else rows
        made.append(LabelFile(str(store), path.name, info.sha256, rows, info.source, "neutral", "none"))
    pattern = make_run(out.parent / "pattern", 1, shard_size=SIZE)
    return dataclasses.replace(pattern, out=str(out), labels=tuple(made))


def convert(
    run: Run, made: Made | None = None, *, extend: bool = False, rank: Rank | None = None
) -> list[int]:
    """Convert; returns the numbers of the shards that were made."""
    made = made or Made()
    with writing(Path(run.out), run.subset, rank):
        if rank is None:
            convert_run(run, work=made, extend=extend)
        else:
            convert_rank(run, rank, work=made, extend=extend)
    return made.names


def rows_of_shards(out: Path) -> list[tuple[int, int, int]]:
    """Label file, first row and one past the last of each shard, in their order."""
    spans = []
    for path in sorted(out.glob("*.rows.jsonl")):
        rows = list(read_rows(path))
        spans.append((int(rows[0]["key"].split("-")[1]), rows[0]["row"], rows[-1]["row"] + 1))
    return spans


def assert_each_row_once(run: Run) -> None:
    summary = read_json(Path(run.out) / "summary.json")
    rows = Counter((i, row) for i, start, stop in rows_of_shards(Path(run.out)) for row in range(start, stop))
    assert set(rows.values()) == {1}
    assert set(rows) == {(i, row) for i, file in enumerate(run.labels) for row in range(file.rows)}
    assert summary["rows_in"] == len(rows) == sum(summary["statuses"].values())
    assert damage_of(Path(run.out)) == ()


def test_a_raised_limit(tmp_path: Path, labels: Path) -> None:
    """Old shards keep their bytes, the last and short one its rows; the summary counts all rows."""
    out = tmp_path / "out"
    assert convert(run_of(out, (labels, 20))) == [0, 1, 2]
    before = hashes(out)
    full = run_of(out, (labels, None))
    assert convert(full, extend=True) == [3, 4, 5, 6]
    assert before.items() <= hashes(out).items()
    spans = [(0, 8), (8, 16), (16, 20), (20, 28), (28, 36), (36, 44), (44, 46)]
    assert rows_of_shards(out) == [(0, *span) for span in spans]
    assert_each_row_once(full)
    fresh = run_of(tmp_path / "fresh", (labels, None))
    convert(fresh)
    leave = ("shards", "identity", "identity_sha256", "people_per_second", "time", "content_sha256")
    one, other = ({k: v for k, v in read_json(f / "summary.json").items() if k not in leave}
                  for f in (out, tmp_path / "fresh"))  # fmt: skip
    assert one == other
    status = read_status(out)
    assert (status.state, status.shards, status.shards_done, status.rows) == ("finished", 7, 7, PEOPLE)


def test_the_same_command_again_makes_nothing(tmp_path: Path, labels: Path) -> None:
    """With --extend and without: the labels are those of the run as it was extended."""
    out = tmp_path / "out"
    convert(run_of(out, (labels, 20)))
    full = run_of(out, (labels, None))
    convert(full, extend=True)
    before = hashes(out)
    for extend in (True, False):
        assert convert(full, extend=extend) == [] and hashes(out) == before
    (out / "fake-000001.tar").unlink()
    (out / "fake-000004.tar").unlink()
    assert convert(full) == [1, 4] and hashes(out) == before
    with pytest.raises(OutputError, match=r"another configuration .*labels\[0\]\.rows: 46 against 12"):
        convert(run_of(out, (labels, 12)))
    with pytest.raises(
        OutputError, match=r"cannot be extended: labels\[0\]\.rows: 46 are in its shards, and now"
    ):
        convert(run_of(out, (labels, 12)), extend=True)


def test_what_ends_in_the_middle_goes_on(tmp_path: Path, labels: Path) -> None:
    """A run that is cut short in each of its steps, and ranks, write the bytes of one that is not."""
    limits = (20, 30, None)
    for rows in limits:
        convert(run_of(tmp_path / "calm" / "out", (labels, rows)), extend=True)
    expected, out = hashes(tmp_path / "calm" / "out"), tmp_path / "out"
    assert len(expected) == 3 * (3 + 2 + 2) + 1
    for rows in limits:
        with pytest.raises(ShardsFailedError):
            convert(run_of(out, (labels, rows)), Made(2, 4, 6), extend=True)
    assert {path.name[5:11] for path in out.glob("*.tar")} == {"000000", "000001", "000003", "000005"}
    # The unfinished shards of the earlier steps are made with the last one.
    assert convert(run_of(out, (labels, None)), extend=True) == [2, 4, 6]
    assert hashes(out) == expected
    out = tmp_path / "ranks" / "out"
    convert(run_of(out, (labels, 20)))
    for rows in limits[1:]:
        for number in (1, 0, 2):
            convert(run_of(out, (labels, rows)), extend=True, rank=Rank(number, 3))
    assert hashes(out) == expected
    assert_each_row_once(run_of(out, (labels, None)))


def test_more_label_files(tmp_path: Path, labels: Path) -> None:
    """Rows of an early file stand behind those of later ones where both grow."""
    one = cut(labels, tmp_path / "labels" / "one.npz", 0, 14)
    two = cut(labels, tmp_path / "labels" / "two.npz", 14, 30)
    three = cut(labels, tmp_path / "labels" / "three.npz", 30, 40)
    out = tmp_path / "out"
    convert(run_of(out, (one, 10), (two, 5)))
    run = run_of(out, (one, None), (two, None), (three, None))
    assert convert(run, extend=True) == [3, 4, 5, 6, 7]
    spans = [(0, 0, 8), (0, 8, 10), (1, 0, 5), (0, 10, 14), (1, 5, 13), (1, 13, 16), (2, 0, 8), (2, 8, 10)]
    assert rows_of_shards(out) == spans
    assert_each_row_once(run)
    for files, message in (
        (((one, None), (three, None), (two, None)), r"labels\[1\]\.name: \"two.npz\" against \"three.npz\""),
        (((one, None), (two, None)), "it has 3 label files, and now there are 2"),
    ):
        with pytest.raises(OutputError, match=f"cannot be extended: {message}"):
            convert(run_of(out, *files), extend=True)


def test_a_label_file_that_grew(tmp_path: Path, labels: Path) -> None:
    """Its earlier rows are compared with the hashes in the markers; those of no finished shard may have changed."""
    path, out = tmp_path / "labels" / "people.npz", tmp_path / "out"
    convert(run_of(out, (cut(labels, path, 0, 20), None)))
    before = hashes(out)
    changed = run_of(out, (cut(labels, path, 0, 40, shape=9), None))
    with pytest.raises(
        OutputError, match="rows 8 to 15 of people.npz, or their coordinates, are not those of .*000001"
    ):
        convert(changed, extend=True)
    with pytest.raises(
        OutputError, match="has shards of 20 rows of 1 label file, .* 40 rows .*Give --extend"
    ):
        convert(changed)
    assert hashes(out) == before
    (out / "fake-000001.done.json").unlink()
    assert convert(changed, extend=True) == [1, 3, 4, 5]
    assert_each_row_once(changed)
    grown = run_of(out, (cut(labels, path, 0, 46, shape=9), None))
    edit_json(out / "fake-000000.done.json", seal=True, labels_sha256="")
    with pytest.raises(OutputError, match="has no hash of the label rows to compare with"):
        convert(grown, extend=True)
    same = run_of(out, (cut(labels, path, 0, 40, shape=9, cam_int=30), None))
    with pytest.raises(OutputError, match="cannot be extended: no row is new"):
        convert(same, extend=True)
    with pytest.raises(OutputError, match=r"labels\[0\]\.sha256"):
        convert(same)


def test_other_settings_are_named(tmp_path: Path, labels: Path) -> None:
    out = tmp_path / "out"
    convert(run_of(out, (labels, 20)))
    run = run_of(out, (labels, None))
    run = dataclasses.replace(run, pipeline=dataclasses.replace(run.pipeline, shard_size=5))
    with pytest.raises(OutputError, match="another configuration .*shard_size: 8 against 5"):
        convert(run, extend=True)


def test_no_sequence_is_cut(tmp_path: Path) -> None:
    folder, out = tmp_path / "motions", tmp_path / "out"
    for name, frames in (("a", 7), ("b", 6), ("c", 5), ("d", 9)):
        write(folder / f"{name}.npz", amass(frames))
    take = partial(run_of, out, source="amass")
    convert(take((folder, 13)))
    with pytest.raises(OutputError, match="has shards of 13 rows"):
        convert(take((folder, 20)))
    assert convert(take((folder, 20)), extend=True) == [2]
    with pytest.raises(
        OutputError, match="its 20 rows of motions end inside of the sequence d, which would be cut"
    ):
        convert(take((folder, None)), extend=True)
    assert rows_of_shards(out) == [(0, 0, 7), (0, 7, 13), (0, 13, 20)]


def test_a_folder_of_sequences_that_grew(tmp_path: Path) -> None:
    folder, out = tmp_path / "motions", tmp_path / "out"
    for name, frames in (("b", 7), ("c", 6)):
        write(folder / f"{name}.npz", amass(frames))
    convert(run_of(out, (folder, None), source="amass"))
    write(folder / "d.npz", amass(9))
    run = run_of(out, (folder, None), source="amass")
    assert convert(run, extend=True) == [2]
    assert_each_row_once(run)
    write(folder / "a.npz", amass(4))
    with pytest.raises(OutputError, match="rows 0 to 6 of motions, or their coordinates, are not those"):
        convert(run_of(out, (folder, None), source="amass"), extend=True)


def test_shards_of_other_steps_are_damage(tmp_path: Path, labels: Path) -> None:
    """A marker says which step its shard is of; one of another run, or in another order, is none of them."""
    out = tmp_path / "out"
    convert(run_of(out, (labels, 20)))
    convert(run_of(out, (labels, None)), extend=True)
    first, last = (read_json(ShardFiles(out, name).marker) for name in ("fake-000000", "fake-000006"))
    taken = {key: last[key] for key in ("identity", "identity_sha256")}
    edit_json(out / "fake-000001.done.json", **taken)
    assert ("fake-000001", None, "configuration") in damage_kinds(out)
    edit_json(out / "fake-000001.done.json", **{key: first[key] for key in taken})
    assert damage_kinds(out) == set()
    taken = {"identity": first["identity"] | {"algorithm": 2}, "identity_sha256": "0" * 64}
    edit_json(out / "fake-000006.done.json", **taken)
    assert ("fake-000006", None, "configuration") in damage_kinds(out)


def test_all_readers_take_an_extended_run(
    tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the commands: convert, convert --extend, and what reads shards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("skelfit.api.convert_dataset.make_fitter", lambda *_: FakeFitter(stages=3))
    monkeypatch.setattr("skelfit.api.convert_dataset.compile_once", lambda *_: None)
    words = ["convert", "--labels", labels, "--out", "out", "--workers", 0, "--shard-size", 8]

    def skelfit_(*words: object) -> str:
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    skelfit_(*words, "--limit", 20)
    planned = skelfit_(*words, "--extend", "--dry-run")
    assert "46 rows in 7 shards" in planned and "3 shards with 20 rows are finished already" in planned
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 2 and "Give --extend to add the others to it" in result.stderr
    said = skelfit_(*words, "--extend")
    assert (
        "extended: the last 26 rows have shards of their own" in said
        and "3 shards are finished already" in said
    )
    assert "shards: 7 of 7 done" in skelfit_("status", "out")
    people = skelfit.load_shards("out")
    assert len(people) == read_json(tmp_path / "out" / "summary.json")["rows_out"]
    skelfit_("export", "out", "--format", "skel-cf", "--out", "skel.npz")
    assert len(np.load("skel.npz")["imgname"]) == len(people)
