"""The CameraHMR reader: every fault of a file is one clear error, every fault of a row is a reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camerahmr_file import camerahmr_arrays, with_value, write_camerahmr

from skelfit.errors import LabelError
from skelfit.labels.label_batch import LabelBatch, LabelProperties
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.readers import registry as readers


def read(path: Path, **asked: Any) -> LabelBatch:
    return readers.read_label_file(path, "camerahmr", ReadSettings(**asked))


def read_changed(folder: Path, **changes: Any) -> LabelBatch:
    return read(write_camerahmr(folder, **changes))


def test_reads_a_good_file(tmp_path: Path) -> None:
    data = camerahmr_arrays()
    batch = read_changed(tmp_path)
    assert len(batch) == 5
    assert batch.bad == [""] * 5
    assert batch.gender == ["neutral"] * 5
    assert batch.imgname == data["imgname"].tolist()
    np.testing.assert_array_equal(batch.row, np.arange(5))
    np.testing.assert_array_equal(batch.pose, data["pose_cam"].reshape(5, 24, 3).astype(np.float32))
    np.testing.assert_array_equal(batch.betas, data["shape"].astype(np.float32))
    np.testing.assert_array_equal(batch.transl, data["trans_cam"].astype(np.float32))
    np.testing.assert_array_equal(batch.scale, np.stack([data["scale"]] * 2, 1).astype(np.float32))
    np.testing.assert_array_equal(batch.gtkps, data["gtkps"].astype(np.float32))
    assert not batch.keypoints3d.any()
    assert batch.pose.dtype == batch.cam_int.dtype == np.float32


def test_reads_the_variants(tmp_path: Path) -> None:
    data = camerahmr_arrays()
    rng = np.random.default_rng(1)
    extrinsic = np.repeat(np.eye(4)[None], 5, 0)
    extrinsic[:, :3, 3] = [0.1, 0.2, 0.3]
    points = rng.normal(size=(5, 44, 3))
    changes = {
        "pose_cam": None,
        "pose": data["pose_cam"].reshape(5, 24, 3),
        "imgname": data["imgname"].astype("S"),
        "shape": rng.normal(size=(5, 11)),
        "scale": rng.uniform(1, 2, (5, 2)),
        "gtkps": rng.uniform(0, 1, (5, 70, 3)) * [200, 200, 1],
        "keypoints3d": points,
        "cam_ext": extrinsic,
        "gender": np.array(["m", "Female", "neutral", "f", "MALE"]),
    }
    batch = read_changed(tmp_path, **changes)
    assert batch.bad == [""] * 5
    assert batch.gender == ["male", "female", "neutral", "female", "male"]
    assert batch.imgname == data["imgname"].tolist()
    np.testing.assert_array_equal(batch.pose, changes["pose"].astype(np.float32))
    np.testing.assert_array_equal(batch.scale, changes["scale"].astype(np.float32))
    np.testing.assert_array_equal(batch.gtkps, changes["gtkps"][:, :44].astype(np.float32))
    np.testing.assert_array_equal(batch.keypoints3d[..., :3], points.astype(np.float32))
    assert (batch.keypoints3d[..., 3] == 1).all()
    np.testing.assert_allclose(batch.transl, data["trans_cam"] + [0.1, 0.2, 0.3], rtol=1e-5)
    scale, betas = batch.about.notes
    assert re.fullmatch(r"'scale': in px/200 \(0\.00\d+ of the keypoints' extent\)", scale)
    assert betas == "'shape': using 10 of 11 columns"
    assert batch.about == LabelProperties(notes=(scale, betas))


def test_gender_of_the_manifest_is_used_where_the_file_has_none(tmp_path: Path) -> None:
    assert read(write_camerahmr(tmp_path), gender="female").gender == ["female"] * 5


BAD_ROWS = [
    ("pose_cam", np.nan, "non_finite:pose_cam"),
    ("shape", np.inf, "non_finite:shape"),
    ("trans_cam", np.nan, "non_finite:trans_cam"),
    ("center", np.nan, "non_finite:center"),
    ("scale", np.nan, "non_finite:scale"),
    ("cam_int", np.nan, "non_finite:cam_int"),
    ("trans_cam", 1e300, "non_finite:trans_cam"),
    ("shape", -37.25, "absurd_betas: |beta| max 37.2 > 10"),
    ("pose_cam", 50.0, "absurd_pose: angle max 86.6 rad > 31.4"),
    ("cam_int", np.zeros((3, 3)), "bad_camera: focal length 0.0 px, not 10 to 1000000"),
    ("scale", -1.0, "bad_box: scale -1.000, not 0.01 to 500 px/200"),
    ("imgname", " ", "empty_imgname"),
]


@pytest.mark.parametrize(("key", "value", "reason"), BAD_ROWS)
def test_a_bad_row_gets_a_reason_and_spoils_no_other(
    tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    batch = read_changed(tmp_path, **with_value(key, 3, value))
    assert batch.bad == ["", "", "", reason, ""]
    assert len(batch) == 5


def test_bad_gender_and_several_reasons(tmp_path: Path) -> None:
    changes = with_value("pose_cam", 1, np.nan) | {"gender": np.array(["m", "x", "f", "", "n"])}
    batch = read_changed(tmp_path, **changes)
    assert batch.bad == ["", "non_finite:pose_cam; bad_gender: 'x'", "", "bad_gender: ''", ""]


def test_the_beta_limit_is_a_parameter(tmp_path: Path) -> None:
    path = write_camerahmr(tmp_path, **with_value("shape", 2, 5.0))
    assert read(path).bad[2] == ""
    assert read(path, max_abs_beta=3.0).bad[2] == "absurd_betas: |beta| max 5.0 > 3"


def test_a_keypoint_that_is_not_finite_is_absent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keypoints = camerahmr_arrays()["gtkps"]
    keypoints[2, 7, 0] = np.nan
    batch = read_changed(tmp_path, gtkps=keypoints)
    assert batch.bad == [""] * 5
    assert (batch.gtkps[2, 7] == 0).all()
    assert batch.gtkps[2, 8, 2] > 0
    assert "1 keypoints are not finite" in caplog.text


def test_text_that_is_no_utf8_is_kept_readable(tmp_path: Path) -> None:
    names = camerahmr_arrays()["imgname"].copy()
    names[0] = "a\0b.jpg"
    names[1] = "c\ud800.jpg"
    assert read_changed(tmp_path, imgname=names).imgname[:2] == ["a?b.jpg", "c?.jpg"]


OBJECTS = np.array([[0.0] * 72, [0.0] * 71, [1.0], [2.0], [3.0]], dtype=object)
_POSES = "rotations of 24 or 52 or 55 joints (J): (N, J, 3), (N, J, 3, 3) or (N, J, 6)"
BAD_FILES: list[tuple[str, Any, str, str]] = [
    ("shape", None, "numbers of shape (N, 10+)", "no such key; the file has cam_int, center,"),
    ("pose_cam", None, _POSES, "no such key"),
    ("imgname", None, "text of shape (N)", "no such key"),
    ("shape", np.zeros((4, 10)), "5 rows, as many as 'imgname' has", "4 rows"),
    ("pose_cam", OBJECTS, _POSES, "an object array"),
    ("pose_cam", np.zeros((5, 66)), _POSES, "shape (5, 66)"),
    ("shape", np.zeros((5, 8)), "numbers of shape (N, 10+)", "shape (5, 8)"),
    ("gtkps", np.zeros((5, 25, 3)), "numbers of shape (N, 44+, 3)", "shape (5, 25, 3)"),
    ("scale", np.zeros((5, 3)), "numbers of shape (N) or (N, 1) or (N, 2)", "shape (5, 3)"),
    ("center", np.array([["a", "b"]] * 5), "numbers of shape (N, 2)", "dtype <U1"),
    ("trans_cam", np.zeros((5, 3), complex), "numbers of shape (N, 3)", "dtype complex128"),
    ("imgname", np.arange(5), "text of shape (N)", "dtype int64"),
    ("gender", np.arange(5), "text of shape (N)", "dtype int64"),
]


@pytest.mark.parametrize(("key", "value", "expected", "found"), BAD_FILES)
def test_a_bad_column_is_one_clear_error(
    tmp_path: Path, key: str, value: Any, expected: str, found: str
) -> None:
    with pytest.raises(LabelError) as caught:
        read_changed(tmp_path, **{key: value})
    error = caught.value
    assert error.path == str(tmp_path / "x-release.npz")
    assert error.key == key
    assert error.expected.startswith(expected)
    assert error.found.startswith(found)
    assert "\n" not in str(error)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"no\.npz: expected a label file .*no such file"):
        read(tmp_path / "no.npz")


@pytest.mark.parametrize("keep", [0, 100, 5000, -30])
def test_a_truncated_file(tmp_path: Path, keep: int) -> None:
    path = write_camerahmr(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    beginning = "a truncated .npz file" if keep else "an empty file (0 bytes)"
    expected = f"{path}: expected an .npz, .npy, HDF5, torch or pickle file, found {beginning}"
    with pytest.raises(LabelError, match=re.escape(expected)):
        read(path)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(LabelError, match="a pickle of protocol 0 or 1, as Python 2 wrote it"):
        read(path)


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    path = write_camerahmr(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"pose_cam.npy") + 1000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(LabelError, match=r"'pose_cam': .* found a damaged array .*CRC"):
        read(path)


def test_an_empty_file_has_no_people(tmp_path: Path) -> None:
    empty = {k: v[:0] for k, v in camerahmr_arrays().items()}
    assert len(read_changed(tmp_path, **empty)) == 0


def test_batches_slice_and_refuse_wrong_shapes(tmp_path: Path) -> None:
    batch = read_changed(tmp_path)
    part = batch.rows(1, 3)
    assert part.row.tolist() == [1, 2]
    assert part.imgname == batch.imgname[1:3]
    np.testing.assert_array_equal(part.pose, batch.pose[1:3])
    values = {k: getattr(part, k) for k in part.__dataclass_fields__}
    with pytest.raises(ValueError, match=r"betas: expected shape \(2, 10\), found \(2, 11\)"):
        LabelBatch(**(values | {"betas": np.zeros((2, 11), np.float32)}))
    with pytest.raises(ValueError, match="bad: expected 2 entries, found 1"):
        LabelBatch(**(values | {"bad": [""]}))
