"""Readers of the layouts that people bring: what a good file gives, and the one message of each bad one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from label_files import FOCAL, LAYOUTS, N, amass, fourdhumans, hmr2, mesh, people, spin, write
from scipy.spatial.transform import Rotation

from skelfit.config.manifest import ReadOptions
from skelfit.errors import LabelError
from skelfit.labels.files import hdf5_probe as hdf5
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.readers.registry import READERS, detect_layout, read_label_file


def same_rotations(rotvecs: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    a, b = (Rotation.from_rotvec(x.reshape(-1, 3)) for x in (rotvecs, expected))
    assert (a * b.inv()).magnitude().max() < tolerance


def notes_of(batch: LabelBatch) -> str:
    return "; ".join(batch.about.notes)


# Good files.


@pytest.mark.parametrize("ending", [".npz", ".h5", ".pkl"])
@pytest.mark.parametrize("source", LAYOUTS)
def test_a_layout_is_told_and_read_from_any_container(tmp_path: Path, source: str, ending: str) -> None:
    columns = LAYOUTS[source]()
    columns.pop("extra_info", None)  # objects: only an npz can have them
    path = write(tmp_path / f"x{ending}", columns)
    layout, keys = detect_layout(path)
    assert layout == source
    assert all(f"'{key}'" in keys for key in list(columns) if key in ("poses", "body_pose", "vertices"))
    batch, lone = read_label_file(path), read_label_file(write(tmp_path / "y.npz", columns), layout)
    assert batch.bad == [""] * N == lone.bad
    for name in batch.field_shapes():
        np.testing.assert_array_equal(getattr(batch, name), getattr(lone, name), err_msg=name)
    assert batch.imgname == lone.imgname and batch.gender == lone.gender


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_4dhumans(tmp_path: Path, dtype: type) -> None:
    p, columns = people(), fourdhumans()
    columns |= {k: v.astype(dtype) for k, v in columns.items() if getattr(v, "dtype", None) == np.float64}
    batch = read_label_file(write(tmp_path / "x.npz", columns))
    np.testing.assert_allclose(batch.pose, p["pose"], atol=1e-6)
    np.testing.assert_allclose(batch.betas, p["betas"], atol=1e-6)
    np.testing.assert_allclose(batch.scale, np.stack([p["side"] / 200] * 2, 1), rtol=1e-6)
    np.testing.assert_allclose(batch.gtkps, p["gtkps"], rtol=1e-6)
    np.testing.assert_allclose(batch.keypoints3d[:, 25:], columns["extra_keypoints_3d"], rtol=1e-6)
    assert not batch.cam_int.any() and not batch.transl.any()
    assert batch.about.coordinates == "camera_axes" and not batch.about.has_camera
    assert notes_of(batch).startswith("'scale': in px (1.")


def test_spin(tmp_path: Path) -> None:
    p, columns = people(), spin()
    batch = read_label_file(write(tmp_path / "x.npz", columns))
    np.testing.assert_allclose(batch.pose, p["pose"], atol=1e-6)
    np.testing.assert_allclose(batch.scale[:, 0], p["side"] / 200, rtol=1e-6)
    np.testing.assert_allclose(batch.gtkps, p["gtkps"], rtol=1e-6)
    np.testing.assert_allclose(batch.keypoints3d[:, 25:], columns["S"][:, :19], rtol=1e-6)
    assert not batch.keypoints3d[:, :25].any()
    assert batch.gender == ["male", "female"] * (N // 2)


@pytest.mark.parametrize(("joints", "said"), [(24, ""), (52, "SMPL+H"), (55, "SMPL-X")])
def test_amass(tmp_path: Path, joints: int, said: str) -> None:
    columns = amass(joints=joints)
    path = write(tmp_path / "KIT" / "3" / "walk_poses.npz", columns)
    batch = read_label_file(path)
    kept = 24 if joints == 24 else 22
    np.testing.assert_allclose(batch.pose[:, :kept], columns["poses"].reshape(N, -1, 3)[:, :kept], atol=1e-6)
    assert not batch.pose[:, kept:].any()
    np.testing.assert_allclose(batch.transl, columns["trans"], atol=1e-6)
    np.testing.assert_allclose(
        batch.betas, np.tile(columns["betas"][:10] * (joints != 55), (N, 1)), atol=1e-6
    )
    assert batch.gender == ["female"] * N
    assert batch.about.coordinates == "world_z_up" and not batch.about.has_camera
    if said:
        assert f"{said} parameters (told by 'poses' of {joints} joints" in notes_of(batch)
    (sequence,) = batch.sequences
    assert (sequence.name, sequence.frame_rate, sequence.frames) == ("walk_poses", 120.0, N)


def test_amass_variants(tmp_path: Path) -> None:
    columns = amass() | {
        "gender": np.array(b"male"),
        "mocap_framerate": None,
        "mocap_frame_rate": np.array(60),
        "betas": np.tile(np.arange(16.0) / 10, (N, 1)),
        "subject": np.array("s7"),
    }
    batch = read_label_file(write(tmp_path / "x.npz", columns))
    assert batch.gender == ["male"] * N
    assert (batch.sequences[0].frame_rate, batch.sequences[0].subject) == (60.0, "s7")
    np.testing.assert_allclose(batch.betas, columns["betas"][:, :10], rtol=1e-6)
    batch = read_label_file(
        write(tmp_path / "y.npz", amass() | {"mocap_framerate": None}), None, ReadSettings(subject="a")
    )
    assert (batch.sequences[0].frame_rate, batch.sequences[0].subject) == (None, "a")
    assert "no frame rate" in notes_of(batch)


def test_hmr2_with_the_camera_of_the_image(tmp_path: Path) -> None:
    p, columns = people(), hmr2()
    batch = read_label_file(write(tmp_path / "x.npz", columns))
    same_rotations(batch.pose, p["pose"])
    assert batch.about.coordinates == "camera" and batch.about.has_camera
    # SMPL's origin must be seen where the crop's weak perspective sees it, and a metre there as large.
    seen = np.einsum("nij,nj->ni", batch.cam_int, batch.transl)
    scale, x, y = columns["pred_cam"].T
    expected = columns["box_center"] + np.stack([x, y], 1) * (scale * p["side"] / 2)[:, None]
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], expected, rtol=1e-5)
    np.testing.assert_allclose(FOCAL / batch.transl[:, 2], scale * p["side"] / 2, rtol=1e-5)


def test_hmr2_says_where_translations_are(tmp_path: Path) -> None:
    columns = hmr2() | {"scaled_focal_length": None}
    batch = read_label_file(write(tmp_path / "a.npz", columns))
    assert batch.about.coordinates == "crop_camera" and not batch.about.has_camera
    np.testing.assert_array_equal(batch.transl, columns["pred_cam_t"])
    batch = read_label_file(write(tmp_path / "b.npz", columns | {"pred_cam_t": None}))
    assert batch.about.coordinates == "camera_axes" and not batch.transl.any()
    camera = np.tile(np.array([[FOCAL, 0, 320], [0, FOCAL, 240], [0, 0, 1]]), (N, 1, 1))
    known = read_label_file(
        write(tmp_path / "e.npz", columns | {"pred_cam_t": None, "box_size": None, "cam_int": camera})
    )
    assert known.about.coordinates == "camera_axes" and known.about.has_camera
    np.testing.assert_array_equal(known.cam_int, camera)
    full = hmr2() | {"pred_cam_t_full": columns["pred_cam_t"] + 1}
    batch = read_label_file(write(tmp_path / "c.npz", full))
    assert batch.about.coordinates == "camera" and batch.about.has_camera
    np.testing.assert_array_equal(batch.transl, full["pred_cam_t_full"])
    bare = {k: v for k, v in hmr2().items() if k in ("global_orient", "body_pose", "betas")}
    batch = read_label_file(write(tmp_path / "d.npz", bare | {"transl": columns["pred_cam_t"]}))
    assert batch.about.coordinates == "unknown" and "does not say relative to what" in notes_of(batch)
    np.testing.assert_array_equal(batch.transl, columns["pred_cam_t"])


def test_hmr2_as_a_list_of_people_and_with_nested_keys(tmp_path: Path) -> None:
    columns = hmr2()
    names = ("global_orient", "body_pose", "betas")
    nested = {"pred_smpl_params": {k: columns[k] for k in names}, "pred_cam_t": columns["pred_cam_t"]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(nested))
    persons = [{k: columns[k][i] for k in names} | {"imgname": f"{i}.jpg"} for i in range(N)]
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(persons))
    for name in ("a.pkl", "b.pkl"):
        batch = read_label_file(tmp_path / name)
        same_rotations(batch.pose, people()["pose"])
    assert batch.imgname == [f"{i}.jpg" for i in range(N)]


def test_rotations_in_any_form(tmp_path: Path) -> None:
    """Flat and nested axis-angles and matrices, 6 numbers, and with the root apart."""
    pose = people()["pose"]
    matrices = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(N, 24, 3, 3)
    columns_two = matrices[..., :2]  # (3,2): x1 x2, y1 y2, z1 z2
    forms: list[tuple[Any, Any]] = [
        (None, pose),
        (None, matrices),
        (None, matrices.reshape(N, 216)),
        (None, columns_two.reshape(N, 24, 6)),
        (None, columns_two.reshape(N, 144)),
        ("columns", np.swapaxes(columns_two, -1, -2).reshape(N, 24, 6)),
        ("rows", matrices[..., :2, :].reshape(N, 24, 6)),
        ("columns", 3 * np.swapaxes(columns_two, -1, -2).reshape(N, 24, 6)),
        (None, np.degrees(pose.reshape(N, 72))),
    ]
    for k, (form, value) in enumerate(forms):
        path = write(tmp_path / f"{k}.npz", fourdhumans() | {"body_pose": value})
        batch = read_label_file(path, None, ReadSettings(options=ReadOptions(rot6d=form)))
        same_rotations(batch.pose, pose)
        assert batch.bad == [""] * N
    assert "in degrees" in notes_of(batch)
    apart = fourdhumans() | {"global_orient": pose[:, 0], "body_pose": pose[:, 1:].reshape(N, 69)}
    same_rotations(read_label_file(write(tmp_path / "apart.npz", apart)).pose, pose)


@pytest.mark.parametrize(("factor", "unit"), [(1, "m"), (100, "cm"), (1000, "mm")])
def test_meshes_in_any_unit(tmp_path: Path, factor: float, unit: str) -> None:
    vertices = mesh()["vertices"]
    for path in (tmp_path / "x.npz", tmp_path / "x.npy"):
        batch = read_label_file(write(path, {"vertices": vertices * factor}))
        assert batch.vertices is not None and batch.about.coordinates == "unknown"
        np.testing.assert_allclose(batch.vertices, vertices, rtol=1e-5)
        assert not batch.about.has_smpl and not batch.pose.any()
        assert (f"in {unit}" in notes_of(batch)) == (unit != "m")


def test_units_are_found_by_value_and_said(tmp_path: Path) -> None:
    def scale_note(columns: dict[str, Any], **changes: Any) -> str:
        batch = read_label_file(
            write(tmp_path / "x.npz", columns | changes), "4dhumans" if "betas" in columns else "spin"
        )
        np.testing.assert_allclose(batch.scale[:, 1], people()["side"] / 200, rtol=1e-5)
        return next(note for note in batch.about.notes if "scale" in note)

    side = people()["side"]
    assert "in px/200 (0.006" in scale_note(fourdhumans(), scale=side / 200)
    assert "though such files have px" in scale_note(fourdhumans(), scale=side / 200)
    assert "in px (1.2" in scale_note(spin(), scale=side) or "in px (1.3" in scale_note(spin(), scale=side)
    blind = {"openpose": None, "part": None}
    assert "in px/200 (half of them under 1.3" in scale_note(spin(), **blind)
    assert "in px (half of them over 2" in scale_note(spin(), scale=side, **blind)
    assert "in px" in scale_note(fourdhumans(), scale=np.stack([side / 2, side], 1))


def test_options_settle_what_values_do_not(tmp_path: Path) -> None:
    blind = spin() | {"openpose": None, "part": None, "scale": np.full(N, 20.0)}
    path = write(tmp_path / "x.npz", blind)
    for unit, expected in (("px", 0.1), ("px/200", 20.0)):
        options = ReadOptions(scale_unit=unit)  # type: ignore[arg-type]
        np.testing.assert_allclose(
            read_label_file(path, "spin", ReadSettings(options=options)).scale, expected
        )
    path = write(tmp_path / "y.npz", spin() | {"pose": np.full((N, 72), 5.0)})
    batch = read_label_file(path, "spin", ReadSettings(options=ReadOptions(angle_unit="deg")))
    np.testing.assert_allclose(batch.pose, np.radians(5.0), rtol=1e-6)


def test_only_ten_betas_are_used_and_it_is_said(tmp_path: Path) -> None:
    betas = np.random.default_rng(0).normal(size=(N, 300))
    batch = read_label_file(write(tmp_path / "x.npz", hmr2() | {"betas": betas}))
    np.testing.assert_allclose(batch.betas, betas[:, :10], rtol=1e-6)
    assert "'betas': using 10 of 300 columns" in batch.about.notes


# Bad rows.


def set_row(columns: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    array = np.array(columns[key], copy=True)
    array[2] = value
    return columns | {key: array}


MIRROR = np.diag([1.0, 1.0, -1.0])
BAD_ROWS: list[tuple[str, str, Any, str]] = [
    ("4dhumans", "has_body_pose", 0, "no_label: has_body_pose is 0"),
    ("4dhumans", "has_betas", 0, "no_label: has_betas is 0"),
    ("4dhumans", "body_pose", np.nan, "non_finite:body_pose"),
    ("4dhumans", "betas", 20.0, "absurd_betas: |beta| max 20.0 > 10"),
    ("4dhumans", "scale", 0.0, "bad_box: scale 0.000, not 0.01 to 500 px/200"),
    ("4dhumans", "center", np.inf, "non_finite:center"),
    ("4dhumans", "imgname", "", "empty_imgname"),
    ("spin", "has_smpl", 0, "no_label: has_smpl is 0"),
    ("spin", "gender", "x", "bad_gender: 'x'"),
    ("spin", "shape", np.nan, "non_finite:shape"),
    ("amass", "poses", np.nan, "non_finite:poses"),
    ("amass", "poses", 40.0, "absurd_pose: angle max 69.3 rad > 31.4"),
    ("amass", "trans", np.inf, "non_finite:trans"),
    (
        "hmr2",
        "body_pose",
        np.zeros((3, 3)),
        "bad_rotation: body_pose, joint 0 of it, is 2 off a rotation matrix",
    ),
    (
        "hmr2",
        "body_pose",
        1.5 * np.eye(3),
        "bad_rotation: body_pose, joint 0 of it, is 1.2 off a rotation matrix",
    ),
    (
        "hmr2",
        "global_orient",
        MIRROR,
        "bad_rotation: global_orient, joint 0 of it, is 2 off a rotation matrix",
    ),
    ("hmr2", "body_pose", np.nan, "non_finite:body_pose"),
    ("hmr2", "pred_cam", 0.0, "non_finite:pred_cam"),
    ("hmr2", "scaled_focal_length", -5.0, "bad_camera: focal length -5.0 px, not 10 to 1000000"),
    ("mesh", "vertices", np.nan, "non_finite:vertices"),
    ("mesh", "vertices", 0.0, "absurd_mesh: 0.00 m long"),
]


@pytest.mark.parametrize(("source", "key", "value", "reason"), BAD_ROWS)
def test_a_bad_row_gets_a_reason_and_spoils_no_other(
    tmp_path: Path, source: str, key: str, value: Any, reason: str
) -> None:
    batch = read_label_file(write(tmp_path / "x.npz", set_row(LAYOUTS[source](), key, value)))
    assert [*batch.bad[:2], *batch.bad[3:]] == [""] * (N - 1)
    assert batch.bad[2].split("; ")[0] == reason
    good = read_label_file(write(tmp_path / "y.npz", LAYOUTS[source]()))
    np.testing.assert_array_equal(batch.rows(3, N).pose, good.rows(3, N).pose)


def test_rows_of_a_flagged_file_tell_nothing_of_its_units(tmp_path: Path) -> None:
    """Most rows hold nothing; the one that does is in degrees."""
    columns = fourdhumans()
    flags = np.array([0, 0, 1, 0, 0, 0])
    pose = np.degrees(columns["body_pose"]) * flags[:, None]
    batch = read_label_file(write(tmp_path / "x.npz", columns | {"body_pose": pose, "has_body_pose": flags}))
    assert [i for i, bad in enumerate(batch.bad) if not bad] == [2]
    same_rotations(batch.pose[2], people()["pose"][2])


# Bad files.

OBJECTS = np.array([[0.0], [0.0, 1.0], 1.0, 2.0, 3.0, 4.0], dtype=object)
TOO_FEW = np.zeros((N - 1, 10))
BAD_FILES: list[tuple[str, dict[str, Any], str, str, str]] = [
    # layout, what is changed, the key of the message, expected, found
    (
        "4dhumans",
        {"body_pose": np.zeros((N, 66))},
        "body_pose",
        "rotations of 24 or 52 or 55 joints",
        "shape (6, 66)",
    ),
    (
        "4dhumans",
        {"body_pose": OBJECTS},
        "body_pose",
        "rotations of 24 or 52 or 55 joints",
        "an object array",
    ),
    ("4dhumans", {"betas": TOO_FEW}, "betas", "6 rows, as many as 'imgname' has", "5 rows"),
    ("4dhumans", {"betas": np.zeros((N, 8))}, "betas", "numbers of shape (N, 10+)", "shape (6, 8)"),
    (
        "4dhumans",
        {"has_betas": np.array(["a"] * N)},
        "has_betas",
        "numbers of shape (N) or (N, 1)",
        "dtype <U1",
    ),
    ("4dhumans", {"scale": np.full(N, 20.0)}, "scale", "box sizes in px or px/200", "0.1"),
    (
        "4dhumans",
        {"body_keypoints_2d": np.zeros((N, 17, 3))},
        "body_keypoints_2d",
        "numbers of shape (N, 25+, 3)",
        "shape (6, 17, 3)",
    ),
    ("4dhumans", {"center": None}, "center", "numbers of shape (N, 2)", "no such key; the file has betas"),
    ("4dhumans", {"imgname": np.arange(N)}, "imgname", "text of shape (N)", "dtype int64"),
    ("spin", {"pose": None}, "pose", "rotations of 24 or 52 or 55 joints", "no such key; the file has S"),
    (
        "spin",
        {"pose": np.full((N, 72), 5.0)},
        "pose",
        "a largest angle of under 6.6 (rad) or over 15 (deg)",
        "8.7 in half the rows; say which with --angle-unit",
    ),
    (
        "spin",
        {"openpose": None, "part": None, "scale": np.full(N, 20.0)},
        "scale",
        "box sizes in px or px/200",
        "20 in half the rows, and no keypoints; say which with --scale-unit",
    ),
    ("spin", {"gender": np.arange(N)}, "gender", "text of shape (N)", "dtype int64"),
    (
        "amass",
        {"poses": np.zeros((N, 100))},
        "poses",
        "numbers of shape (N, 66) or (N, 22, 3) or (N, 72)",
        "shape (6, 100)",
    ),
    ("amass", {"trans": np.zeros((N + 1, 3))}, "trans", "6 rows, as many as 'poses' has", "7 rows"),
    (
        "amass",
        {"betas": np.zeros(8)},
        "betas",
        "10 or more numbers, for the sequence or for every frame",
        "dtype float64 of shape (8,)",
    ),
    ("amass", {"betas": np.zeros((3, 16))}, "betas", "1 or 6 rows", "3 rows"),
    ("amass", {"gender": np.array("robot")}, "gender", "neutral, male or female", "'robot'"),
    ("amass", {"mocap_framerate": np.array(0.0)}, "mocap_framerate", "frames per second, 0.1 to 10000", "0"),
    (
        "amass",
        {"mocap_framerate": np.array([120, 60])},
        "mocap_framerate",
        "one number",
        "dtype int64 of shape (2,)",
    ),
    (
        "hmr2",
        {"body_pose": np.zeros((N, 20, 3, 3))},
        "body_pose",
        "rotations of 23 or 21 joints (J)",
        "shape (6, 20, 3, 3)",
    ),
    (
        "hmr2",
        {"body_pose": np.random.default_rng(0).normal(size=(N, 23, 6))},
        "body_pose",
        "rotations as 6 numbers whose order their values tell",
        "6 numbers that may be the first two rows or columns of a matrix; say which with --rot6d",
    ),
    ("hmr2", {"betas": np.zeros((N, 5))}, "betas", "numbers of shape (N, 10+)", "shape (6, 5)"),
    ("hmr2", {"img_size": np.zeros((N, 3))}, "img_size", "numbers of shape (N, 2)", "shape (6, 3)"),
    (
        "mesh",
        {"vertices": np.zeros((N, 10475, 3))},
        "vertices",
        "numbers of shape (N, 6890, 3)",
        "shape (6, 10475, 3)",
    ),
    (
        "mesh",
        {"vertices": np.zeros((N, 6890, 3), complex)},
        "vertices",
        "numbers of shape (N, 6890, 3)",
        "dtype complex128",
    ),
    (
        "mesh",
        {"vertices": mesh()["vertices"] * 10},
        "vertices",
        "people 0.4 to 2.6 m long, in m, cm or mm",
        "17 in half the meshes; say which with --length-unit",
    ),
]


@pytest.mark.parametrize(("source", "changes", "key", "expected", "found"), BAD_FILES)
def test_a_bad_file_is_one_clear_error(
    tmp_path: Path, source: Any, changes: dict[str, Any], key: str, expected: str, found: str
) -> None:
    path = write(tmp_path / "x.npz", LAYOUTS[source]() | changes)
    with pytest.raises(LabelError) as caught:
        read_label_file(path, source)
    error = caught.value
    assert (error.path, error.key) == (str(path), key)
    assert error.expected.startswith(expected)
    assert error.found.startswith(found)
    assert "\n" not in str(error)


class _Harm:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("unpickled something that is not plain data",)


BAD_CONTAINERS: list[tuple[str, bytes, str]] = [
    ("x.npz", b"", "an empty file (0 bytes)"),
    ("x.npz", b"PK\x03\x04cut", "a truncated .npz file"),
    ("x.txt", b"pose,betas\n", "a CSV table"),
    (
        "x.bin",
        b"\x01\x02\x03\x04" * 4,
        "a file of another kind, or a damaged one (it begins with b'\\x01\\x02",
    ),
    ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(20), "a damaged hdf5 file ("),
    ("x.npy", b"\x93NUMPY\x01\x00v\x00{'descr'", ""),
    ("x.pkl", pickle.dumps({"poses": _Harm()}), "a pickle with objects of the package '_pytest' (it names"),
    ("x.pkl", pickle.dumps([1, 2]), "a pickled list, and neither a dictionary nor a list of dictionaries"),
    ("x.pkl", pickle.dumps(amass())[:200], "one that is cut off, damaged or no pickle at all"),
]


@pytest.mark.parametrize(("name", "content", "found"), BAD_CONTAINERS)
def test_a_file_of_another_kind(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabelError) as caught:
        read_label_file(tmp_path / name)
    assert caught.value.found.startswith(found)
    assert "\n" not in str(caught.value)


def test_an_hdf5_file_that_would_be_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libhdf5 never gets past a text of no size in its heap: one error, in time, and this process goes on."""
    monkeypatch.setattr(hdf5, "SECONDS", 3.0)
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["imgname"] = np.array(["a.jpg", "b.jpg"], h5py.string_dtype())
    content = bytearray(path.read_bytes())
    content[content.index(b"GCOL") + 24] = 0
    path.write_bytes(content)
    with pytest.raises(
        LabelError, match=r"x\.h5: .*a damaged hdf5 file \(reading it does not end within 3 s\)"
    ):
        read_label_file(path)


def test_an_hdf5_file_that_would_end_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["imgname"] = 1
    monkeypatch.setattr(hdf5, "_READ_ALL", "import os; os.abort()")
    with pytest.raises(LabelError, match=r"a damaged hdf5 file \(reading it ends the process, by signal 6\)"):
        read_label_file(path)


def test_objects_in_an_npy_are_not_run(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([_Harm()], dtype=object))
    with pytest.raises(LabelError, match="an object array"):
        read_label_file(tmp_path / "x.npy")


def test_a_layout_that_cannot_be_told(tmp_path: Path) -> None:
    both = hmr2() | {"scale": people()["side"], "center": people()["center"]}
    path = write(tmp_path / "x.npz", both)
    with pytest.raises(
        LabelError, match=r"keys that fit 4dhumans and hmr2; say which with --source 4dhumans or"
    ):
        detect_layout(path)
    assert read_label_file(path, "hmr2").about.coordinates == "camera"
    path = write(tmp_path / "y.npz", {"poses": np.zeros((N, 72)), "betas": np.zeros(10)})
    with pytest.raises(LabelError) as caught:
        detect_layout(path)
    assert caught.value.expected == f"the keys of labels of one of these kinds: {', '.join(READERS)}"
    assert caught.value.found == "the keys betas, poses (nearest is amass, which also has 'trans')"
    with pytest.raises(LabelError, match="found the keys a$"):
        detect_layout(write(tmp_path / "z.npz", {"a": np.zeros(3)}))
