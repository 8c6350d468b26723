"""`skelfit predict`: photos to people, with whatever boxes and cameras, and nothing lost on the way."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from math import hypot, radians, tan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from test_loader_data import write_people

from skelfit.bodies.model_set import ModelSet
from skelfit.cli import main
from skelfit.errors import InputError
from skelfit.labels.demo_people import write_demo
from skelfit.learning.data.data_loader import DataConfig, each_once
from skelfit.learning.data.person_crops import square_around
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.learning.inference.intrinsics import PhotoCamera, exif_focal, from_exif, of_view, plugged_in
from skelfit.learning.inference.labelled_people import people_of_shards, prepare_sample
from skelfit.learning.inference.overlay import OverlayPainter
from skelfit.learning.inference.person_boxes import BoxFile, PersonBox, whole_photo
from skelfit.learning.inference.photos import (
    PhotoFile,
    PhotoSettings,
    find_photos,
    predict_photos,
    prepare_photo,
)
from skelfit.learning.inference.prediction_files import PredictionOutputs, PredictionWriter
from skelfit.learning.inference.predictor import CropInput, Predictor
from skelfit.learning.networks.network import NetworkConfig
from skelfit.learning.networks.skel_cf_network import SkelCfNetwork
from skelfit.learning.training import checkpoint
from skelfit.learning.training.training_config import TrainConfig
from skelfit.shards.label_vector import unpack

TINY = NetworkConfig(backbone="tiny", dim=32, heads=2, layers=2)


@pytest.fixture(scope="module")
def network() -> SkelCfNetwork:
    """A random one whose answers do not depend on the camera, but for the translation that they stand for."""
    torch.manual_seed(0)
    made = SkelCfNetwork(TINY)
    with torch.no_grad():
        made.place.weight.zero_()
        made.encoder[0].weight[:, -3:] = 0
        for readout in made.readout:  # as if it had learnt something
            readout.heads[0].weight.mul_(20)
    return made.eval()


@pytest.fixture(scope="module")
def trained(network: SkelCfNetwork, models: ModelSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig("fake", data=DataConfig((SubsetConfig("none.tar"),), held_out=0.5), network=TINY)
    path = tmp_path_factory.mktemp("run") / checkpoint.BEST_NAME
    content = {"step": 1, "config": asdict(config), "measured": None, "training": None}
    checkpoint.save(path, {**content, "models": models.sha256, "weights": network.state_dict()})
    return path


@pytest.fixture(scope="module")
def photos(models: ModelSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two photos, of 256 px."""
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, 2, models=models)
    return folder / "images"


@pytest.fixture(scope="module")
def predictor(network: SkelCfNetwork, models: ModelSet) -> Predictor:
    return Predictor(network, models, "male")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def people_of(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "people.npz") as content:
        return dict(content)


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def done(trained: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A prediction of two photos, a damaged one and one that is not there."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "odd.jpg").write_bytes(b"no image")
    arguments = ("--out", folder / "out", "--meshes", "all", "--fov", 60)
    return folder / "out", run(trained.parent, photos, folder / "odd.jpg", folder / "none.jpg", *arguments)


def test_everything_is_accounted_for(done: tuple[Path, Result], photos: Path) -> None:
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


def test_other_body_models_are_said_to_be_others(
    trained: Path, models: ModelSet, photos: Path, tmp_path: Path
) -> None:
    content = checkpoint.load(trained) | {"models": "0123456789abcdef"}
    checkpoint.save(tmp_path / "other.pt", content)
    found = run(tmp_path / "other.pt", photos, "--limit", 1, "--meshes", "none", "--out", tmp_path / "out")
    assert found.exit_code == 0
    assert "models: not those of the training (sha256 0123456789ab)" in found.stderr
    record = json.loads((tmp_path / "out/predict.json").read_text())["models"]
    assert (record["sha256"], record["of_training"]) == (models.sha256, "0123456789abcdef")


def test_the_parameters(done: tuple[Path, Result], models: ModelSet) -> None:
    people = people_of(done[0])
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
    }
    assert {name: value.shape for name, value in people.items()} == {
        name: (2, *shape) for name, shape in shapes.items()
    }
    seen = np.einsum("nij,nkj->nki", people["cam_int"], people["keypoints3d"])
    np.testing.assert_allclose(people["keypoints2d"], seen[..., :2] / seen[..., 2:], rtol=1e-4, atol=1e-2)
    focal = 128 / tan(radians(30))
    np.testing.assert_allclose(people["cam_int"][0], [[focal, 0, 128], [0, focal, 128], [0, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.det(people["global_orient"]), 1, atol=1e-4)
    # In front of the camera, and where the square is.
    assert (people["skel_trans"][:, 2] > 1).all()
    assert (np.abs(people["keypoints2d"].mean(1) - people["square"][:, :2]) < 80).all()


def test_meshes_are_the_people(done: tuple[Path, Result], models: ModelSet) -> None:
    import trimesh

    people = people_of(done[0])
    skin = trimesh.load(done[0] / "meshes" / "000000000001-0-skin.ply", process=False)
    bones = trimesh.load(done[0] / "meshes" / "000000000001-0-bones.ply", process=False)
    assert skin.vertices.shape == (6890, 3) and len(bones.vertices) == 24752
    points = models.keypoints44 @ (skin.vertices * [1, -1, -1])  # y up there, down in cameras
    np.testing.assert_allclose(points, people["keypoints3d"][1], atol=1e-3)
    assert np.abs(bones.vertices.mean(0) - skin.vertices.mean(0)).max() < 0.3


def test_an_overlay_differs_near_the_person_alone(done: tuple[Path, Result], photos: Path) -> None:
    import trimesh

    for i in range(2):
        name = f"{i:012d}"
        before = np.asarray(Image.open(photos / f"{name}.jpg").convert("RGB"), float)
        after = np.asarray(Image.open(done[0] / "overlays" / f"{name}.jpg"), float)
        off = np.abs(before - after).max(-1)
        skin = trimesh.load(done[0] / "meshes" / f"{name}-0-skin.ply", process=False).vertices * [1, -1, -1]
        seen = skin @ people_of(done[0])["cam_int"][i].T
        pixels = (seen[:, :2] / seen[:, 2:]).round().astype(int)
        near = np.zeros((256 + 40, 256 + 40), bool)
        inside = ((pixels > -16) & (pixels < 272)).all(1)
        for x, y in {tuple(p) for p in pixels[inside].tolist()}:
            near[y + 20 - 8 : y + 20 + 9, x + 20 - 8 : x + 20 + 9] = True  # a block of a JPEG
        near = near[20:-20, 20:-20]
        assert 0.05 < near.mean() < 0.8
        assert off[~near].max() < 25  # what two JPEGs differ by
        assert off[near].mean() > 20


def test_nothing_is_overwritten_unasked(trained: Path, photos: Path, tmp_path: Path) -> None:
    arguments = (trained, photos / "000000000000.jpg", "--out", tmp_path / "out", "--meshes", "none")
    assert run(*arguments).exit_code == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    (tmp_path / "out" / "mine.txt").write_text("mine")
    refused = run(*arguments)
    assert (
        refused.exit_code == 2
        and "holds files already; choose another folder or --overwrite" in refused.output
    )
    assert run(*arguments, "--overwrite", "--no-overlays").exit_code == 0
    after = {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert set(before) - set(after) == {"000000000000.jpg"} and after["mine.txt"] == b"mine"
    assert after["people.npz"] == before["people.npz"]


def test_nobody_is_an_exit_code_of_its_own(trained: Path, tmp_path: Path) -> None:
    result = run(trained, tmp_path / "none.jpg", "--out", tmp_path / "out")
    assert result.exit_code == 1 and rows_of(tmp_path / "out")[0]["status"] == "image_missing"
    result = run(trained, tmp_path, "--out", tmp_path / "more")
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
    ],
)
def test_options_that_are_refused(
    arguments: Sequence[object], message: str, trained: Path, photos: Path, tmp_path: Path
) -> None:
    result = run(trained, photos, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2 and message in result.output
    assert not (tmp_path / "out").exists()


def crops_of(photos: Path, settings: PhotoSettings) -> list[CropInput]:
    return [prepare_photo(photo, settings).inputs[0] for photo in find_photos([photos])]


def test_of_a_batch_everyone_is_as_alone(predictor: Predictor, photos: Path) -> None:
    made = crops_of(photos, PhotoSettings(whole_photo, of_view(60)))
    together = predictor([*made, *made[:1]]).parameters()
    for i, crop in enumerate([*made, *made[:1]]):
        for name, value in predictor([crop]).parameters().items():
            np.testing.assert_allclose(together[name][i], value[0], rtol=1e-3, atol=1e-3, err_msg=name)
    assert np.abs(together["skel_poses"][0] - together["skel_poses"][1]).max() > 1e-3


def test_batches_do_not_change_what_is_found(predictor: Predictor, photos: Path) -> None:
    boxes = [PersonBox(0, 0, 256, 256), PersonBox(60, 40, 100, 150, 0.1), PersonBox(50, 50, 120, 120)]
    settings = PhotoSettings(lambda *_: boxes, of_view(60), min_score=0.5)
    one, many = (list(predict_photos(find_photos([photos]), settings, predictor, size)) for size in (1, 32))
    for few, all_at_once in zip(one, many, strict=True):
        assert few.boxes == all_at_once.boxes
        assert [f.status for f in few.boxes] == ["ok", "low_score", "ok"]
        assert few.people is not None and all_at_once.people is not None and len(few.people) == 2
        np.testing.assert_allclose(few.people.joints, all_at_once.people.joints, atol=1e-3)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_an_answer_that_is_not_finite(network: SkelCfNetwork, models: ModelSet, photos: Path) -> None:
    broken = SkelCfNetwork(TINY)
    broken.load_state_dict(network.state_dict())
    with torch.no_grad():
        broken.readout[-1].heads[1].bias.fill_(torch.nan)
    found = predict_photos(
        find_photos([photos]), PhotoSettings(whole_photo, of_view(60)), Predictor(broken, models, "male"), 2
    )
    assert [(f.status, seen.people) for seen in found for f in seen.boxes] == [("not_finite", None)] * 2


def test_depth_is_proportional_to_the_focal_length(predictor: Predictor, photos: Path) -> None:
    crop = crops_of(photos, PhotoSettings(whole_photo, of_view(60)))[0]
    near = predictor([crop])
    far = predictor([crop._replace(camera=PhotoCamera(2 * crop.camera.fx, 2 * crop.camera.fy, 128, 128))])
    np.testing.assert_allclose(far.skel_trans[0, 2], 2 * near.skel_trans[0, 2], rtol=1e-5)
    np.testing.assert_allclose(far.skel_poses, near.skel_poses, atol=1e-5)
    s, tx, _ = near.crop_camera[0].tolist()
    np.testing.assert_allclose(near.skel_trans[0, 2], 2 * crop.camera.fx / (s * crop.square.side), rtol=1e-5)
    np.testing.assert_allclose(near.skel_trans[0, 0], tx, atol=1e-5)  # the crop is on the axis
    uneven = predictor([crop._replace(camera=PhotoCamera(500, 600, 100, 120))])
    np.testing.assert_array_equal(uneven.cam_int[0], [[500, 0, 100], [0, 600, 120], [0, 0, 1]])
    aside = predictor([crop._replace(camera=crop.camera._replace(cx=28.0))])
    expected = tx + 100 / crop.camera.fx * near.skel_trans[0, 2]
    np.testing.assert_allclose(aside.skel_trans[0, 0], expected, rtol=1e-4)


def test_cameras_of_the_command_line(trained: Path, photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The same photo: each says another focal length, and depth follows it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_camera.py").write_text(
        "def tell(photo):\n    assert photo.mode == 'RGB'\n    return 700, 700, photo.width / 2, photo.height / 2\n"
        "def fail(photo):\n    raise RuntimeError('no idea')\n"
    )
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 50
    photo = tmp_path / "a.jpg"
    Image.open(photos / "000000000000.jpg").save(photo, exif=exif, quality=95)
    sources = {
        "exif": ((), 50 / hypot(36, 24) * hypot(256, 256)),
        "diagonal": (("--intrinsics-from", "diagonal"), hypot(256, 256)),
        "given field of view": (("--fov", "90"), 128.0),
        "given": (("--intrinsics", "900,900,128,128"), 900.0),
        "my_camera:tell": (("--intrinsics-from", "my_camera:tell"), 700.0),
    }
    depth = {}
    for i, (source, (options, focal)) in enumerate(sources.items()):
        plain = ("--meshes", "none", "--no-overlays", "--out", f"out{i}")
        assert run(trained, "a.jpg", *plain, *options).exit_code == 0
        people, row = people_of(Path(f"out{i}")), rows_of(Path(f"out{i}"))[0]
        assert row["intrinsics"] == source
        np.testing.assert_allclose(row["camera"], [focal, focal, 128, 128], rtol=1e-5)
        depth[source] = people["skel_trans"][0, 2] / focal
    np.testing.assert_allclose(list(depth.values()), depth["given"], rtol=1e-4)
    assert run(trained, "a.jpg", "--intrinsics-from", "my_camera:fail", "--out", "failed").exit_code == 1
    row = rows_of(Path("failed"))[0]
    assert row["status"] == "no_camera" and "RuntimeError('no idea')" in row["reason"]
    with pytest.raises(InputError, match=r"expected fx, fy, cx, cy in px, found"):
        plugged_in("builtins:list")(Image.new("RGB", (1, 1)))


def with_exif(size: tuple[int, int], **tags: Any) -> Image.Image:
    """An empty photo with tags of its EXIF's second directory."""
    names = {
        "film": 0xA405,
        "lens": 0x920A,
        "width": 0xA002,
        "height": 0xA003,
        "per_unit": 0xA20E,
        "unit": 0xA210,
    }
    image = Image.new("RGB", size)
    directory = image.getexif().get_ifd(0x8769)
    for name, value in tags.items():
        directory[names[name]] = value
    return image


def test_focal_lengths_by_exif() -> None:
    assert exif_focal(with_exif((3600, 2400), film=24)) == pytest.approx(2400)
    assert exif_focal(with_exif((2400, 3600), film=24, width=3600, height=2400)) == pytest.approx(2400)
    # 5 mm on a sensor of 1000 px/mm, of which half are left.
    lens = {"lens": 5.0, "per_unit": 10000.0, "unit": 3, "width": 4000, "height": 3000}
    assert exif_focal(with_exif((2000, 1500), **lens)) == pytest.approx(2500)
    assert exif_focal(with_exif((4000, 3000), **lens)) == pytest.approx(5000)
    for unknown in (
        {},
        {"film": 0},
        {"lens": 5.0},
        {"film": "?"},
        {"film": 50, "width": 3000, "height": 3000},
    ):
        assert exif_focal(with_exif((400, 300), **unknown)) is None
    assert from_exif(with_exif((400, 300))) == (PhotoCamera(500, 500, 200, 150), "diagonal")


def test_photos_are_looked_at_upright(photos: Path, tmp_path: Path) -> None:
    """One that is stored lying on its side, as phones do it, is the same photo."""
    upright = Image.open(photos / "000000000000.jpg").convert("RGB").crop((0, 0, 200, 256))
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    with Image.open(tmp_path / "b.png") as stored:
        assert stored.size == (256, 200)
    one, other = crops_of(tmp_path, PhotoSettings(whole_photo, of_view(60)))
    assert one.square == other.square and one.camera == other.camera
    np.testing.assert_array_equal(one.pixels, other.pixels)


def test_the_square_is_that_of_labels() -> None:
    """A label's scale is 1.2 times the longer side of what is seen, for both sides of the box."""
    settings = PhotoSettings(whole_photo, of_view(60))
    assert settings.square(PersonBox(10, 20, 100, 200)) == square_around(60, 120, 240, 240)


@pytest.mark.parametrize(
    ("content", "expected", "unused"),
    [
        (
            [{"image_id": 42, "bbox": [1, 2, 3, 4], "category_id": 1, "score": 0.9}],
            [PersonBox(1, 2, 3, 4, 0.9)],
            0,
        ),
        ([{"image_id": "a/000000000042.jpg", "bbox": [1, 2, 3, 4]}], [PersonBox(1, 2, 3, 4)], 0),
        ([{"file_name": "000000000042.jpg", "bbox": [1, 2, 3, 4]}], [PersonBox(1, 2, 3, 4)], 0),
        ([{"image_id": 42, "bbox": [1, 2, 3, 4], "category_id": 17}], [], 0),
        ([{"image_id": 7, "bbox": [1, 2, 3, 4]}], [], 1),
        (
            {
                "images": [{"id": 7, "file_name": "000000000042.jpg"}, {"id": 0, "file_name": "x.jpg"}],
                "annotations": [{"image_id": 7, "bbox": [1, 2, 3, 4]}, {"image_id": 0, "bbox": [9, 9, 9, 9]}],
            },
            [PersonBox(1, 2, 3, 4)],
            1,
        ),
        (
            {"000000000042.jpg": [[1, 2, 3, 4], [5, 6, 7, 8, 0.3]]},
            [PersonBox(1, 2, 3, 4), PersonBox(5, 6, 7, 8, 0.3)],
            0,
        ),
        ({"b/000000000042.jpg": [[1, 2, 3, 4]]}, [], 1),
        ({"b/000000000042.jpg": [[9, 9, 9, 9]], "000000000042": [[1, 2, 3, 4]]}, [PersonBox(1, 2, 3, 4)], 1),
    ],
)
def test_boxes_of_a_file(content: Any, expected: list[PersonBox], unused: int, tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    boxes = BoxFile(tmp_path / "boxes.json")
    assert list(boxes(Path("photos/a/000000000042.jpg"), (10, 10))) == expected
    assert boxes.unused == unused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected a list of detections"),
        ("3", "found int"),
        ("[7]", "'entry 0': expected a detection with image_id"),
        ('[{"bbox": [1, 2, 3, 4]}]', "'entry 0': expected a detection with image_id"),
        ('{"a.jpg": 3}', "'a.jpg': expected a list of boxes, found int"),
        ('{"images": [3], "annotations": []}', "'images': expected an id and a file_name"),
    ],
)
def test_a_file_without_boxes(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(InputError, match=message):
        BoxFile(tmp_path / "boxes.json")


def test_boxes_that_are_none(photos: Path, tmp_path: Path) -> None:
    bad = [
        [1, 2, 3],
        [1, 2, "x", 4],
        [1, 2, 0, 4],
        [1, 2, float("nan"), 4],
        None,
        [300, 0, 9, 9],
        [0, 0, 9999, 9999],
    ]
    content = {"000000000000.jpg": [*bad, [50, 50, 100, 100]]}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    settings = PhotoSettings(BoxFile(tmp_path / "boxes.json"), of_view(60))
    seen = prepare_photo(PhotoFile(photos / "000000000000.jpg", "a"), settings)
    assert [f.status for f in seen.boxes] == ["bad_box"] * 7 + ["ok"] and len(seen.inputs) == 1
    assert "expected x, y, width, height in px, found [1, 2, 3]" in seen.boxes[0].reason
    assert "outside of the photo, whose size is 256 x 256 px" in seen.boxes[5].reason
    assert [f.person for f in seen.boxes] == list(range(8))
    json.dumps([asdict(f) for f in seen.boxes], allow_nan=False)
    (without,) = prepare_photo(PhotoFile(photos / "000000000001.jpg", "b"), settings).boxes
    assert without.status == "no_box" and without.person is None


def test_names_of_photos(photos: Path, tmp_path: Path) -> None:
    for name in ("a/x.jpg", "b/x.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_photos([tmp_path, tmp_path / "a" / "x.jpg"])
    assert [(p.path.relative_to(tmp_path).as_posix(), p.name) for p in found] == [
        ("a/x.jpg", "x"),
        ("b/x.png", "x-2"),
    ]


@pytest.fixture
def squares() -> Iterator[tuple[OverlayPainter, Any]]:
    """A painter of squares, and what makes one about (x, 0) at a depth: it looks at the camera."""
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    corners = np.array([[-1, -1, 0], [-1, 1, 0], [1, 1, 0], [1, -1, 0]], np.float32)
    yield OverlayPainter(faces, 4), lambda x, z: corners * 0.5 + np.array([x, 0, z], np.float32)


def test_the_nearest_person_is_seen(squares: tuple[OverlayPainter, Any]) -> None:
    painter, square = squares
    camera = np.array([[50, 0, 50], [0, 50, 50], [0, 0, 1]], np.float32)
    black, no_joints = Image.new("RGB", (100, 100)), np.zeros((24, 3), np.float32)

    def draw(*skins: np.ndarray) -> np.ndarray:
        count = len(skins)
        return np.asarray(painter.draw(black, skins, [no_joints] * count, [camera] * count), int)

    near, far = square(0, 1), square(0.5, 2)
    first, second = draw(near), draw(square(9, 1), far)
    assert (first[26:74, 26:74] > 0).all() and first[:24].max() == 0 and first[:, 77:].max() == 0
    both, reversed_order = draw(near, far), draw(far, near)
    assert (both[40:60, 30:70] == first[40:60, 30:70]).all() and (both[50, 76:] == second[50, 76:]).all()
    assert (reversed_order[50, 30:70].sum(1) != reversed_order[50, 76].sum()).all()
    assert draw(square(0, -1)).max() == 0 and draw(square(0, 0.05)).max() == 0
    tall = painter.draw(Image.new("RGB", (1000, 3000)), [near], [no_joints], [camera])
    assert tall.size == (427, 1280)


def test_a_network_without_camera_says_what_it_stands_for(models: ModelSet, photos: Path) -> None:
    """Its intrinsics are those of a camera far away, and so are its people."""
    far = Predictor(SkelCfNetwork(replace(TINY, camera=False)), models, "male")
    crop = crops_of(photos, PhotoSettings(whole_photo, of_view(60)))[0]
    people = far([crop])
    assert people.cam_int[0, 0, 0] > 20 * crop.camera.fx
    assert np.abs(people.keypoints2d[0] - 128).max() < 200


@pytest.mark.parametrize("crops", [False, True], ids=["images", "crops"])
def test_people_of_shards_are_shown_as_in_validation(crops: bool, tmp_path: Path) -> None:
    tars = sorted(write_people(tmp_path, 6, crops=crops).glob("*.tar"))
    config = DataConfig((SubsetConfig(f"{tmp_path}/*.tar"),), batch_size=6, workers=0)
    batch = next(iter(each_once(config)))
    people = list(people_of_shards(tars, None))
    assert tuple(person.key for person in people) == batch.keys and len(people) == 6
    for i, person in enumerate(people):
        seen = prepare_sample(person, unpack(person.label))
        (crop,) = seen.inputs
        np.testing.assert_array_equal(crop.pixels.transpose(2, 0, 1), batch.pixels[i].numpy())
        np.testing.assert_allclose(crop.square, [*batch.center[i].tolist(), batch.box_size[i]], rtol=1e-6)
        (fx, _, cx), (_, fy, cy), _ = batch.cam_int[i].tolist()
        assert crop.camera == pytest.approx((fx, fy, cx, cy))


def test_pictures_of_shards_have_prediction_and_label(trained: Path, tmp_path: Path) -> None:
    tars = sorted(write_people(tmp_path / "shards", 12, crops=True).glob("*.tar"))
    result = run(trained, *tars, "--out", tmp_path / "out", "--meshes", "none")
    assert result.exit_code == 0, result.output
    everyone = [row["photo"] for row in rows_of(tmp_path / "out")]
    assert len(everyone) == 12 and f"{len(everyone)} people out" in result.output
    with Image.open(tmp_path / "out" / "overlays" / f"{everyone[0]}.jpg") as picture:
        assert picture.width in (picture.height, 3 * picture.height)  # without a label of the other gender
    run(trained, *tars, "--out", tmp_path / "held", "--meshes", "none", "--no-overlays", "--held-out")
    held = [row["photo"] for row in rows_of(tmp_path / "held")]
    config = DataConfig((SubsetConfig(f"{tmp_path}/shards/*.tar"),), batch_size=99, workers=0, held_out=0.5)
    assert held == [key for batch in each_once(config, held_out=True) for key in batch.keys]
    assert 0 < len(held) < 12


def test_people_are_drawn_where_a_crop_shows_them(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    """As in the whole picture, of which the crop is the middle at twice the size."""
    people = predictor(crops_of(photos, PhotoSettings(whole_photo, of_view(60)))[:1])
    writer = PredictionWriter(tmp_path, False, PredictionOutputs(), predictor)
    whole = writer._draw(Image.new("RGB", (256, 256)), people, None).resize((512, 512))
    affine = np.array([[2, 0, -128], [0, 2, -128]], np.float32)
    crop = writer._draw(Image.new("RGB", (256, 256)), people, affine)
    one, other = (np.asarray(picture).any(-1) for picture in (whole.crop((128, 128, 384, 384)), crop))
    assert 0.1 < other.mean() < 0.9 and (one == other).mean() > 0.97


def test_what_a_folder_holds_besides_is_said(trained: Path, photos: Path, tmp_path: Path) -> None:
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
    result = run(trained, *given, "--meshes", "none", "--no-overlays", "--out", tmp_path / "out")
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
    result = run(trained, tmp_path / "others", "--out", tmp_path / "none")
    assert result.exit_code == 2 and "found 1 file is skipped, not read as images: 1 .heic" in result.output


@pytest.mark.parametrize("where", ["checkpoint", "boxes", "shard"])
def test_what_is_no_regular_file_does_not_block(
    where: str, trained: Path, photos: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe.tar"
    os.mkfifo(pipe)
    checkpoint_file, shown, boxes = trained, photos, ()
    if where == "checkpoint":
        checkpoint_file = pipe
    elif where == "boxes":
        boxes = ("--boxes", pipe)
    else:
        shown = pipe
    result = run(checkpoint_file, shown, *boxes, "--out", tmp_path / "out")
    assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
    assert f"{pipe}: expected " in result.output and "found a named pipe" in result.output
