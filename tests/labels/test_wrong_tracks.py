"""Wrong files of tracks: one message each, which names the file, the key, what was expected and what was found."""

from __future__ import annotations

import json
import pickle
from datetime import datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
import track_files as tracks
from miniatures import Trap
from track_files import FRAMES, TRACK_FILES

from skelfit.config.manifest import LabelSource, ReadOptions
from skelfit.errors import LabelError
from skelfit.labels.label_store import build_store, read_rows
from skelfit.labels.read_settings import OptionError, ReadSettings
from skelfit.labels.readers.registry import detect_layout, read_label_file


def changed(make: Any, folder: Path, change: Any) -> Path:
    """A file of a maker, of which one thing is changed."""
    path: Path = make(folder)
    if path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)
    elif path.suffix == ".npy":
        content = np.load(path, allow_pickle=True).item()
        change(content)
        np.save(path, content)
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=True) as archive:
            content = {key: archive[key] for key in archive.files}
        change(content)
        np.savez(path, **content)
    else:
        content = joblib.load(path) if path.read_bytes()[:1] != b"\x80" or make is not tracks.aist else pickle.loads(
            path.read_bytes())  # fmt: skip
        change(content)
        joblib.dump(content, path)
    return path


def put(*keys: Any, value: Any) -> Any:
    """A change that sets a nested key; None removes it."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        if value is None:
            del content[keys[-1]]
        else:
            content[keys[-1]] = value

    return change


THIRD = "_DEMO/clip/img/000003.jpg"  # frame of PHALP's file
WRONG: list[tuple[str, Any, str | None, str, str]] = [
    # layout, change, key of the message, expected, found
    ("gvhmr", put("smpl_params_global", "body_pose", value=torch.zeros(5, 60)), "smpl_params_global.body_pose",
     "rotations of 23 or 21 joints", "shape (5, 60)"),
    ("gvhmr", put("K_fullimg", value=torch.zeros(4, 3, 3)), "K_fullimg", "an intrinsic matrix (3, 3)",
     "shape (4, 3, 3)"),
    ("gvhmr", put("smpl_params_global", "transl", value=torch.zeros(4, 3)), "smpl_params_global.transl",
     "5 rows, as many as 'smpl_params_global.global_orient' has", "4 rows"),
    ("wham", put(1, "trans_world", value=None), "1.trans_world", "numbers of shape (N, 3)", "no such key"),
    ("wham", put(0, "betas", value=np.zeros((4, 10))), "0.betas", "1 or 5 rows", "4 rows"),
    ("wham", put(1, "frame_ids", value=np.array([3, 3, 4, 5, 6])), "1.frame_ids", "numbers of frames in ascending",
     "3 after 3 (row 1)"),
    ("wham", put(0, "frame_ids", value=np.array([0, 1, 2, 3, 1e30])), "0.frame_ids", "whole numbers of frames",
     "1e+30 in row 4"),
    ("wham", put(0, "pose_world", value=np.zeros((5, 156))), "0.pose_world", "rotations of 24 or 22 joints",
     "shape (5, 156)"),
    ("tram", put("pred_trans", value=torch.zeros(5, 2, 3)), "pred_trans", "numbers of shape (N, 3) or (N, 1, 3)",
     "shape (5, 2, 3)"),
    ("tram", put("pred_shape", value=torch.zeros(5, 8)), "pred_shape", "10 or more numbers", "dtype float32"),
    ("prompthmr", put("people", 1, "smplx_world", "trans", value=np.zeros((5, 2))), "1.smplx_world.trans",
     "numbers of shape (N, 3) or (N, 1, 3)", "shape (5, 2)"),
    ("slahmr", put("pose_body", value=np.zeros((1, 5, 60))), "0.pose_body", "rotations of 23 or 21 joints",
     "shape (5, 60)"),
    ("slahmr", put("root_orient", value=np.zeros((2, 5, 3))), "root_orient",
     "numbers (B, T, ...) of people and frames of 1 people, as in 'trans'", "shape (2, 5, 3)"),
    ("slahmr", put("trans", value=np.zeros((5, 3))), "trans", "numbers (B, T, ...)", "shape (5, 3)"),
    ("slahmr", put("cam_t", value=np.zeros((1, 3, 3))), "0.cam_t", "5 rows", "3 rows"),
    ("vibe", put(1, "pose", value=np.zeros((5, 71))), "1.pose", "rotations of 24 or 22 joints", "shape (5, 71)"),
    ("vibe", put(1, "bboxes", value=np.zeros((5, 3))), "1.bboxes", "numbers of shape (N, 4) or (N, 5)", "shape (5, 3)"),
    ("romp", put("sequence_results", value={7: {"smpl_thetas": [np.zeros(60)], "smpl_betas": [np.zeros(10)]}}),
     "7.smpl_thetas", "rotations of 24 or 22 joints", "shape (1, 60)"),
    ("phalp", put(THIRD, "smpl", value=[]), f"{THIRD}.smpl", "1 entries, one for each of 'tid'", "0"),
    ("phalp", put(THIRD, "smpl", value=None), f"{THIRD}.smpl", "what the other frames have", "no such key"),
    ("phalp", put(THIRD, "time", value=1), "1.time", "numbers of frames in ascending order", "1 after 1 (row 2)"),
    ("prompthmr", put("people", 1, "bboxes", value=np.zeros((5, 3))), "people.1.bboxes", "numbers of shape (N, 4)",
     "shape (5, 3)"),
    ("prompthmr", put("camera", "img_focal", value="x"), "camera.img_focal", "numbers", "dtype <U1"),
    ("3dpw", put("betas", value=[np.zeros(10)] * 2), "betas", "1 entries, one for each of 'poses'", "2"),
    ("3dpw", put("cam_poses", value=np.zeros((5, 3))), "cam_poses", "numbers of shape (N, 4, 4) or (N, 3, 4)",
     "shape (5, 3)"),
    ("3dpw", put("genders", value=["x"]), "0.gender", "neutral, male or female", "'x'"),
    ("aist", put("smpl_scaling", value=np.zeros(3)), "smpl_scaling", "one number", "dtype float64 of shape (3,)"),
    ("wham", put(0, value=None), None, "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "change", "key", "expected", "found"), WRONG)
def test_a_wrong_file_is_one_clear_error(
    tmp_path: Path, layout: Any, change: Any, key: str | None, expected: str, found: str
) -> None:
    path = changed(TRACK_FILES[layout], tmp_path, change)
    if key is None:  # one of two people is no fault
        assert len(read_label_file(path).sequences) == 2
        return
    with pytest.raises(LabelError) as caught:
        read_label_file(path, layout)
    error = caught.value
    assert (error.path, error.key) == (str(path), key)
    assert error.expected.startswith(expected) and error.found.startswith(found), str(error)
    assert "\n" not in str(error)


def test_a_latent_pose_is_not_taken_for_joints(tmp_path: Path) -> None:
    """SMPLify-X with VPoser writes 32 numbers in the place of joints."""
    path = changed(tracks.smplifyx, tmp_path, put("body_pose", value=np.zeros((1, 32), np.float32)))
    with pytest.raises(
        LabelError, match="'body_pose': expected rotations of 23 or 21 joints, found 32 numbers.*VPoser"
    ):
        read_label_file(path)


def emptied(content: Any) -> Any:
    """The same with no frame in any array that has one for each."""
    if isinstance(content, dict):
        return {key: emptied(value) for key, value in content.items()}
    return content[:0] if getattr(content, "shape", (0,))[:1] == (FRAMES,) else content


@pytest.mark.parametrize("layout", ["gvhmr", "wham", "tram", "vibe", "pare", "aist"])
def test_a_track_without_a_frame_is_no_fault(tmp_path: Path, layout: Any) -> None:
    def empty(content: Any) -> None:
        content.update(emptied(dict(content)))

    batch = read_label_file(changed(TRACK_FILES[layout], tmp_path, empty))
    assert len(batch) == 0 and batch.sequences == () and batch.about.notes[-1].startswith("warning: 0 rows")


def test_coordinates_that_a_file_lacks_are_refused(tmp_path: Path) -> None:
    settings = ReadSettings(options=ReadOptions(coordinates="world"))
    with pytest.raises(
        OptionError, match="expected people both before a camera and in a world, for --coordinates"
    ):
        read_label_file(tracks.tram(tmp_path), None, settings)


def test_cut_and_damaged_files_are_one_error(tmp_path: Path) -> None:
    for layout in ("wham", "phalp", "tram", "gvhmr", "aist"):
        path = TRACK_FILES[layout](tmp_path)
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(LabelError) as caught:
            read_label_file(path)
        assert "\n" not in str(caught.value)
    folder = tracks.easymocap(tmp_path)
    (folder / "000002.json").write_text('[{"Rh": [], "Th": [], "poses": [')
    with pytest.raises(LabelError, match="000002.json: expected a JSON file"):
        build_store(LabelSource("smpl"), folder, tmp_path / "stores")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("Th", None, "'000002.json, Th': expected numbers, found a NoneType"),
        ("Rh", "x", "'000002.json, Rh': expected numbers, found dtype <U1"),
        (
            "poses",
            [[0.0] * 60],
            r"'0.poses': expected shape \(72,\) in all frames, as in the first, found \(60,\) in frame",
        ),
    ],
)
def test_a_wrong_frame_of_a_folder_is_named(tmp_path: Path, key: str, value: Any, said: str) -> None:
    folder = tracks.easymocap(tmp_path)
    (person,) = json.loads((folder / "000002.json").read_text())
    (folder / "000002.json").write_text(json.dumps([person | {key: value}]))
    with pytest.raises(LabelError, match=said):
        build_store(LabelSource("smpl"), folder, tmp_path / "stores")


# What is no fault.


def person_of(folder: Path, number: int = 0) -> dict[str, Any]:
    """A person of WHAM's file."""
    folder.mkdir(exist_ok=True)
    return dict(joblib.load(tracks.wham(folder))[number])


def test_people_who_were_not_seen_are_left_out(tmp_path: Path) -> None:
    person = person_of(tmp_path)
    joblib.dump({3: {}, 4: None, "fps": 30.0, 5: person}, tmp_path / "w.pkl")
    assert [s.name for s in read_label_file(tmp_path / "w.pkl").sequences] == ["w-5"]
    no_person: dict[str, list[Any]] = {
        "tid": [],
        "smpl": [],
        "camera": [],
        "size": [],
        "bbox": [],
        "tracked_time": [],
    }

    def leave(content: Any) -> None:
        content.update({name: frame | no_person for name, frame in content.items()})

    empty = changed(tracks.phalp, tmp_path, leave)
    assert detect_layout(empty)[0] == "phalp" and len(read_label_file(empty)) == 0
    with np.load(tracks.romp_image(tmp_path), allow_pickle=True) as archive:
        image = {key: value[:1] for key, value in archive["results"].item().items()}
    results = {"0.png": None, "1.png": image, "2.png": {}}
    np.savez(tmp_path / "r.npz", results=results)  # type: ignore[arg-type]
    assert read_label_file(tmp_path / "r.npz").imgname == ["1.png"]


def test_two_people_of_one_name_stay_two(tmp_path: Path) -> None:
    """1 and '1'; and the second piece of one person, which is called as another person is."""
    one, other = person_of(tmp_path), person_of(tmp_path, 1)
    joblib.dump({1: one, "1": one}, tmp_path / "w.pkl")
    assert [s.name for s in read_label_file(tmp_path / "w.pkl").sequences] == ["w-1", "w-1-2"]
    joblib.dump({"1": other, "1-1": one}, tmp_path / "w.pkl")
    batch = read_label_file(tmp_path / "w.pkl")
    assert [(s.name, s.frames) for s in batch.sequences] == [("w-1", 5), ("w-1-1", 1), ("w-1-1-2", 5)]


def test_frames_without_numbers_follow_one_another(tmp_path: Path) -> None:
    for make, keys in ((tracks.wham, (0, "frame_ids")), (tracks.tram, ("frame",))):
        batch = read_label_file(changed(make, tmp_path, put(*keys, value=None)))
        assert (batch.sequences[0].start, batch.sequences[0].frames) == (0, FRAMES)
        assert f"no '{keys[-1]}': every row is taken as the next frame" in "; ".join(batch.about.notes)


def test_folders_of_frames_are_videos_of_their_own(tmp_path: Path) -> None:
    """Frames of the same numbers, and names with letters before the number."""
    folder, both = tracks.easymocap(tmp_path), tmp_path / "takes"
    for take in ("take.1", "take.2"):
        (both / take).mkdir(parents=True)
        for path in folder.iterdir():
            (both / take / f"frame_{path.name}").write_bytes(path.read_bytes())
    (both / "take.1" / "frame_000002.json").unlink()
    batch = read_rows(build_store(LabelSource("takes"), both, tmp_path / "stores"), 0, 2 * FRAMES)
    assert [(s.name, s.start, s.frames) for s in batch.sequences] == [
        ("take.1-0", 0, FRAMES),
        ("take.2-0", FRAMES, FRAMES),
    ]
    assert [i for i, bad in enumerate(batch.bad) if bad] == [2]


def test_files_of_one_name_are_sequences_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    for ending, number in (("pkl", 0), ("npz", 1)):
        joblib.dump({0: person_of(tmp_path, number)}, folder / f"a.{ending}")
    batch = read_rows(build_store(LabelSource("w"), folder, tmp_path / "stores"), 0, 11)
    assert [s.name for s in batch.sequences] == ["a-0", "a-0-1", "a-0-2"]


def test_what_can_hardly_be_is_said(tmp_path: Path) -> None:
    """Translations in mm, and people upside down in a world whose y is up."""
    notes = read_label_file(tracks.wham(tmp_path)).about.notes
    assert not any("warning" in note for note in notes)
    fast = changed(tracks.wham, tmp_path, lambda c: c[0].update(trans_world=1000 * c[0]["trans_world"]))
    assert "warning: 'trans_world': people move at " in "; ".join(read_label_file(fast).about.notes)
    down = changed(tracks.wham, tmp_path, lambda c: [p.update(pose_world=p["pose"]) for p in c.values()])
    assert "warning: 'pose_world': people's trunks are below" in "; ".join(read_label_file(down).about.notes)
    motion: dict[str, Any] = {
        "poses": np.zeros((9, 72)),
        "betas": np.zeros(10),
        "trans": np.linspace([0, 0, 0], [900, 0, 0], 9),
    }
    np.savez(tmp_path / "a.npz", **motion, mocap_framerate=120.0)
    assert "warning: 'trans': people move at 13500 m/s" in "; ".join(
        read_label_file(tmp_path / "a.npz").about.notes
    )


def test_tensors_of_any_kind(tmp_path: Path) -> None:
    """Parameters, tensors that need gradients, half numbers and those of a GPU are read; others name their key."""
    person = person_of(tmp_path)
    expected = read_label_file(tracks.wham(tmp_path)).pose[:FRAMES]
    pose = torch.tensor(person["pose_world"])
    for value in (
        torch.nn.Parameter(pose),
        pose.clone().requires_grad_(),
        pose.T.contiguous().T,
        pose.bfloat16(),
    ):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps({0: person | {"pose_world": value}}))
        np.testing.assert_allclose(read_label_file(tmp_path / "w.pkl").pose, expected, atol=2e-2)
    with pytest.MonkeyPatch.context() as patch:  # as a storage of a GPU says where it was
        patch.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")
        content = pickle.dumps({0: person | {"pose_world": pose}})
    assert b"cuda:0" in content
    (tmp_path / "w.pkl").write_bytes(content)
    np.testing.assert_allclose(read_label_file(tmp_path / "w.pkl").pose, expected, atol=1e-6)
    for odd in (torch.zeros(5, 3, device="meta"), torch.zeros(5, 3).to_sparse()):
        path = changed(tracks.gvhmr, tmp_path, put("smpl_params_global", "transl", value=odd))
        with pytest.raises(
            LabelError, match="'smpl_params_global.transl': expected numbers .*, found a damaged array"
        ):
            read_label_file(path)


def test_objects_beside_the_numbers_do_nothing(tmp_path: Path) -> None:
    """Whatever a file holds under keys that are not read; under one that is read, the message names the object."""
    person, trap = person_of(tmp_path), Trap(tmp_path / "ran")
    others = {
        "video": Path("walk.mp4"),
        "device": torch.device("cpu"),
        "when": datetime(2026, 1, 1),
        "trap": trap,
    }
    for compress in (0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)):
        joblib.dump({0: person | others}, tmp_path / "w.pkl", compress=compress)
        assert len(read_label_file(tmp_path / "w.pkl")) == FRAMES
    joblib.dump({0: person | {"pose_world": trap}}, tmp_path / "w.pkl")
    with pytest.raises(
        LabelError, match=r"'0.pose_world': expected rotations .* found .*it names the global '.*open'"
    ):
        read_label_file(tmp_path / "w.pkl")
    joblib.dump({0: trap, 1: trap}, tmp_path / "w.pkl")
    with pytest.raises(LabelError, match="expected the keys of labels .* found .*it names the global"):
        read_label_file(tmp_path / "w.pkl")
    path = tracks.gvhmr(tmp_path)
    content = torch.load(path, weights_only=True)
    world = {
        key: value.numpy() for key, value in content["smpl_params_global"].items()
    }  # arrays in a torch file
    expected = read_label_file(path).pose
    torch.save(content | {"smpl_params_global": world, "trap": trap, "count": np.float64(3)}, path)
    np.testing.assert_array_equal(read_label_file(path).pose, expected)
    torch.save(content | {"smpl_params_global": world | {"transl": trap}}, path)
    with pytest.raises(LabelError, match="'smpl_params_global.transl': expected numbers .* torch.load"):
        read_label_file(path)
    assert not (tmp_path / "ran").exists()
