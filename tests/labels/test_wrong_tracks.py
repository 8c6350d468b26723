"""Wrong files of tracks: one message each, which names the file, the key, what was expected and what was found."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
import track_files as tracks
from track_files import FRAMES, TRACK_FILES

from skelfit.config.manifest import LabelSource, ReadOptions
from skelfit.errors import LabelError
from skelfit.labels.label_store import build_store
from skelfit.labels.read_settings import OptionError, ReadSettings
from skelfit.labels.readers.registry import read_label_file


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


WRONG: list[tuple[str, Any, str | None, str, str]] = [
    # layout, change, key of the message, expected, found
    ("gvhmr", put("smpl_params_global", "body_pose", value=torch.zeros(5, 60)), "smpl_params_global.body_pose",
     "numbers of shape (N, 69)", "shape (5, 60)"),
    ("gvhmr", put("K_fullimg", value=torch.zeros(4, 3, 3)), "cam_int", "an intrinsic matrix (3, 3)", "shape (4, 3, 3)"),
    ("gvhmr", put("smpl_params_global", "transl", value=torch.zeros(4, 3)), "smpl_params_global.transl",
     "5 rows, as many as 'smpl_params_global.global_orient' has", "4 rows"),
    ("wham", put(1, "trans_world", value=None), "1.trans_world", "numbers of shape (N, 3)", "no such key"),
    ("wham", put(0, "betas", value=np.zeros((4, 10))), "0.betas", "1 or 5 rows", "4 rows"),
    ("wham", put(1, "frame_ids", value=np.array([3, 3, 4, 5, 6])), "1.frame_ids", "numbers of frames in ascending",
     "others"),
    ("tram", put("pred_trans", value=torch.zeros(5, 2, 3)), "pred_trans", "numbers of shape (N, 3) or (N, 1, 3)",
     "shape (5, 2, 3)"),
    ("tram", put("pred_shape", value=torch.zeros(5, 8)), "pred_shape", "10 or more numbers", "dtype float32"),
    ("prompthmr", put("people", 1, "smplx_world", "trans", value=np.zeros((5, 2))), "1.smplx_world.trans",
     "numbers of shape (N, 3) or (N, 1, 3)", "shape (5, 2)"),
    ("slahmr", put("pose_body", value=np.zeros((1, 5, 60))), "0.pose_body", "numbers of shape (N, 69)",
     "shape (5, 60)"),
    ("vibe", put(1, "pose", value=np.zeros((5, 71))), "1.pose", "numbers of shape (N, 72)", "shape (5, 71)"),
    ("vibe", put(1, "bboxes", value=np.zeros((5, 3))), "1.box", "numbers of shape (N, 4) or (N, 5)", "shape (5, 3)"),
    ("romp", put("sequence_results", value={7: {"smpl_thetas": [np.zeros(60)], "smpl_betas": [np.zeros(10)]}}),
     "7.smpl_thetas", "numbers of shape (N, 72)", "shape (1, 60)"),
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
