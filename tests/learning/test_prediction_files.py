"""`skelfit predict`: its files, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from math import radians, tan
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from prediction_runs import parameters_of, rows_of, run_predict

from skelfit.bodies.model_set import ModelSet
from skelfit.errors import OutputError
from skelfit.exports.output_folder import prepare_folder
from skelfit.exports.predicted_people import PEOPLE_NAME, RECORD_NAME
from skelfit.learning.inference.prediction_files import PredictionWriter
from skelfit.learning.training import checkpoint


@pytest.fixture(scope="module")
def done(trained: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A prediction of two photos, a damaged one and one that is not there."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "odd.jpg").write_bytes(b"no image")
    arguments = ("--out", folder / "out", "--meshes", "all", "--fov", 60)
    return folder / "out", run_predict(
        trained.parent, photos, folder / "odd.jpg", folder / "none.jpg", *arguments
    )


def test_every_photo_has_a_row(done: tuple[Path, Result], photos: Path) -> None:
    out, result = done
    assert result.exit_code == 0, result.output
    rows = rows_of(out)
    assert [row["status"] for row in rows] == ["ok", "ok", "image_damaged", "image_missing"]
    assert [Path(row["photo"]).name for row in rows] == [
        "000000000000.jpg",
        "000000000001.jpg",
        "odd.jpg",
        "none.jpg",
    ]
    record = json.loads((out / "predict.json").read_text())
    assert record["photos"] == 4 and record["people"] == 2
    assert record["statuses"] == {"ok": 2, "image_damaged": 1, "image_missing": 1}
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there == {*record["files"], "predict.json"}
    assert "4 photos in, 2 people out" in result.output and "odd.jpg: image_damaged" in result.output
    assert "not those of the training" not in result.output


def test_other_body_models_are_reported(
    trained: Path, models: ModelSet, photos: Path, tmp_path: Path
) -> None:
    content = checkpoint.load(trained) | {"models": "0123456789abcdef"}
    checkpoint.save(tmp_path / "other.pt", content)
    result = run_predict(
        tmp_path / "other.pt", photos, "--limit", 1, "--meshes", "none", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0
    assert "models: not those of the training (sha256 0123456789ab)" in result.stderr
    record = json.loads((tmp_path / "out/predict.json").read_text())["models"]
    assert (record["sha256"], record["of_training"]) == (models.sha256, "0123456789abcdef")


def test_the_parameters(done: tuple[Path, Result], models: ModelSet) -> None:
    people = parameters_of(done[0])
    shapes = {
        "skel_poses": (46,),
        "skel_betas": (10,),
        "skel_trans": (3,),
        "global_orient": (3, 3),
        "cam_int": (3, 3),
        "joints": (24, 3),
        "keypoints3d": (44, 3),
        "keypoints2d": (44, 2),
        "box": (4,),
        "square": (3,),
        "person": (),
        "photo": (),
        "crop_camera": (3,),
        "sequence": (),
        "frame": (),
        "time": (),
        "track": (),
    }
    assert {name: value.shape for name, value in people.items()} == {
        name: (2, *shape) for name, shape in shapes.items()
    }
    homogeneous = np.einsum("nij,nkj->nki", people["cam_int"], people["keypoints3d"])
    np.testing.assert_allclose(
        people["keypoints2d"], homogeneous[..., :2] / homogeneous[..., 2:], rtol=1e-4, atol=1e-2
    )
    focal = 128 / tan(radians(30))
    np.testing.assert_allclose(
        people["cam_int"][0], np.array([[focal, 0, 128], [0, focal, 128], [0, 0, 1]]), rtol=1e-6
    )
    np.testing.assert_allclose(np.linalg.det(people["global_orient"]), 1, atol=1e-4)
    # In front of the camera, and option the square is.
    assert (people["skel_trans"][:, 2] > 1).all()
    assert (np.abs(people["keypoints2d"].mean(1) - people["square"][:, :2]) < 80).all()


def test_meshes_are_the_people(done: tuple[Path, Result], models: ModelSet) -> None:
    from trimesh import load_mesh

    people = parameters_of(done[0])
    skin = load_mesh(done[0] / "meshes" / "000000000001-0-skin.ply", process=False)
    bones = load_mesh(done[0] / "meshes" / "000000000001-0-bones.ply", process=False)
    assert skin.vertices.shape == (6890, 3) and len(bones.vertices) == 24752
    points = models.keypoints44 @ (skin.vertices * [1, -1, -1])  # y up there, down in cameras
    np.testing.assert_allclose(points, people["keypoints3d"][1], atol=1e-3)
    assert np.abs(bones.vertices.mean(0) - skin.vertices.mean(0)).max() < 0.3


def test_an_overlay_differs_near_the_person_alone(done: tuple[Path, Result], photos: Path) -> None:
    from trimesh import load_mesh

    for i in range(2):
        name = f"{i:012d}"
        before = np.asarray(Image.open(photos / f"{name}.jpg").convert("RGB"), float)
        overlay = Image.open(done[0] / "overlays" / f"{name}.jpg")
        assert overlay.size == (512, 256)
        after = np.asarray(overlay.crop((0, 0, 256, 256)), float)
        off = np.abs(before - after).max(-1)
        skin = load_mesh(done[0] / "meshes" / f"{name}-0-skin.ply", process=False).vertices * [1, -1, -1]
        homogeneous = skin @ parameters_of(done[0])["cam_int"][i].T
        pixels = (homogeneous[:, :2] / homogeneous[:, 2:]).round().astype(int)
        near = np.zeros((256 + 40, 256 + 40), bool)
        inside = ((pixels > -16) & (pixels < 272)).all(1)
        for x, y in {tuple(p) for p in pixels[inside].tolist()}:
            near[y + 20 - 8 : y + 20 + 9, x + 20 - 8 : x + 20 + 9] = True  # a block of a JPEG
        near = near[20:-20, 20:-20]
        assert 0.05 < near.mean() < 0.8
        assert off[~near].max() < 25  # what two JPEGs differ by
        assert off[near].mean() > 20


def test_existing_files_are_not_overwritten(trained: Path, photos: Path, tmp_path: Path) -> None:
    arguments = (trained, photos / "000000000000.jpg", "--out", tmp_path / "out", "--meshes", "none")
    assert run_predict(*arguments).exit_code == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    (tmp_path / "out" / "mine.txt").write_text("mine")
    refused = run_predict(*arguments)
    assert (
        refused.exit_code == 2
        and "holds files already; choose another folder or --overwrite" in refused.output
    )
    assert run_predict(*arguments, "--overwrite", "--overlays", "none").exit_code == 0
    after = {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert set(before) - set(after) == {"000000000000.jpg"} and after["mine.txt"] == b"mine"
    assert after["people.npz"] == before["people.npz"]


def test_a_run_that_is_stopped_leaves_no_files(
    trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the record, a later `--overwrite` could not tell them from the user's own."""
    out = tmp_path / "out"
    written: list[Path] = []

    def stopped(writer: PredictionWriter, about: object) -> None:
        written.extend(path for path in out.rglob("*") if path.is_file())
        raise KeyboardInterrupt

    monkeypatch.setattr(PredictionWriter, "finish", stopped)
    result = run_predict(trained, photos / "000000000000.jpg", "--out", out, "--meshes", "all")
    assert result.exit_code != 0 and len(written) >= 3
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.parametrize("files", [5, ["people.npz", 3], None])
def test_records_that_others_wrote_remove_nothing(files: object, tmp_path: Path) -> None:
    (tmp_path / RECORD_NAME).write_text(json.dumps({"files": files}))
    (tmp_path / PEOPLE_NAME).write_text("mine")
    with pytest.raises(OutputError, match="expected a folder that skelfit wrote, .* found other files"):
        prepare_folder(tmp_path, True, RECORD_NAME)
    assert (tmp_path / PEOPLE_NAME).read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("x.tar", "--margin", 2), "give either photos or shards"),
        (("x.tar", "--min-score", 0.9), "give either photos or shards"),
        (("x.jpg", "--min-score", 0.9, "--box", "1,2,3,4"), "--min-score is for --boxes and --detector"),
        (("x.jpg", "--frame-rate", "nan"), "nan is not a finite number"),
        (("x.jpg", "--frame-rate", "inf"), "inf is not a finite number"),
        (("x.jpg", "--margin", "nan"), "nan is not a finite number"),
    ],
)
def test_options_that_do_not_apply_are_refused(
    options: tuple[object, ...], message: str, tmp_path: Path
) -> None:
    result = run_predict("no.pt", *options, "--out", tmp_path / "out")
    assert result.exit_code == 2 and message in result.output


def test_no_people_exit_with_1(trained: Path, tmp_path: Path) -> None:
    result = run_predict(trained, tmp_path / "none.jpg", "--out", tmp_path / "out")
    assert result.exit_code == 1 and rows_of(tmp_path / "out")[0]["status"] == "image_missing"
    result = run_predict(trained, tmp_path, "--out", tmp_path / "more")
    assert result.exit_code == 2 and "expected images" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fov", 60, "--intrinsics", "500,500,128,128"), "give one of them"),
        (("--box", "1,2,3"), "expected x,y,w,h, four numbers in px, found '1,2,3'"),
        (("--box", "1,2,0,3"), "expected x,y,w,h"),
        (("--intrinsics", "0,1,2,3"), "expected fx,fy,cx,cy"),
        (("--intrinsics-from", "no_such:thing"), "'no_such:thing': expected package.module:callable"),
        (("--intrinsics-from", "math:pi"), "found float"),
        (("--boxes", "none.json"), "none.json: expected a list of detections"),
        (("b.tar",), "either photos or shards"),
        (("--held-out",), "--held-out is for shards (.tar)"),
        (("--detector", "no_such:thing"), "'no_such:thing': expected package.module:callable"),
        (("--detector", "math:pi", "--box", "1,2,3,4"), "--box and --detector say the same"),
        (("--every", 2), "--every is for videos"),
    ],
)
def test_invalid_options_are_refused(
    arguments: Sequence[object], message: str, trained: Path, photos: Path, tmp_path: Path
) -> None:
    result = run_predict(trained, photos, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "out").exists()


def test_other_files_of_a_folder_are_reported(trained: Path, photos: Path, tmp_path: Path) -> None:
    """What is skipped is one line, and what only looks like an image is a row; neither blocks."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes((photos / "000000000000.jpg").read_bytes())
    for name in ("b.heic", "c.heic", "d", ".DS_Store"):
        (folder / name).touch()
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "pipe")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "huge.png").write_bytes(b"")
    os.truncate(folder / "huge.png", (64 << 20) + 1)
    os.mkfifo(tmp_path / "alone.tiff")
    given = (folder, tmp_path / "alone.tiff", tmp_path / "x.heic")
    result = run_predict(trained, *given, "--meshes", "none", "--overlays", "none", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    skipped = "4 files are skipped, not read as images: 2 .heic, 2 without an ending"
    assert result.stderr.count(f"{folder}: {skipped}\n") == 1
    rows = {Path(row["photo"]).name: (row["status"], row["reason"]) for row in rows_of(tmp_path / "out")}
    assert rows == {
        "a.jpg": ("ok", ""),
        "gone.jpg": ("image_missing", "no such file"),
        "huge.png": ("image_too_large", "67,108,865 bytes, at most 67,108,864 are read"),
        "pipe.jpg": ("image_unreadable", "a named pipe, not a regular file"),
        "alone.tiff": ("image_unreadable", "a named pipe, not a regular file"),
        "x.heic": ("image_missing", "its name ends with .heic, which is not read"),
    }
    (tmp_path / "others").mkdir()
    (tmp_path / "others/b.heic").touch()
    result = run_predict(trained, tmp_path / "others", "--out", tmp_path / "none")
    assert result.exit_code == 2 and "found 1 file is skipped, not read as images: 1 .heic" in result.output


@pytest.mark.parametrize("option", ["checkpoint", "boxes", "shard"])
def test_named_pipes_do_not_block(option: str, trained: Path, photos: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.tar"
    os.mkfifo(pipe)
    checkpoint_file, shown = trained, photos
    boxes: tuple[object, ...] = ()
    if option == "checkpoint":
        checkpoint_file = pipe
    elif option == "boxes":
        boxes = ("--boxes", pipe)
    else:
        shown = pipe
    result = run_predict(checkpoint_file, shown, *boxes, "--out", tmp_path / "out")
    assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
    assert f"{pipe}: expected " in result.output and "found a named pipe" in result.output
