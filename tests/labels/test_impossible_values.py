"""Values that are impossible make bad rows whose reason names the quantity; what is far away is not damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camerahmr_file import camerahmr_arrays as camerahmr
from click.testing import CliRunner
from label_files import LAYOUTS, N, amass, fourdhumans, hmr2, mesh, people, spin, write
from verify_people import as_people, fitted_fields

from skelfit.bodies.model_set import ModelSet
from skelfit.cli import main
from skelfit.config.manifest import LabelLayout
from skelfit.errors import LabelError
from skelfit.labels.readers.registry import read_label_file
from skelfit.shards.shard_reader import read_json, read_rows
from skelfit.verification.measures.person_measures import measure
from skelfit.verification.measures.posed_bodies import BodyModels
from skelfit.verification.verify_shard import wrong_errors

MAKERS = LAYOUTS | {"camerahmr": lambda: camerahmr(N)}
CAMERA = np.array([[1000.0, 0, 320], [0, 1000, 240], [0, 0, 1]])


def camera(**changes: float) -> np.ndarray:
    matrix = CAMERA.copy()
    for name, value in changes.items():
        matrix[int(name[1]), int(name[2])] = value
    return matrix


def with_cameras() -> dict[str, Any]:
    """HMR2's output with the camera of the whole image, boxes in px/200 and 2D keypoints."""
    several = {"cam_int": np.tile(CAMERA, (N, 1, 1)), "transl": np.tile([0, 0, 5.0], (N, 1))}
    return hmr2() | several | {"keypoints_2d": people()["gtkps"]}


def far(columns: dict[str, Any], key: str, where: Any, value: Any) -> dict[str, Any]:
    """The same columns with a value in row 2."""
    array = np.array(columns[key], np.float64)
    if array.ndim == 1:
        array[2] = value
    else:
        array[2][where] = value
    return columns | {key: array}


# layout, columns, key, where in the row, impossible value, its reason, a value that is still possible
CASES: list[tuple[str, Any, str, Any, Any, str, Any]] = [
    *(
        (source, make, key, ..., [0, 0, 1e4], f"bad_translation: {key} is 10000 m from the origin, more than 5000",
         [0, 0, 4900.0])
        for source, make, key in (
            ("camerahmr", MAKERS["camerahmr"], "trans_cam"),
            ("amass", amass, "trans"),
            ("hmr2", with_cameras, "transl"),
        )
    ),
    ("camerahmr", MAKERS["camerahmr"], "trans_cam", 2, -7, "bad_translation: trans_cam is 7.0 m behind the camera, "
     "more than 2", -1.5),
    ("hmr2", with_cameras, "transl", 2, -7, "bad_translation: transl is 7.0 m behind the camera, more than 2", -1.5),
    ("hmr2", lambda: hmr2() | {"img_size": None}, "pred_cam_t", 2, -7,
     "bad_translation: pred_cam_t is 7.0 m behind the camera, more than 2", 4900),
    ("hmr2", hmr2, "pred_cam", 0, -0.9, "bad_translation: pred_cam is 8.1 m behind the camera", 0.5),
    *(
        case
        for source, make, key in (
            ("camerahmr", MAKERS["camerahmr"], "cam_int"), ("hmr2", with_cameras, "cam_int"),
        )
        for case in (
            (source, make, key, (0, 0), 1.2, "bad_camera: focal length 1.2 px, not 10 to 1000000", 600),
            (source, make, key, ..., camera(k00=2e6, k11=2e6),
             "bad_camera: focal length 2000000.0 px, not 10 to 1000000", camera(k00=3e5, k11=3e5)),
            (source, make, key, (0, 0), 10000,
             "bad_camera: one focal length is 1", 1200),
            (source, make, key, (0, 2), 2e5, "bad_camera: principal point at 200000 px, more than 100000 px off", 9e4),
            (source, make, key, ..., CAMERA.T, "bad_camera: not an intrinsic matrix", camera(k01=3)),
            (source, make, key, ..., camera(k22=0), "bad_camera: not an intrinsic matrix", CAMERA),
        )
    ),
    ("hmr2", hmr2, "scaled_focal_length", ..., 1.1, "bad_camera: focal length 1.1 px, not 10 to 1000000", 12),
    *(
        case
        for source, make, box, least in (
            ("camerahmr", MAKERS["camerahmr"], "scale", 0.02), ("4dhumans", fourdhumans, "scale", 4),
            ("spin", spin, "scale", 0.02), ("hmr2", hmr2, "box_size", 4),
        )
        for center in ("box_center" if source == "hmr2" else "center",)
        for case in (
            (source, make, box, ..., least / 4, "bad_box: scale 0.005, not 0.01 to 500 px/200", least),
            (source, make, box, ..., least * 5e4, "bad_box: scale 1000.000, not 0.01 to 500 px/200", least * 1e4),
            (source, make, center, 0, -3e5, "bad_box: center at 300000 px, more than 100000 px off", -9e3),
        )
    ),
    ("hmr2", hmr2, "img_size", 0, 0, "bad_image_size: img_size 0.0 px, not 16 to 100000", 64),
    ("hmr2", hmr2, "img_size", 1, 2e5, "bad_image_size: img_size 200000.0 px, not 16 to 100000", 9e4),
    ("hmr2", hmr2, "img_size", 1, np.nan, "non_finite:img_size", 480),
    *(
        case
        for source, make, key in (
            ("camerahmr", MAKERS["camerahmr"], "gtkps"), ("4dhumans", fourdhumans, "body_keypoints_2d"),
            ("4dhumans", fourdhumans, "extra_keypoints_2d"), ("spin", spin, "openpose"), ("spin", spin, "part"),
            ("hmr2", with_cameras, "keypoints_2d"),
        )
        for case in (
            (source, make, key, (3, 2), 100, "bad_confidence: 100 of a 2D keypoint, not -1 to 2", 2),
            (source, make, key, (3, 2), -5, "bad_confidence: -5 of a 2D keypoint, not -1 to 2", -1),
            (source, make, key, (3, 0), -2e6, "bad_keypoints: a 2D keypoint at 2e+06 px, more than 1e+06 off", 9e5),
        )
    ),
    *(
        case
        for source, make, key in (
            ("camerahmr", lambda: camerahmr(N) | {"keypoints3d": np.ones((N, 44, 4))}, "keypoints3d"),
            ("4dhumans", lambda: fourdhumans() | {"extra_keypoints_3d": np.ones((N, 19, 4))}, "extra_keypoints_3d"),
            ("spin", lambda: spin() | {"S": np.ones((N, 24, 4))}, "S"),
        )
        for case in (
            (source, make, key, (3, 3), 100, "bad_confidence: 100 of a 3D keypoint, not -1 to 2", 2),
            (source, make, key, (3, 1), 900, "bad_keypoints3d: 899.0 m apart, more than 10", 5),
            (source, make, key, (slice(None, 19), 1), 9e3, "bad_keypoints3d: one is 9000 m from the origin", 4e3)
            if source != "camerahmr" else
            (source, make, key, (slice(None), 1), 9e3, "bad_keypoints3d: one is 9000 m from the origin", 4e3),
            (source, make, key, (3, slice(None)), [0, 9e9, 0, -1], "", [0, 9e9, 0, 0]),
        )
    ),
    ("mesh", mesh, "vertices", (slice(None), 0), 7e3, "absurd_mesh: 7000 m from the origin, more than 5000", 4e3),
]  # fmt: skip


@pytest.mark.parametrize(("source", "make", "key", "where", "bad", "reason", "good"), CASES)
def test_what_is_impossible_is_a_bad_row(
    tmp_path: Path, source: LabelLayout, make: Any, key: str, where: Any, bad: Any, reason: str, good: Any
) -> None:
    batch = read_label_file(write(tmp_path / "x.npz", far(make(), key, where, bad)), source)
    assert [*batch.bad[:2], *batch.bad[3:]] == [""] * (N - 1)
    assert batch.bad[2].startswith(reason) and bool(batch.bad[2]) == bool(reason)
    assert read_label_file(write(tmp_path / "y.npz", far(make(), key, where, good)), source).bad == [""] * N


@pytest.mark.parametrize(("key", "source", "make"), [
    ("gtkps", "camerahmr", MAKERS["camerahmr"]), ("openpose", "spin", spin),
])  # fmt: skip
def test_a_keypoint_without_a_label_has_no_confidence(
    tmp_path: Path, key: str, source: LabelLayout, make: Any
) -> None:
    batch = read_label_file(write(tmp_path / "x.npz", far(make(), key, (3, 2), -1)), source)
    assert batch.gtkps[2, 3, 2] == 0 and (batch.gtkps[..., 2] >= 0).all()
    np.testing.assert_allclose(batch.gtkps[2, 3, :2], make()[key][2, 3, :2], rtol=1e-6)


@pytest.mark.parametrize("rate", [1 / 120, 0.0, -30.0, 5e4, np.nan, np.inf])
def test_impossible_frame_rates(tmp_path: Path, rate: float) -> None:
    path = write(tmp_path / "x.npz", amass() | {"mocap_framerate": np.array(rate)})
    with pytest.raises(
        LabelError, match=r"'mocap_framerate': expected frames per second, 0\.1 to 10000, found"
    ):
        read_label_file(path)


@pytest.mark.parametrize("rate", [0.1, 1000.0])
def test_possible_frame_rates(tmp_path: Path, rate: float) -> None:
    path = write(tmp_path / "x.npz", amass() | {"mocap_framerate": np.array(rate)})
    assert read_label_file(path).sequences[0].frame_rate == rate


# What is far away, and how verify sees it.


def test_those_far_away_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 5 m to 4.9 km: published, and as accurate as close by; at 10 km they are bad rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKELFIT_MODELS", raising=False)
    distances = np.repeat([5.0, 100, 1000, 4900, 10000], 4)
    labels = camerahmr(len(distances))
    labels["pose_cam"] = np.random.default_rng(0).normal(0, 0.15, labels["pose_cam"].shape)
    labels["pose_cam"][:, 0] += np.pi
    labels["shape"] *= 0.3
    labels["trans_cam"] = distances[:, None] * np.array([0.6, 0, 0.8])
    np.savez("far.npz", **labels)
    result = CliRunner().invoke(main, ["convert", "--labels", "far.npz", "--out", "out", "--workers", "0"])
    assert result.exit_code == 0, result.output
    rows = list(read_rows(Path("out/far-000000.rows.jsonl")))
    assert {row["status"] for row in rows[:16]} <= {"ok", "limit_violation"}
    assert {row["status"] for row in rows[16:]} == {"bad_input"}
    assert read_json(Path("out/summary.json"))["rejected"] == {"bad_input: bad_translation": 4}
    result = CliRunner().invoke(main, ["verify", "out"])
    assert result.exit_code == 0, result.output
    assert "whole: every byte as it was written, every row accounted for" in result.output


@pytest.fixture(scope="module")
def bodies(models: ModelSet) -> BodyModels:
    return BodyModels(models)


@pytest.mark.parametrize("distance", [0.0, 100.0, 1000.0, 4900.0])
def test_a_changed_error_is_found_at_any_distance(
    models: ModelSet, bodies: BodyModels, distance: float
) -> None:
    fields = fitted_fields(models, 12)
    place = np.float32(distance) * np.array([0.6, 0, 0.8], np.float32)
    for name in ("smpl_trans", "skel_trans"):
        fields[name] = fields[name] + place
    # The label's own rounding moves both: what is left is that of the fit.
    before = measure(bodies, as_people(fields))
    fields["errors"] = np.stack([before.accuracy.pve_mm, before.accuracy.max_vertex_mm], 1).astype(np.float32)
    assert wrong_errors(measure(bodies, as_people(fields)), Path("x.tar")) == []
    fields["errors"][5, 0] += 1.5
    (damage,) = wrong_errors(measure(bodies, as_people(fields)), Path("x.tar"))
    assert damage.kind == "errors" and damage.sample == as_people(fields).keys[5]
