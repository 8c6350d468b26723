"""Tracks of estimators and data sets: what is taken of a file in its real keys, and that it converts end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
import track_files as tracks
from click.testing import CliRunner
from job_fakes import FakeFitter
from miniatures import Trap
from scipy.spatial.transform import Rotation
from track_files import FRAMES, TRACK_FILES, truth

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.smpl import SmplModel, root_joint_tables
from skelfit.cli import main
from skelfit.config.manifest import LabelLayout, LabelSource, ReadOptions
from skelfit.errors import LabelError
from skelfit.labels.label_batch import FloatArray, LabelBatch
from skelfit.labels.label_store import build_store, read_rows, store_info
from skelfit.labels.readers.registry import READERS, detect_layout, read_label_file
from skelfit.labels.readers.tracks import TrackReader
from skelfit.labels.world_up import place_roots
from skelfit.shards.label_vector import unpack
from skelfit.shards.shard_reader import read_samples

READER_OF = {reader.layout: reader for reader in READERS.values() if isinstance(reader, TrackReader)}
SMPLX = {"gvhmr", "prompthmr"}
PLACED = {
    "3dpw": "camera",
    "slahmr": "camera",
    "easymocap": "world",
}  # whose translations need the root joint


def same_turns(one: np.ndarray, other: np.ndarray) -> None:
    """Axis-angles of the same rotations."""
    a, b = (Rotation.from_rotvec(x.reshape(-1, 3)) for x in (one, other))
    assert (a * b.inv()).magnitude().max() < 1e-5


def read(path: Path, coordinates: Any = None, tmp: Path | None = None) -> LabelBatch:
    """All rows of a file or folder, by its store."""
    options = ReadOptions(coordinates=coordinates)
    store = build_store(LabelSource(path.name, read=options), path, (tmp or path.parent) / "stores")
    return read_rows(store, 0, store_info(store).rows)


@pytest.mark.parametrize("layout", TRACK_FILES)
def test_a_file_in_its_real_keys(tmp_path: Path, layout: LabelLayout) -> None:
    """Pose, betas, model and sequence of the first person, whatever the container."""
    path, t = TRACK_FILES[layout](tmp_path), truth()
    if path.is_file():
        assert detect_layout(path)[0] == layout
    batch = read(path)
    body = t["pose"][:, 1:22]
    np.testing.assert_allclose(batch.pose[:FRAMES, 1:22], body, atol=1e-5)
    assert not batch.pose[:, 22:].any()
    expected = np.zeros(10) if layout in SMPLX | {"aist"} else t["betas"]
    np.testing.assert_allclose(batch.betas[:FRAMES], np.tile(expected, (FRAMES, 1)), atol=1e-5)
    first = batch.sequences[0]
    assert (first.start, first.frames) == (0, FRAMES)
    assert first.frame_rate == {"3dpw": 30.0, "aist": 60.0}.get(layout)
    assert batch.vertices is None and batch.about.has_smpl
    said = "; ".join(batch.about.notes)
    assert ("SMPL-X parameters" in said) is (layout in SMPLX)
    assert ("--coordinates" in said) is (len(READER_OF[layout].spec.views) > 1)


@pytest.mark.parametrize(
    ("layout", "asked", "coordinates", "camera", "root", "transl"),
    [
        ("gvhmr", None, "world_y_up", False, "world", True),
        ("gvhmr", "camera", "camera_axes", True, "pose", False),
        ("prompthmr", None, "world_y_up", False, "world", True),
        ("prompthmr", "camera", "camera_axes", True, "pose", False),
        ("wham", "camera", "camera", False, "pose", True),
        ("wham", None, "world_y_up", False, "world", None),
        ("tram", None, "camera", False, "pose", True),
        ("phalp", None, "camera", True, "pose", True),
        ("vibe", None, "camera_axes", False, "pose", False),
        ("pare", None, "camera_axes", False, "pose", False),
        ("romp", None, "camera", False, "pose", True),
        ("aist", None, "world_y_up", False, "world", True),
        ("slahmr", "world", "world_z_up", False, "pose", True),
        ("3dpw", "world", "world_z_up", False, "pose", True),
    ],
)
def test_where_people_stand(
    tmp_path: Path,
    layout: LabelLayout,
    asked: Any,
    coordinates: str,
    camera: bool,
    root: str,
    transl: bool | None,
) -> None:
    batch, t = read(TRACK_FILES[layout](tmp_path), asked), truth()
    assert (batch.about.coordinates, batch.about.has_camera) == (coordinates, camera)
    same_turns(batch.pose[:FRAMES, 0], t[root][:, 0])
    if transl is not None:
        np.testing.assert_allclose(batch.transl[:FRAMES], t["transl"] * transl, atol=1e-5)
        assert batch.root_shift is None
    assert bool(batch.cam_int.any()) is camera


def test_cameras_and_boxes_of_images(tmp_path: Path) -> None:
    batch = read(tracks.phalp(tmp_path))
    assert len(batch) == FRAMES, "the tracker's guess of the last frame is no row"
    np.testing.assert_allclose(batch.cam_int[0], [[25000, 0, 640], [0, 25000, 360], [0, 0, 1]])
    np.testing.assert_allclose(batch.center[0], [200, 250])
    np.testing.assert_allclose(batch.scale[0], [1, 2])
    assert batch.imgname[1] == "_DEMO/clip/img/000002.jpg"
    batch = read(tracks.prompthmr(tmp_path), "camera")
    np.testing.assert_allclose(batch.cam_int[0], [[1000, 0, 640], [0, 1000, 360], [0, 0, 1]])
    np.testing.assert_allclose(batch.center[0], [200, 250])
    batch = read(tracks.threedpw(tmp_path))
    assert batch.imgname[3] == "downtown_walking_00/image_00003.jpg" and batch.gender == ["male"] * FRAMES
    assert batch.bad == ["", "", "no_label: campose_valid is 0", "", ""]


def shapes_of(models: ModelSet) -> Any:
    """Root joints of the test's models."""

    def joints(gender: str, betas: FloatArray) -> np.ndarray:
        at_rest, directions = root_joint_tables(models.smpl_of(gender))
        return np.asarray(at_rest + betas.astype(np.float64) @ directions.T)

    return joints


def skin(
    models: ModelSet, gender: str, pose: np.ndarray, betas: np.ndarray, transl: np.ndarray
) -> np.ndarray:
    """Vertices (n,V,3) of SMPL."""
    model = SmplModel(models.smpl_of(gender))
    tensors = (torch.tensor(np.asarray(x), dtype=torch.float32) for x in (pose, betas, transl))
    return np.asarray(model.vertices(*tensors), np.float64)


@pytest.mark.parametrize("layout", PLACED)
def test_a_body_that_turns_about_another_point_stands_where_the_file_says(
    tmp_path: Path, models: ModelSet, layout: LabelLayout
) -> None:
    """By the definition of each layout, vertex by vertex."""
    path, t = TRACK_FILES[layout](tmp_path), truth()
    batch = place_roots(read(path), shapes_of(models))
    assert batch.root_shift is None
    gender = batch.gender[0]
    given, transl = t["pose"].copy(), t["transl"]
    if layout == "easymocap":  # R(Rh) times the body without a root rotation, plus Th
        given[:, 0] = 0
        body = skin(models, gender, given, tracks.each(t), np.zeros((FRAMES, 3)))
        expected = np.einsum("nij,nvj->nvi", tracks.matrices(t["world"][:, 0]), body) + transl[:, None]
    else:  # the body in the world, before the camera of each frame
        body = skin(models, gender, given, tracks.each(t), transl)
        turns = tracks.matrices(np.linspace([0.1, 0, 0], [0.2, 0.3, 0], FRAMES))
        expected = np.einsum("nij,nvj->nvi", turns, body)
        expected += np.linspace([0, 0, 0], [0.5, 0, 1], FRAMES)[:, None]
    found = skin(models, gender, batch.pose, batch.betas, batch.transl)
    good = [i for i in range(FRAMES) if not batch.bad[i]]
    np.testing.assert_allclose(found[good], expected[good], atol=2e-5)


def test_the_middle_of_the_hips_is_where_wham_says(tmp_path: Path, models: ModelSet) -> None:
    """To some centimetres, which are the same in every frame as seen from the body."""
    batch = place_roots(read(tracks.wham(tmp_path)), shapes_of(models))
    model = SmplModel(models.smpl_of("neutral"))
    rest = (
        model.j_template + torch.einsum("jck,nk->njc", model.j_shapedirs, torch.tensor(batch.betas))
    ).numpy()
    root, hips = rest[:FRAMES, 0], rest[:FRAMES, 1:3].mean(1)
    turned = np.einsum("nij,nj->ni", tracks.matrices(batch.pose[:FRAMES, 0].astype(np.float64)), hips - root)
    off = turned + root + batch.transl[:FRAMES] - truth()["transl"]
    own = np.einsum("nji,nj->ni", tracks.matrices(batch.pose[:FRAMES, 0].astype(np.float64)), off)
    assert np.linalg.norm(own, axis=1).max() < 0.06 and np.ptp(own, axis=0).max() < 1e-4


def test_gaps_keep_time_and_long_ones_begin_a_sequence(tmp_path: Path) -> None:
    batch = read(tracks.wham(tmp_path))
    assert [(s.name, s.subject, s.start, s.frames) for s in batch.sequences] == [
        ("wham_output-0", "wham_output-0", 0, 5),
        ("wham_output-1", "wham_output-1", 5, 5),
        ("wham_output-1-1", "wham_output-1", 10, 1),
    ]
    assert [i for i, bad in enumerate(batch.bad) if bad] == [7]
    assert batch.bad[7] == "no_label: wham_output-1 is not in frame 5"
    np.testing.assert_allclose(batch.pose[8, 1:], truth(1)["pose"][2, 1:], atol=1e-6)


def test_people_of_images_are_no_sequences(tmp_path: Path) -> None:
    for make, layout in ((tracks.pare_image, "pare"), (tracks.romp_image, "romp"), (tracks.bedlam, "bedlam")):
        path = make(tmp_path)
        assert detect_layout(path)[0] == layout
        batch = read(path)
        assert len(batch) == FRAMES and batch.sequences == () and batch.bad == [""] * FRAMES
        np.testing.assert_allclose(batch.pose[:, 1:22], truth()["pose"][:, 1:22], atol=1e-5)
        assert not batch.gtkps.any()
    single = tracks.easymocap(tmp_path) / "000001.json"
    assert read_label_file(single).sequences == ()


def test_a_folder_has_the_layout_of_its_files(tmp_path: Path) -> None:
    hps = tmp_path / "hps"
    hps.mkdir()
    first = tracks.tram(hps)
    first.with_name("hps_track_1.npy").write_bytes(first.read_bytes())
    first.with_name("hps_track_2.npy").write_bytes(b"\x93NUMPY cut")
    batch = read(hps)
    assert [s.name for s in batch.sequences] == ["hps_track_0", "hps_track_1", "hps_track_2"]
    assert batch.bad[-1].startswith("bad_file: ") and batch.bad[:-1] == [""] * (2 * FRAMES)
    fits = tmp_path / "results"
    fits.mkdir()
    tracks.smplifyx(fits)
    batch = read(fits)
    assert len(batch) == 1 and batch.sequences == () and batch.about.coordinates == "camera"


def test_vertices_beside_parameters_are_not_read(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "global_orient": np.zeros((2, 3)),
        "body_pose": np.zeros((2, 69)),
        "betas": np.zeros((2, 10)),
    }
    np.savez(tmp_path / "x.npz", **columns, pred_vertices=np.zeros((2, 6890, 3)))
    assert detect_layout(tmp_path / "x.npz")[0] == "hmr2"


def test_nothing_of_a_file_is_run(tmp_path: Path) -> None:
    trap = Trap(tmp_path / "ran")
    joblib.dump(
        {0: {"pose": trap, "betas": np.zeros(3), "trans": np.zeros(3)}}, tmp_path / "a.pkl", compress=3
    )
    np.save(tmp_path / "b.npy", {"pred_rotmat": trap})  # type: ignore[arg-type]
    np.savez(tmp_path / "c.npz", results={"smpl_thetas": trap})  # type: ignore[arg-type]
    torch.save({"smpl_params_global": trap}, tmp_path / "d.pt")
    joblib.dump({0: {"pose": np.array([trap], dtype=object)}}, tmp_path / "e.pkl")
    for name in ("a.pkl", "b.npy", "c.npz", "d.pt", "e.pkl"):
        with pytest.raises(LabelError):
            read_label_file(tmp_path / name)
    assert not (tmp_path / "ran").exists()


MAKERS = TRACK_FILES | {
    "bedlam": tracks.bedlam,
    "pare_image": tracks.pare_image,
    "romp_image": tracks.romp_image,
    "smplifyx": tracks.smplifyx,
}


@pytest.mark.parametrize("layout", MAKERS)
def test_a_file_becomes_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: ModelSet, layout: str
) -> None:
    """From the command to tars; only the fit is a stand-in."""
    monkeypatch.setattr("skelfit.api.convert_dataset.make_fitter", lambda *_: FakeFitter(stages=3))
    path = MAKERS[layout](tmp_path)
    words = ["convert", "--labels", str(path), "--out", str(tmp_path / "out"), "--workers", "0"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["rows_in"] == sum(summary["statuses"].values()) >= 1
    # The stand-in finds a bent knee and a far skin where betas ask for them.
    samples = [s for tar in sorted((tmp_path / "out").glob("*.tar")) for s in read_samples(tar)]
    batch = place_roots(read(path), shapes_of(models))
    for _, vector, meta in samples:
        row = meta["row"]
        label = unpack(vector[None])
        same_turns(label["smpl_pose"].reshape(1, 24, 3)[:, 0], batch.pose[row : row + 1, 0])
        np.testing.assert_allclose(label["smpl_trans"][0], batch.transl[row], atol=1e-6)
        assert meta["coordinates"] == batch.about.coordinates
        assert (meta["sequence"] is None) is (batch.sequences == ())
    good = summary["statuses"]
    assert good["bad_input"] == sum(map(bool, batch.bad)) if "bad_input" in good else not any(batch.bad)
