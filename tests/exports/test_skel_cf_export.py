"""Export to SKEL-CF: a loader of its keys, shards from the exported file, and incomplete runs refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_fakes import export, make_fields, make_metas, write_run
from job_fakes import (
    DIVERGED_ROW,
    FAR_ROW,
    NAN_ROW,
    NO_IMAGE_ROW,
    FakeFitter,
    make_run,
    picture,
    write_labels,
)
from PIL import Image
from verify_fakes import edit_json

from skelfit.api.run_shards import convert_run
from skelfit.bodies.model_set import ModelSet
from skelfit.config.manifest import LabelSource
from skelfit.config.pipeline import Pipeline, load_pipeline
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.row_fits import LabelFitter
from skelfit.conversion.run_fitter import make_fitter
from skelfit.conversion.run_plan import LabelFile, Run
from skelfit.errors import OutputError
from skelfit.exports.exporter import ExportOptions
from skelfit.labels.label_store import build_store, store_info
from skelfit.shards.finished_run import open_run
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_json

ROOT = Path(__file__).parents[2]
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
    "skel_gender": (),
    "coordinates": (),
    "pose_cam": (24, 3),
    "shape": (10,),
    "trans_cam": (3,),
    "gender": (),
}


class SkelCfDataset:
    """Reads a label file by the keys that SKEL-CF's trainer asks for, item by item, as it does."""

    def __init__(self, path: Path, images: Path, rule: str = "none") -> None:
        self.labels = np.load(path, allow_pickle=False)
        self.columns = {key: self.labels[key] for key in ("imgname", "scale", "center", "skel_poses")}
        self.columns |= {key: self.labels[key] for key in ("gtkps", "keypoints3d", "cam_int")}
        self.columns["skel_betas"] = self.labels["skel_betas"][:, :10]
        self.images, self.rule = images, rule

    def __len__(self) -> int:
        return len(self.columns["scale"])

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        item = {key: column[i] for key, column in self.columns.items()}
        side = np.max(item.pop("scale") * 200)
        assert side >= 1 and item["gtkps"].shape == (44, 3) and item["keypoints3d"].shape == (44, 4)
        name = str(item.pop("imgname"))
        with Image.open(
            self.images / (name.rpartition("/")[2] if self.rule == "basename" else name)
        ) as image:
            item["img"] = np.asarray(image.convert("RGB"), np.float32)
        centred = item["gtkps"][:, :2] - item["center"]
        item["kp2d"] = np.concatenate([centred / side, item["gtkps"][:, 2:]], 1).astype(np.float32)
        item["relative"] = item["keypoints3d"][:, :3] - item["keypoints3d"][39, :3]
        return item


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run of 20 rows, of which 17 people are published."""
    run = make_run(tmp_path)
    convert_run(run, work=partial(convert_batch, fitter=FakeFitter()))
    return Path(run.out)


def test_exported_arrays_are_those_of_the_labels(tmp_path: Path, run_folder: Path) -> None:
    assert export("skel-cf", run_folder, tmp_path / "new" / "out.npz").people == 17
    kept = [i for i in range(20) if i not in (NAN_ROW, DIVERGED_ROW, FAR_ROW)]
    with np.load(tmp_path / "new" / "out.npz") as out, np.load(tmp_path / "people.npz") as source:
        assert {key: out[key].shape[1:] for key in out.files} == SHAPES
        np.testing.assert_array_equal(out["row"], kept)
        assert out["imgname"].dtype.kind == "U" and out["row"].dtype == np.int64
        for key in ("imgname", "scale", "center", "gtkps", "cam_int"):
            np.testing.assert_array_equal(out[key], source[key][kept])
        np.testing.assert_array_equal(out["skel_betas"], 2 * source["shape"][kept])
        np.testing.assert_array_equal(out["skel_trans"], source["trans_cam"][kept] + 1)
        for key in ("shape", "trans_cam"):
            np.testing.assert_array_equal(out[key], source[key][kept])
        np.testing.assert_array_equal(out["pose_cam"].reshape(-1, 72), source["pose_cam"][kept])
        assert out["gender"].tolist() == ["neutral"] * 17
        assert out["skel_poses"].dtype == np.float32
        np.testing.assert_allclose(out["skel_poses"][:3, 6], 0.5)


def test_a_loader_of_its_keys_reads_all_people(tmp_path: Path) -> None:
    run = make_run(tmp_path, images=True)
    (tmp_path / "images" / "train" / f"{NO_IMAGE_ROW:06d}.jpg").write_bytes(picture(NO_IMAGE_ROW))
    convert_run(run, work=partial(convert_batch, fitter=FakeFitter()))
    export("skel-cf", Path(run.out), tmp_path / "out.npz")
    people = SkelCfDataset(tmp_path / "out.npz", tmp_path / "images")
    assert len(people) == 17
    shapes = {
        "skel_poses": (46,),
        "skel_betas": (10,),
        "cam_int": (3, 3),
        "kp2d": (44, 3),
        "img": (16, 16, 3),
    }
    for i in range(17):
        item = people[i]
        assert {key: item[key].shape for key in shapes} == shapes
        assert all(np.isfinite(value).all() for value in item.values())
        assert all(item[key].dtype == np.float32 for key in shapes)


def test_shards_made_of_the_exported_file_hold_the_same(tmp_path: Path, models: ModelSet) -> None:
    """Labels -> shards -> export -> shards, with the fit: every number of every person to the bit."""
    labels = write_labels(tmp_path / "people.npz", 10)
    pipeline = replace(load_pipeline(ROOT / "pipelines" / "hmr-skel.yaml"), shard_size=4)
    fitter = make_fitter(models, pipeline, "cpu")
    first = convert(tmp_path / "first", labels, pipeline, models, fitter)
    export("skel-cf", first, tmp_path / "out.npz")
    second = convert(tmp_path / "second", tmp_path / "out.npz", pipeline, models, fitter)
    before, after = (list(open_run(folder).people()) for folder in (first, second))
    assert len(before) == len(after) == 9
    with np.load(tmp_path / "out.npz") as out:
        rows = out["row"]
    for i, (one, other) in enumerate(zip(before, after, strict=True)):
        for name, value in one.fields.items():
            np.testing.assert_array_equal(other.fields[name], value, err_msg=name)
        assert one.meta["row"] == rows[i] and other.meta["row"] == i
        # What was regressed from the fit at first is a label the second time.
        assert (one.meta["keypoints3d"], other.meta["keypoints3d"]) == ("skel", "labels")
        same = ("imgname", "smpl_gender", "skel_gender", "status")
        assert all(one.meta[key] == other.meta[key] for key in same)
    export("skel-cf", second, tmp_path / "again.npz")
    with np.load(tmp_path / "out.npz") as out, np.load(tmp_path / "again.npz") as again:
        assert out.files == again.files
        for key in set(out.files) - {"row"}:
            np.testing.assert_array_equal(again[key], out[key], err_msg=key)


def test_smpl_labels_are_exported_only_in_a_camera_frame(tmp_path: Path) -> None:
    changes: dict[str, list[Any]] = {
        "smpl": [True, False],
        "camera": [True, False],
        "coordinates": ["camera", "world_z_up"],
    }
    for name, values in changes.items():
        folder = write_run(tmp_path / name, make_fields(2), make_metas(2, **{name: values}))
        export("skel-cf", folder, tmp_path / f"{name}.npz")
        with np.load(tmp_path / f"{name}.npz") as out:
            assert not {"pose_cam", "shape", "trans_cam", "gender"} & set(out.files)
            assert out["skel_poses"].shape == (2, 46)


def convert(folder: Path, labels: Path, pipeline: Pipeline, models: ModelSet, fitter: LabelFitter) -> Path:
    """Shards of a CameraHMR label file, in `folder`."""
    store = build_store(LabelSource(labels.name, "camerahmr"), labels, folder.with_name("stores"))
    info = store_info(store)
    run = replace(
        make_run(folder.with_name("unused"), 1),
        subset="same",
        out=str(folder),
        models_sha256=models.sha256,
        pipeline=pipeline,
        labels=(LabelFile(str(store), labels.name, info.sha256, info.rows, "camerahmr", "neutral", "none"),),
    )
    convert_run(run, work=partial(convert_batch, fitter=fitter))
    return folder


def test_boxes_that_are_not_square_keep_both_sides(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with np.load(tmp_path / "people.npz") as source:
        columns = dict(source)
    columns["scale"] = np.stack([columns["scale"], columns["scale"] * 2], axis=1)
    np.savez(tmp_path / "people.npz", **columns)
    run = remake(tmp_path, run)
    convert_run(run, work=partial(convert_batch, fitter=FakeFitter()))
    export("skel-cf", Path(run.out), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_array_equal(out["scale"], columns["scale"][out["row"]])


def remake(folder: Path, run: Run) -> Run:
    """The run of a label file that has changed."""
    store = build_store(LabelSource("people.npz", "camerahmr"), folder / "people.npz", folder / "stores")
    return replace(run, labels=(replace(run.labels[0], store=str(store)),))


def test_a_file_is_replaced_only_with_overwrite(tmp_path: Path, run_folder: Path) -> None:
    out = tmp_path / "out.npz"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        export("skel-cf", run_folder, out)
    assert out.read_text() == "mine"
    assert export("skel-cf", run_folder, out, ExportOptions(overwrite=True)).people == 17
    with pytest.raises(OutputError, match=r"ends in \.npz"):
        export("skel-cf", run_folder, tmp_path / "out.pkl")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("summary.json", r"summary\.json: .*no such file"),
        ("fake-000001.done.json", r"fake-000001\.done\.json: .*no such file"),
        ("fake-000001.tar", r"fake-000001\.tar: .*no such file"),
        ("fake-000001.*", "expected the 3 shards of the summary, found 2"),
    ],
)
def test_an_incomplete_run_is_refused(tmp_path: Path, run_folder: Path, missing: str, message: str) -> None:
    for path in run_folder.glob(missing):
        path.unlink()
    with pytest.raises(ShardError, match=message):
        export("skel-cf", run_folder, tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_a_tar_that_was_cut_is_refused(tmp_path: Path, run_folder: Path) -> None:
    tar = run_folder / "fake-000002.tar"
    tar.write_bytes(tar.read_bytes()[:-10240])
    with pytest.raises(ShardError, match=r"fake-000002\.tar: expected \d+ bytes"):
        export("skel-cf", run_folder, tmp_path / "out.npz")


def test_a_tar_with_fewer_people_than_its_marker_says_is_refused(tmp_path: Path, run_folder: Path) -> None:
    for name, key in (("fake-000001.done.json", "rows_out"), ("summary.json", "rows_out")):
        content = read_json(run_folder / name)
        edit_json(run_folder / name, seal=True, **{key: content[key] + 1})
    with pytest.raises(ShardError, match=r"fake-000001\.tar: expected 9 samples, found 8"):
        export("skel-cf", run_folder, tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_a_run_without_people_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, people=4)

    class Never(FakeFitter):
        def fit(self, *args: Any) -> Any:
            result = super().fit(*args)
            result.converged[:] = False
            return result

    convert_run(run, work=partial(convert_batch, fitter=Never()))
    with pytest.raises(ShardError, match="at least one person"):
        export("skel-cf", Path(run.out), tmp_path / "out.npz")
