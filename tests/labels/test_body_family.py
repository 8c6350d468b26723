"""Parameters of SMPL-X, SMPL+H, MANO and FLAME: never their betas as SMPL's, and a note on what is taken."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_files import LAYOUTS, N, amass, fourdhumans, hmr2, mesh, people, spin, write
from scipy.spatial.transform import Rotation

from skelfit.config.manifest import LabelSource
from skelfit.errors import LabelError
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.label_store import build_store, read_rows, store_info
from skelfit.labels.readers.registry import detect_layout, read_label_file

POSE = people()["pose"]  # (N,24,3) rad
FINGERS = np.random.default_rng(5).normal(0, 0.3, (N, 33, 3))
BEYOND = np.concatenate([POSE[:, :22], FINGERS], axis=1)  # (N,55,3)
FACE = {"jaw_pose": np.zeros((N, 3)), "expression": np.zeros((N, 10))}
HANDS = {"left_hand_pose": np.zeros((N, 45)), "right_hand_pose": np.zeros((N, 12))}


def camerahmr() -> dict[str, Any]:
    """The layout of CameraHMR's labels."""
    p = people()
    return {
        "imgname": p["imgname"],
        "pose_cam": p["pose"].reshape(N, 72),
        "shape": p["betas"],
        "trans_cam": np.tile([0.1, 0.2, 5.0], (N, 1)),
        "cam_int": np.tile(np.array([[1000.0, 0, 320], [0, 1000, 240], [0, 0, 1]]), (N, 1, 1)),
        "center": p["center"],
        "scale": p["side"] / 200,
        "gtkps": p["gtkps"],
    }


def split() -> dict[str, Any]:
    """The layout of SMPLify-X's results, of SMPL."""
    return {
        "global_orient": POSE[:, 0],
        "body_pose": POSE[:, 1:].reshape(N, 69),
        "betas": people()["betas"],
        "camera_rotation": np.tile(np.eye(3), (N, 1, 1)),
        "camera_translation": np.tile([0.1, 0.2, 5.0], (N, 1)),
    }


MAKE = {
    "camerahmr": (camerahmr, "pose_cam"),
    "4dhumans": (fourdhumans, "body_pose"),
    "spin": (spin, "pose"),
    "amass": (lambda: amass(joints=24), "poses"),
    "hmr2": (split, "body_pose"),
}
ANY_WAY = [
    (layout, way)
    for layout in MAKE
    for way in (".npz", ".h5", ".pkl", "nested", "list")
    if (layout, way) != ("amass", "list")  # a sequence is one dictionary
]


def save(folder: Path, columns: dict[str, Any], way: str) -> Path:
    """A file of these columns in any container, or a pickle of nested dictionaries, or of one per person."""
    columns = {k: v for k, v in columns.items() if k != "extra_info"}
    if way.startswith("."):
        return write(folder / f"x{way}", columns)
    path = folder / "x.pkl"
    content: Any = {"people": columns}
    if way == "list":
        content = [{k: v[i] if np.ndim(v) else v for k, v in columns.items()} for i in range(N)]
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


def notes_of(batch: LabelBatch) -> str:
    return "; ".join(batch.about.notes)


def assert_smplx(batch: LabelBatch, layout: str) -> None:
    np.testing.assert_allclose(batch.pose[:, :22], POSE[:, :22], atol=1e-6)
    assert not batch.pose[:, 22:].any()
    assert not batch.betas.any()
    assert batch.bad == [""] * N
    notes = notes_of(batch)
    assert notes.count("SMPL-X parameters (told by ") == 1
    assert "betas are not SMPL's and not taken, every body has betas of 0" in notes
    if layout == "amass":
        np.testing.assert_allclose(batch.transl, amass()["trans"], atol=1e-6)
        assert "'trans': kept; it places SMPL-X's root joint" in notes
        return
    assert not batch.transl.any() and batch.about.coordinates == "camera_axes"
    dropped = {"camerahmr": "trans_cam", "hmr2": "camera_translation"}.get(layout)
    assert ("not taken, every translation is 0" in notes) is (dropped is not None)
    assert dropped is None or f"'{dropped}': not taken" in notes
    assert batch.about.has_camera is (layout == "camerahmr") is bool(batch.cam_int.any())


@pytest.mark.parametrize(("layout", "way"), ANY_WAY)
def test_a_key_of_a_face_tells_smplx(tmp_path: Path, layout: str, way: str) -> None:
    path = save(tmp_path, MAKE[layout][0]() | FACE, way)
    assert detect_layout(path)[0] == layout
    batch = read_label_file(path)
    assert_smplx(batch, layout)
    assert "told by 'expression', 'jaw_pose')" in notes_of(batch)


@pytest.mark.parametrize("shape", [(165,), (55, 3)])
@pytest.mark.parametrize("layout", [layout for layout in MAKE if layout != "hmr2"])
def test_55_joints_tell_smplx(tmp_path: Path, layout: str, shape: tuple[int, ...]) -> None:
    make, key = MAKE[layout]
    path = save(tmp_path, make() | {key: BEYOND.reshape(N, *shape)}, ".npz")
    batch = read_label_file(path)
    assert_smplx(batch, layout)
    assert f"told by '{key}' of 55 joints)" in notes_of(batch)


@pytest.mark.parametrize(("layout", "way"), ANY_WAY)
@pytest.mark.parametrize("name", ["smplx", "SMPL-X", "smplx_locked_head"])
def test_a_file_can_say_so_itself(tmp_path: Path, layout: str, way: str, name: str) -> None:
    batch = read_label_file(save(tmp_path, MAKE[layout][0]() | {"surface_model_type": np.array(name)}, way))
    assert_smplx(batch, layout)
    assert f"told by 'surface_model_type' {name!r})" in notes_of(batch)


def test_rotations_in_other_forms_are_cut_before_they_are_checked(tmp_path: Path) -> None:
    matrices = Rotation.from_rotvec(BEYOND.reshape(-1, 3)).as_matrix().reshape(N, 55, 3, 3)
    matrices[:, 30] = 0  # a finger that is no rotation spoils no person
    batch = read_label_file(save(tmp_path, fourdhumans() | {"body_pose": matrices}, ".npz"))
    same = Rotation.from_rotvec(batch.pose[:, :22].reshape(-1, 3)).as_matrix()
    np.testing.assert_allclose(same.reshape(N, 22, 3, 3), matrices[:, :22], atol=1e-5)
    assert batch.bad == [""] * N and not batch.betas.any()


def test_one_person_of_smplx_makes_a_list_of_them(tmp_path: Path) -> None:
    content: list[dict[str, Any]] = [{k: v[i] for k, v in split().items()} for i in range(N)]
    content[2]["jaw_pose"] = np.zeros(3)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    assert_smplx(read_label_file(tmp_path / "x.pkl"), "hmr2")
    for person in content:  # a key without a value tells nothing
        person["jaw_pose"] = None
    (tmp_path / "y.pkl").write_bytes(pickle.dumps(content))
    np.testing.assert_allclose(read_label_file(tmp_path / "y.pkl").betas, people()["betas"], rtol=1e-6)


@pytest.mark.parametrize("key", ["pred_cam_t_full", "pred_cam_t"])
def test_no_translation_of_smplx_is_taken_in_a_camera(tmp_path: Path, key: str) -> None:
    kept = {k: v for k, v in split().items() if not k.startswith("camera_")}
    batch = read_label_file(save(tmp_path, kept | FACE | {key: np.ones((N, 3))}, ".npz"))
    assert not batch.transl.any() and batch.about.coordinates == "camera_axes"
    assert f"'{key}': not taken, every translation is 0" in notes_of(batch)
    assert "in the camera of the crop" not in notes_of(batch)


def test_a_translation_of_smplx_made_from_boxes_is_not_taken_but_the_camera_is(tmp_path: Path) -> None:
    batch = read_label_file(save(tmp_path, hmr2() | FACE, ".npz"))
    assert not batch.transl.any() and batch.about.coordinates == "camera_axes"
    assert batch.about.has_camera and batch.cam_int.any()
    assert "'pred_cam': not taken" in notes_of(batch) and "made from 'pred_cam'" not in notes_of(batch)


def test_a_translation_of_smplx_relative_to_nothing_known_is_kept(tmp_path: Path) -> None:
    kept = {k: v for k, v in split().items() if not k.startswith("camera_")}
    batch = read_label_file(save(tmp_path, kept | FACE | {"transl": np.full((N, 3), 2.0)}, ".npz"))
    np.testing.assert_array_equal(batch.transl, np.full((N, 3), 2.0))
    assert batch.about.coordinates == "unknown" and "'transl': kept; it places" in notes_of(batch)


@pytest.mark.parametrize("layout", MAKE)
def test_smpl_is_as_it_was(tmp_path: Path, layout: str) -> None:
    make, key = MAKE[layout]
    columns = make()
    batch = read_label_file(save(tmp_path, columns, ".npz"))
    expected = columns["poses"].reshape(N, 24, 3) if layout == "amass" else POSE
    np.testing.assert_allclose(batch.pose, expected, atol=1e-6)
    betas = columns["betas"] if "betas" in columns else columns["shape"]
    np.testing.assert_allclose(batch.betas, np.broadcast_to(betas[..., :10], (N, 10)), rtol=1e-6)
    assert "SMPL-X" not in notes_of(batch) and "SMPL+H" not in notes_of(batch)


def test_smplify_x_with_smpl_has_the_camera_translation(tmp_path: Path) -> None:
    """A vertex v of SMPL is seen at v + t: as SMPL's own translation."""
    columns = split()
    batch = read_label_file(save(tmp_path, columns, ".npz"))
    np.testing.assert_allclose(batch.transl, columns["camera_translation"], rtol=1e-6)
    assert batch.about.coordinates == "camera" and not batch.about.has_camera
    batch = read_label_file(save(tmp_path, columns | {"transl": np.ones((N, 3))}, ".npz"))
    np.testing.assert_allclose(batch.transl, columns["camera_translation"] + 1, rtol=1e-6)
    alone = {k: v for k, v in columns.items() if k != "camera_rotation"}
    batch = read_label_file(save(tmp_path, alone, ".npz"))
    assert not batch.transl.any() and "'camera_translation': not used" in notes_of(batch)


@pytest.mark.parametrize("extra", [{}, FACE])
def test_a_turned_camera_turns_the_body_and_places_nothing(tmp_path: Path, extra: dict[str, Any]) -> None:
    turns = Rotation.random(N, random_state=1)
    columns = split() | {"camera_rotation": turns.as_matrix()} | extra
    batch = read_label_file(save(tmp_path, columns, ".npz"))
    orientations = Rotation.from_rotvec(batch.pose[:, 0]).as_matrix()
    seen = turns.as_matrix() @ Rotation.from_rotvec(POSE[:, 0]).as_matrix()
    np.testing.assert_allclose(orientations, seen, atol=1e-5)
    assert not batch.transl.any() and batch.about.coordinates == "camera_axes"
    assert "'camera_translation': not used" in notes_of(batch)
    columns["camera_rotation"] = columns["camera_rotation"].copy()
    columns["camera_rotation"][1] = 0
    bad = read_label_file(save(tmp_path, columns, ".npz")).bad
    assert "bad_rotation: camera_rotation" in bad[1] and bad[0] == "" == bad[2]


@pytest.mark.parametrize("layout", [layout for layout in MAKE if layout != "hmr2"])
def test_smplh_by_its_joints(tmp_path: Path, layout: str) -> None:
    make, key = MAKE[layout]
    columns = make()
    batch = read_label_file(save(tmp_path, columns | {key: BEYOND[:, :52].reshape(N, 156)}, ".npz"))
    np.testing.assert_allclose(batch.pose[:, :22], POSE[:, :22], atol=1e-6)
    assert not batch.pose[:, 22:].any()
    betas = columns["betas"] if "betas" in columns else columns["shape"]
    np.testing.assert_allclose(batch.betas, np.broadcast_to(betas[..., :10], (N, 10)), rtol=1e-6)
    notes = notes_of(batch)
    assert f"SMPL+H parameters (told by '{key}' of 52 joints" in notes and "taken as SMPL's" in notes


def test_smplh_by_its_hands(tmp_path: Path) -> None:
    columns = split()
    columns["body_pose"] = columns["body_pose"][:, :63]
    batch = read_label_file(save(tmp_path, columns | HANDS, ".pkl"))
    np.testing.assert_allclose(batch.betas, people()["betas"], rtol=1e-6)
    assert "SMPL+H parameters (told by 'left_hand_pose', 'right_hand_pose'" in notes_of(batch)
    np.testing.assert_allclose(batch.transl, columns["camera_translation"], rtol=1e-6)


def test_21_joints_prove_nothing_and_it_is_said(tmp_path: Path) -> None:
    columns = split()
    columns["body_pose"] = columns["body_pose"][:, :63]
    batch = read_label_file(save(tmp_path, columns, ".npz"))
    np.testing.assert_allclose(batch.betas, people()["betas"], rtol=1e-6)
    assert "'body_pose': no hands; the betas are taken as SMPL's, though SMPL-X's" in notes_of(batch)
    stated = read_label_file(save(tmp_path, columns | {"model_type": np.array("smpl")}, ".npz"))
    assert "no hands" not in notes_of(stated)


@pytest.mark.parametrize("source", [None, "hmr2", "amass"])
@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (
            {"hand_pose": np.zeros((N, 45)), "global_orient": np.zeros((N, 3)), "betas": np.zeros((N, 10))},
            "parameters of hands, as of MANO ('hand_pose'), and none of a body",
        ),
        (
            FACE | {"global_orient": np.zeros((N, 3)), "betas": np.zeros((N, 100))},
            "parameters of a head, as of FLAME ('expression', 'jaw_pose'), and none of a body",
        ),
    ],
)
def test_hands_and_heads_are_refused(tmp_path: Path, columns: Any, found: str, source: Any) -> None:
    path = save(tmp_path, columns, ".npz")
    with pytest.raises(LabelError) as caught:
        read_label_file(path, source)
    assert caught.value.found == found
    assert caught.value.expected == "the pose of a body ('body_pose', 'poses' or 'pose')"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", MAKE)
def test_another_model_by_name_is_refused(tmp_path: Path, layout: str) -> None:
    path = save(tmp_path, MAKE[layout][0]() | {"model_type": np.array("STAR")}, ".npz")
    with pytest.raises(LabelError, match="'model_type': expected parameters of SMPL, SMPL.H or SMPL-X"):
        read_label_file(path)
    # What is no name of a model is not for us.
    for value in (np.array("resnet50"), np.zeros(3), np.array([{}, None])):
        path = save(tmp_path, MAKE[layout][0]() | {"model_type": value}, ".npz")
        assert read_label_file(path).bad == [""] * N


@pytest.mark.parametrize(("vertices", "model"), [(10475, "SMPL-X"), (5023, "FLAME"), (778, "MANO")])
def test_meshes_of_other_models_are_named(tmp_path: Path, vertices: int, model: str) -> None:
    path = write(tmp_path / "x.npz", {"vertices": np.zeros((N, vertices, 3))})
    with pytest.raises(LabelError, match=f"shape .6, {vertices}, 3.: meshes of {model}, which have"):
        read_label_file(path)


def test_smpl_meshes_beside_a_face_are_meshes(tmp_path: Path) -> None:
    batch = read_label_file(write(tmp_path / "x.npz", mesh() | FACE))
    assert batch.vertices is not None and batch.bad == [""] * N
    assert set(LAYOUTS) | {"camerahmr"} == set(MAKE) | {"mesh"}, "every layout is in these tests"


def test_the_store_keeps_what_was_not_taken(tmp_path: Path) -> None:
    path = save(tmp_path, camerahmr() | {"pose_cam": BEYOND}, ".npz")
    store = build_store(LabelSource(path=path.name), path, tmp_path / "store")
    about = store_info(store).about
    assert about.coordinates == "camera_axes" and about.has_camera
    assert [note.split(" ")[0] for note in about.notes] == ["SMPL-X", "'scale':", "'trans_cam':"]
    assert not read_rows(store, 0, N).betas.any()
