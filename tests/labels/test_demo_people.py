"""The demo data: deterministic, readable without one bad row, and its numbers agree with its pictures."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from skelfit.bodies.model_set import ModelSet, open_models
from skelfit.bodies.rasterizer import rasterise
from skelfit.bodies.smpl import SmplModel
from skelfit.config.manifest import load_manifest
from skelfit.errors import ModelError, OutputError
from skelfit.labels.demo_people import LABELS_NAME, demo_is_current, write_demo
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.readers.registry import read_label_file

PEOPLE = 40  # more than one block of people posed together


@pytest.fixture(scope="module")
def models() -> ModelSet:
    return open_models()


@pytest.fixture(scope="module")
def demo(models: ModelSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, PEOPLE, seed=3, models=models)
    return folder


@pytest.fixture(scope="module")
def labels(demo: Path) -> LabelBatch:
    return read_label_file(demo / LABELS_NAME)


@pytest.fixture(scope="module")
def vertices(models: ModelSet, labels: LabelBatch) -> np.ndarray:
    """Skins (N,V,3) m, made again from the label file alone."""
    model = SmplModel(models.smpl_of("neutral"))
    parameters = (torch.from_numpy(x) for x in (labels.pose, labels.betas, labels.transl))
    return model.vertices(*parameters).numpy()


def project(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    image = np.einsum("nij,nvj->nvi", camera, points)
    return image[..., :2] / image[..., 2:]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_reader_finds_no_bad_row(labels: LabelBatch) -> None:
    assert len(labels) == PEOPLE
    assert labels.bad == [""] * PEOPLE
    assert set(labels.gender) == {"neutral"}
    assert np.abs(labels.betas).max() <= 2.5
    assert labels.imgname[7] == "000000000007.jpg"


def test_the_schema_is_that_of_the_release(demo: Path) -> None:
    with np.load(demo / LABELS_NAME, allow_pickle=False) as archive:
        shapes = {key: archive[key].shape for key in archive}
    assert shapes == {
        "imgname": (PEOPLE,),
        "center": (PEOPLE, 2),
        "scale": (PEOPLE,),
        "pose_cam": (PEOPLE, 72),
        "shape": (PEOPLE, 10),
        "trans_cam": (PEOPLE, 3),
        "cam_int": (PEOPLE, 3, 3),
        "gtkps": (PEOPLE, 44, 3),
        "keypoints3d": (PEOPLE, 44, 4),
    }


def test_the_same_seed_makes_the_same_bytes(demo: Path, models: ModelSet, tmp_path: Path) -> None:
    write_demo(tmp_path, PEOPLE, seed=3, models=models)
    assert files(tmp_path) == files(demo)


def test_a_person_does_not_depend_on_the_number_of_people(
    demo: Path, labels: LabelBatch, models: ModelSet, tmp_path: Path
) -> None:
    write_demo(tmp_path, 5, seed=3, models=models)
    few, many = read_label_file(tmp_path / LABELS_NAME), labels.rows(0, 5)
    for name in ("pose", "betas", "transl", "center", "scale", "gtkps", "keypoints3d"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name), err_msg=name)
    pictures = {k: v for k, v in files(tmp_path).items() if k.startswith("images")}
    assert len(pictures) == 5
    assert pictures.items() <= files(demo).items()


def test_another_seed_makes_other_people(labels: LabelBatch, models: ModelSet, tmp_path: Path) -> None:
    other = read_label_file(write_demo(tmp_path, 5, seed=4, images=False, models=models))
    assert (np.abs(other.pose - labels.pose[:5]).max(axis=(1, 2)) > 0.1).all()


def test_pictures_do_not_change_the_labels(demo: Path, models: ModelSet, tmp_path: Path) -> None:
    path = write_demo(tmp_path, PEOPLE, seed=3, images=False, models=models)
    assert path.read_bytes() == (demo / LABELS_NAME).read_bytes()
    assert list((tmp_path / "images").iterdir()) == []


def test_people_stand_before_the_camera(labels: LabelBatch, vertices: np.ndarray) -> None:
    assert (vertices[..., 2] > 1.5).all()
    assert (np.abs(labels.transl[:, 2] - 5.5) < 3.5).all()
    upright = labels.keypoints3d[:, 0, 1] < labels.keypoints3d[:, 39, 1]  # nose above pelvis, y down
    assert upright.mean() > 0.85


def test_no_two_people_are_the_same(labels: LabelBatch) -> None:
    for values in (labels.pose, labels.betas, labels.transl):
        rows = values.reshape(PEOPLE, -1)
        distance = np.abs(rows[:, None] - rows[None]).max(axis=2) + np.eye(PEOPLE)
        assert distance.min() > 1e-3


def test_the_pelvis_is_near_the_middle_of_the_picture(labels: LabelBatch) -> None:
    pelvis = project(labels.keypoints3d[:, [39], :3], labels.cam_int)[:, 0]
    assert (np.abs(pelvis - 128) < [80, 40]).all()
    assert np.ptp(pelvis[:, 0]) > 60


@pytest.mark.parametrize("order", [1, -1])
def test_the_rasteriser_shows_the_near_face_and_hides_the_averted(order: int) -> None:
    square = [[2, 2], [2, 6], [6, 6], [6, 2]]  # counter-clockwise when y points down
    points = np.array(square * 3, np.float32)
    depth = np.repeat(np.array([3, 2, 1], np.float32), 4)
    colours = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    near_and_far = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    averted = np.array([[10, 9, 8], [11, 10, 8]], np.int32)
    faces = np.concatenate([near_and_far, averted])[::order]
    image, nearest = rasterise(points, depth, faces, colours, (8, 10))
    expected = np.full((8, 10), np.inf, np.float32)
    expected[2:6, 2:6] = 2  # the depth of the near one
    np.testing.assert_allclose(nearest, expected, rtol=1e-6)
    covered = np.isfinite(nearest)
    np.testing.assert_allclose(image[covered], [[0, 1, 0]] * 16, atol=1e-6)
    assert (image[~covered] == 0).all()


def test_keypoints_lie_on_the_body(labels: LabelBatch, vertices: np.ndarray) -> None:
    low, high = vertices.min(axis=1), vertices.max(axis=1)
    margin = 0.02  # m
    points = labels.keypoints3d[..., :3]
    assert (points > low[:, None] - margin).all()
    assert (points < high[:, None] + margin).all()
    seen = labels.gtkps[..., 2] == 1
    assert 0.8 < seen.mean() < 0.99
    assert (labels.gtkps[~seen] == 0).all()
    expected = project(points, labels.cam_int)
    np.testing.assert_allclose(labels.gtkps[seen][:, :2], expected[seen], atol=1e-2)


def test_the_box_holds_the_body(labels: LabelBatch, vertices: np.ndarray) -> None:
    points = project(vertices, labels.cam_int)
    half = (labels.scale * 100)[:, None]
    inside = np.abs(points - labels.center[:, None]) <= half
    assert inside.all()
    reach = np.abs(points - labels.center[:, None]).max(axis=(1, 2)) / half[:, 0, 0]
    np.testing.assert_allclose(reach, 1 / 1.2, atol=1e-3)


def test_joints_stay_within_their_ranges(labels: LabelBatch) -> None:
    # Knees are hinges: they bend backwards (positive about x) and hardly about anything else.
    knees = labels.pose[:, [4, 5]]
    assert (knees[..., 0] > -0.05).all()
    assert (np.abs(knees[..., 1:]) < 0.25).all()
    assert (np.abs(labels.pose[:, 1:]).max(axis=(0, 2)) > 0.05).sum() >= 20  # the hands alone are at rest
    assert (labels.pose[:, 18, 1] < 0.6).all()


def test_pictures_show_the_body_where_the_labels_say(
    demo: Path, labels: LabelBatch, vertices: np.ndarray
) -> None:
    points = project(vertices, labels.cam_int)
    contrast = []
    for i in range(PEOPLE):
        with Image.open(demo / "images" / labels.imgname[i]) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (256, 256))
            pixels = np.asarray(image).astype(float)
        mask = np.zeros((256, 256), bool)
        x, y = np.floor(points[i]).astype(int).T
        good = (x >= 0) & (x < 256) & (y >= 0) & (y < 256)
        mask[y[good], x[good]] = True
        # The room beside the body, in the same rows.
        rows = np.asarray(mask.any(axis=1))
        around = ~mask & rows[:, None]
        columns = np.abs(np.arange(256) - x.mean()) > np.ptp(x)
        around &= columns
        if not around.any():
            continue
        contrast.append(np.abs(pixels[mask].mean(axis=0) - pixels[around].mean(axis=0)).max())
    assert len(contrast) > PEOPLE / 2
    assert np.median(contrast) > 40
    assert min(contrast) > 8


def test_current_only_when_finished_with_the_same_arguments(
    demo: Path, models: ModelSet, tmp_path: Path
) -> None:
    assert demo_is_current(demo, PEOPLE, 3, True, models=models)
    assert not demo_is_current(demo, PEOPLE, 4, True, models=models)
    assert not demo_is_current(demo, PEOPLE + 1, 3, True, models=models)
    other = dataclasses.replace(models, sha256="0" * 64)
    assert not demo_is_current(demo, PEOPLE, 3, True, models=other)
    assert not demo_is_current(tmp_path, PEOPLE, 3, True, models=models)


def test_an_interrupted_run_is_not_current(models: ModelSet, tmp_path: Path) -> None:
    write_demo(tmp_path, 3, images=False, models=models)
    assert demo_is_current(tmp_path, 3, 0, False, models=models)

    def stop(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path, 4, images=False, models=models, progress=stop)
    # Neither the old demo, whose pictures are partly overwritten, nor the new one.
    assert not demo_is_current(tmp_path, 3, 0, False, models=models)
    assert not demo_is_current(tmp_path, 4, 0, False, models=models)


def test_models_without_keypoints_are_refused(models: ModelSet, tmp_path: Path) -> None:
    bare = dataclasses.replace(models, keypoints44=None)
    with pytest.raises(ModelError, match=re.escape("'keypoints44': expected a (44, V) keypoint regressor")):
        write_demo(tmp_path, 1, models=bare)


def test_a_folder_that_cannot_be_written_is_one_clear_error(models: ModelSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/demo: cannot be written"):
        write_demo(tmp_path / "file" / "demo", 1, models=models)


def test_the_shipped_manifest_asks_for_the_demo() -> None:
    manifest = load_manifest(Path(__file__).parents[2] / "manifests" / "demo.yaml")
    assert manifest.demo is not None
    assert manifest.labels[0].path == f"demo/{LABELS_NAME}"
    assert manifest.images == "demo/images"
