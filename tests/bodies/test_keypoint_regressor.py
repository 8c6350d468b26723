"""The 44 keypoints: regressor files that users bring, whole or the 19 extra joints, checked and written as an asset."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from skelfit.bodies.keypoint_regressor import import_keypoints
from skelfit.bodies.model_set import ModelSet, load_models, save_models
from skelfit.bodies.open_body import open_keypoint_regressor
from skelfit.errors import ModelError, OutputError

WHOLE = open_keypoint_regressor()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models: ModelSet) -> Path:
    """A models folder without a regressor."""
    path = tmp_path_factory.mktemp("models")
    save_models(ModelSet({"neutral": models.smpl["neutral"]}, {}, "open body", "", None), path)
    return path


def write(path: Path, content: Any) -> Path:
    """A regressor file of the kind that its ending says."""
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def imported(folder: Path) -> np.ndarray:
    regressor = load_models(folder).keypoints44
    assert regressor is not None
    return regressor


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("whole.npy", WHOLE),
        ("whole.npz", {"keypoints44": WHOLE, "other": np.zeros(3)}),
        ("alone.npz", {"J_regressor": WHOLE.astype(np.float64)}),
        ("whole.pkl", WHOLE),
        ("sparse.pkl", sparse.csc_matrix(WHOLE)),
    ],
)
def test_a_whole_regressor_is_taken_as_it_is(folder: Path, tmp_path: Path, name: str, content: Any) -> None:
    before = load_models(folder).sha256
    record = import_keypoints(write(tmp_path / name, content), folder, overwrite=True)
    np.testing.assert_array_equal(imported(folder), WHOLE)
    assert record.notes == () and load_models(folder).sha256 == import_sha(folder)
    if before:
        entries = json.loads((folder / "models.json").read_text())["models"]
        (entry,) = [e for e in entries if e["asset"] == "keypoints44.npz"]
        assert entry["source"] == name and entry["source_sha256"] == record.source_sha256


def import_sha(folder: Path) -> str:
    """The hash of a models folder, which its regressor is part of."""
    with_it = load_models(folder)
    (folder / "keypoints44.npz").rename(folder / "away")
    without = load_models(folder).sha256
    (folder / "away").rename(folder / "keypoints44.npz")
    assert without != with_it.sha256
    return with_it.sha256


@pytest.mark.parametrize("name", ["SMPL_to_J19.pkl", "J_regressor_extra.npy"])
def test_the_19_extra_joints_are_completed_by_smpl(
    folder: Path, tmp_path: Path, models: ModelSet, name: str
) -> None:
    record = import_keypoints(write(tmp_path / name, WHOLE[25:]), folder, overwrite=True)
    assert "19 extra joints" in record.notes[0]
    regressor, smpl = imported(folder), models.smpl["neutral"]
    np.testing.assert_array_equal(regressor[25:], WHOLE[25:])
    np.testing.assert_allclose(regressor.sum(1), 1, atol=1e-5)
    # OpenPose's order: the open body has keypoints of its own making, its neck and hips a few cm away from SMPL's.
    places, own = regressor @ smpl.v_template, WHOLE @ smpl.v_template
    assert np.linalg.norm(places - own, axis=1).max() < 0.06
    np.testing.assert_array_equal(regressor[0].nonzero()[0], [332])
    np.testing.assert_array_equal(regressor[8], smpl.J_regressor[0])


def changed(**entries: float) -> np.ndarray:
    array = WHOLE.copy()
    array[3] *= entries.get("scale", 1)
    array[7, 5] = entries.get("value", array[7, 5])
    return array


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("short.npy", WHOLE[:, :100], r"short.npy: expected numbers .*shape \(44, 6890\) or \(19, 6890\), found shape"),
        ("few.npy", WHOLE[:24], r"found shape \(24, 6890\)"),
        ("nan.npy", changed(value=np.nan), "expected finite numbers, found 1 NaN"),
        ("sums.npy", changed(scale=2), r"rows that sum to 1, found row 3 with the sum 2"),
        ("text.npy", np.array(["a"]), "found dtype <U1"),
        ("objects.npy", np.array([{}, {}], dtype=object), "expected a keypoint regressor that can be read"),
        ("two.npz", {"a": WHOLE, "b": WHOLE}, "'keypoints44': expected that array, or one array alone, found a, b"),
        ("what.mat", b"", "found the ending '.mat'"),
        ("call.pkl", print, "expected .*, found"),
    ],
)  # fmt: skip
def test_bad_files_are_one_message(folder: Path, tmp_path: Path, name: str, content: Any, said: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(ModelError, match=said):
        import_keypoints(path, folder, overwrite=True)


def test_what_is_missing_or_in_the_way(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        import_keypoints(tmp_path / "none.npy", tmp_path / "out")
    extra = write(tmp_path / "extra.npy", WHOLE[25:])
    with pytest.raises(ModelError, match="an SMPL asset in .*out"):
        import_keypoints(extra, tmp_path / "out")
    import_keypoints(extra, folder, overwrite=True)
    with pytest.raises(OutputError, match="exists already"):
        import_keypoints(extra, folder)
