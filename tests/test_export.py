"""Export to SKEL-CF: what was converted comes back, and incomplete runs are refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from job_fakes import DIVERGED_ROW, FAR_ROW, NAN_ROW, FakeFitter, make_run

from skelfit.cli.convert import convert_run
from skelfit.errors import OutputError
from skelfit.export.people import open_run
from skelfit.export.skel_cf import export_skel_cf
from skelfit.job import run_shard
from skelfit.shards import ShardError

SHAPES = {
    "imgname": (),
    "scale": (),
    "center": (2,),
    "skel_poses": (46,),
    "skel_betas": (10,),
    "skel_trans": (3,),
    "gtkps": (44, 3),
    "keypoints3d": (44, 4),
    "cam_int": (3, 3),
    "row": (),
}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run of 20 rows, of which 17 people are published."""
    run = make_run(tmp_path)
    convert_run(run, work=partial(run_shard, fitter=FakeFitter()))
    return Path(run.out)


def test_what_was_converted_comes_back(tmp_path: Path, run_folder: Path) -> None:
    assert export_skel_cf(open_run(run_folder), tmp_path / "new" / "out.npz") == 17
    kept = [i for i in range(20) if i not in (NAN_ROW, DIVERGED_ROW, FAR_ROW)]
    with np.load(tmp_path / "new" / "out.npz") as out, np.load(tmp_path / "people.npz") as source:
        assert {key: out[key].shape[1:] for key in out.files} == SHAPES
        np.testing.assert_array_equal(out["row"], kept)
        assert out["imgname"].dtype.kind == "U" and out["row"].dtype == np.int64
        for key in ("imgname", "scale", "center", "gtkps", "cam_int"):
            np.testing.assert_array_equal(out[key], source[key][kept])
        np.testing.assert_array_equal(out["skel_betas"], 2 * source["shape"][kept])
        np.testing.assert_array_equal(out["skel_trans"], source["trans_cam"][kept] + 1)
        assert out["skel_poses"].dtype == np.float32
        np.testing.assert_allclose(out["skel_poses"][:3, 6], 0.5)


def test_boxes_that_are_not_square_keep_both_sides(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with np.load(tmp_path / "people.npz") as source:
        columns = dict(source)
    columns["scale"] = np.stack([columns["scale"], columns["scale"] * 2], axis=1)
    np.savez(tmp_path / "people.npz", **columns)
    run = remake(tmp_path, run)
    convert_run(run, work=partial(run_shard, fitter=FakeFitter()))
    export_skel_cf(open_run(Path(run.out)), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["scale"], columns["scale"][out["row"]])


def remake(folder: Path, run):
    """The run of a label file that has changed."""
    from dataclasses import replace

    from skelfit.config import LabelSource
    from skelfit.labels.store import build_store

    store = build_store(LabelSource("people.npz", "camerahmr"), folder / "people.npz", folder / "stores")
    return replace(run, labels=(replace(run.labels[0], store=str(store)),))


def test_a_file_is_not_replaced_unasked(tmp_path: Path, run_folder: Path) -> None:
    out = tmp_path / "out.npz"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        export_skel_cf(open_run(run_folder), out)
    assert out.read_text() == "mine"
    assert export_skel_cf(open_run(run_folder), out, overwrite=True) == 17
    with pytest.raises(OutputError, match=r"ends in \.npz"):
        export_skel_cf(open_run(run_folder), tmp_path / "out.pkl")


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("summary.json", r"summary\.json: .*no such file"),
        ("fake-000001.done.json", r"fake-000001\.done\.json: .*no such file"),
        ("fake-000001.tar", r"fake-000001\.tar: .*no such file"),
        ("fake-000001.*", "expected the 3 shards of the summary, found 2"),
    ],
)
def test_an_incomplete_run_is_refused(tmp_path: Path, run_folder: Path, missing: str, said: str) -> None:
    for path in run_folder.glob(missing):
        path.unlink()
    with pytest.raises(ShardError, match=said):
        export_skel_cf(open_run(run_folder), tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_a_tar_that_was_cut_is_refused(tmp_path: Path, run_folder: Path) -> None:
    tar = run_folder / "fake-000002.tar"
    tar.write_bytes(tar.read_bytes()[:-10240])
    with pytest.raises(ShardError, match=r"fake-000002\.tar: expected \d+ bytes"):
        export_skel_cf(open_run(run_folder), tmp_path / "out.npz")


def test_a_run_without_people_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, people=4)

    class Never(FakeFitter):
        def fit(self, *args):
            result = super().fit(*args)
            result.converged[:] = False
            return result

    convert_run(run, work=partial(run_shard, fitter=Never()))
    with pytest.raises(ShardError, match="at least one person"):
        export_skel_cf(open_run(Path(run.out)), tmp_path / "out.npz")
