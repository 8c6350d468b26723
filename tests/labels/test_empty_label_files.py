"""Nothing in, nothing out: label files of 0 rows, from every reader through every command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camerahmr_file import camerahmr_arrays as camerahmr
from click.testing import CliRunner, Result
from job_fakes import FakeFitter
from label_files import LAYOUTS, amass, hmr2, write
from track_files import TRACK_FILES

from skelfit.cli import main
from skelfit.config.manifest import LabelLayout, LabelSource
from skelfit.labels.label_store import build_store, read_rows, store_sequences
from skelfit.labels.readers.registry import NO_ROWS, READERS, read_label_file
from skelfit.shards.shard_reader import read_json

MAKERS = LAYOUTS | {"camerahmr": camerahmr}
ONE_PER_FILE = ("betas", "gender", "mocap_framerate")  # of a sequence


def emptied(source: str, *, flat: bool = False) -> dict[str, Any]:
    """The columns of a layout without rows; flat: as `np.array([])` has nothing, whatever it is."""
    columns = MAKERS[source]()
    columns.pop("extra_info", None)
    for key, value in columns.items():
        if source != "amass" or key not in ONE_PER_FILE:
            columns[key] = np.array([]) if flat else value[:0]
    return columns


def skelfit_(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_all_layouts_are_here() -> None:
    """Those of tracks, which may be nested, are in `test_tracks`; BEDLAM's is CameraHMR's."""
    assert MAKERS.keys() | TRACK_FILES.keys() | {"bedlam"} == READERS.keys()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("ending", [".npz", ".h5", ".pkl"])
@pytest.mark.parametrize("source", MAKERS)
def test_every_reader_takes_no_rows(tmp_path: Path, source: LabelLayout, ending: str, flat: bool) -> None:
    batch = read_label_file(write(tmp_path / f"x{ending}", emptied(source, flat=flat)))
    good = read_label_file(write(tmp_path / "good.npz", MAKERS[source]()), source)
    assert len(batch) == 0 and batch.sequences == () and batch.about.notes[-1] == NO_ROWS
    assert batch.field_shapes() == good.field_shapes()
    assert batch.about.coordinates == good.about.coordinates


@pytest.mark.parametrize("changes", [
    {"global_orient": np.zeros((0, 6)), "body_pose": np.zeros((0, 23, 6))},
    {"global_orient": np.zeros((0, 3)), "body_pose": np.zeros((0, 69))},
    {"scaled_focal_length": np.zeros((0, 2)), "box_size": np.zeros((0, 1))},
])  # fmt: skip
def test_no_rows_in_other_shapes(tmp_path: Path, changes: dict[str, Any]) -> None:
    empty = {k: v[:0] for k, v in hmr2().items()} | changes
    assert len(read_label_file(write(tmp_path / "x.npz", empty))) == 0


@pytest.mark.parametrize("source", MAKERS)
def test_every_layout_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    convert_nothing(source, monkeypatch)


def convert_nothing(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert a file without rows to `out`."""
    monkeypatch.setattr("skelfit.api.convert_dataset.make_fitter", lambda *_: FakeFitter(stages=3))
    write(Path("none.npz"), emptied(source))
    result = skelfit_("convert", "--labels", "none.npz", "--out", "out", "--workers", 0)
    assert result.exit_code == 0 and "0 rows in, 0 people out" in result.output
    assert f"none.npz: 0 rows of {source} labels" in result.output and f"  {NO_ROWS}\n" in result.output
    summary = read_json(Path("out/summary.json"))
    assert (summary["rows_in"], summary["rows_out"], summary["shards"]) == (0, 0, 0)


@pytest.mark.parametrize("source", ["amass", "camerahmr"])
def test_every_command_takes_such_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Of sequences, and of people of images."""
    monkeypatch.chdir(tmp_path)
    convert_nothing(source, monkeypatch)
    result = skelfit_("verify", "out", "--html", "page.html", "--keep", "keep.csv")
    assert result.exit_code == 0 and "whole: every byte as it was written" in result.output
    assert skelfit_("card", "out").exit_code == 0
    assert "rows: 0 of 0 done, 0 people out" in skelfit_("status", "out").output
    result = skelfit_("export", "out", "--format", "skel-cf", "--out", "x.npz")
    assert result.exit_code == 2
    assert result.stderr == "Error: out: expected at least one person in the shards, found none\n"


def test_a_summary_of_no_rows_does_not_hide_lost_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("skelfit.api.convert_dataset.make_fitter", lambda *_: FakeFitter(stages=3))
    write(Path("some.npz"), amass(4))
    assert skelfit_("convert", "--labels", "some.npz", "--out", "out", "--workers", 0).exit_code == 0
    for path in Path("out").glob("some-*"):
        path.unlink()
    result = skelfit_("verify", "out", "--sample", 0)
    assert result.exit_code == 2
    assert "some.npz: 4 rows, of which the shards account for 0" in result.output


@pytest.mark.parametrize("first", [True, False])
def test_an_empty_sequence_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, first: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    empty, full = ("a", "b") if first else ("b", "a")
    write(Path("motions") / f"{empty}.npz", emptied("amass"))
    write(Path("motions/deep") / f"{empty}.npz", emptied("amass", flat=True))
    write(Path("motions") / f"{full}.npz", amass(5))
    store = build_store(LabelSource("motions"), Path("motions"), tmp_path / "stores")
    batch = read_rows(store, 0, 5)
    assert batch.bad == [""] * 5 and [s.start for s in store_sequences(store)] == [0]
    np.testing.assert_allclose(batch.pose[:, 3], amass(5)["poses"].reshape(5, -1, 3)[:, 3], atol=1e-6)
    assert f"{NO_ROWS} (2 of 3 files)" in batch.about.notes
    assert [r.args[0].name for r in caplog.records if "0 rows" in r.message] == [  # type: ignore[index,union-attr]
        f"{empty}.npz", f"{empty}.npz",
    ]  # fmt: skip


def test_a_folder_of_nothing_but_empty_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("skelfit.api.convert_dataset.make_fitter", lambda *_: FakeFitter(stages=3))
    for name in ("a", "b"):
        write(Path("motions") / f"{name}.npz", emptied("amass"))
    result = skelfit_("convert", "--labels", "motions", "--out", "out", "--workers", 0)
    assert result.exit_code == 0 and f"  {NO_ROWS} (2 of 2 files)\n" in result.output
    assert read_json(Path("out/summary.json"))["rows_in"] == 0


def test_a_run_that_publishes_nobody_has_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("skelfit.api.convert_dataset.make_fitter", lambda *_: FakeFitter(stages=3))
    write(Path("bad.npz"), amass(3) | {"trans": np.full((3, 3), np.nan)})
    assert skelfit_("convert", "--labels", "bad.npz", "--out", "out", "--workers", 0).exit_code == 0
    assert "card of 0 people" in skelfit_("card", "out").output
    assert skelfit_("verify", "out").exit_code == 0
