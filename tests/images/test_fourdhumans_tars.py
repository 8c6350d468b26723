"""The labels inside 4D-Humans' tars: collected without running a pickle, and what is said of bad ones."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from job_fakes import picture
from miniatures import Columns, Trap, fourdhumans, person, write_tars

from skelfit.cli import main
from skelfit.errors import LabelError
from skelfit.images.fourdhumans_tars import read_tar_labels
from skelfit.labels.readers.registry import read_label_file


@pytest.fixture
def columns() -> Columns:
    """Ten people in 4D-Humans' layout."""
    rng = np.random.default_rng(0)
    names = np.array([f"S1/video_0/frame_{i:06d}" for i in range(10)])
    shapes = {"center": (2,), "scale": (), "pose_cam": (72,), "shape": (10,), "gtkps": (44, 3)}
    numbers = {k: rng.uniform(0.1, 1, (10, *s)).astype(np.float32) for k, s in shapes.items()}
    numbers["gtkps"][:, :, :2] *= 200
    points = rng.normal(size=(10, 44, 4)).astype(np.float32)
    points[..., 3] = rng.uniform(0, 1, (10, 44))
    return fourdhumans({"imgname": names, "keypoints3d": points, **numbers})


def write(folder: Path, columns: Columns, pickles: list[bytes] | None = None) -> list[Path]:
    """Tars of four images each."""
    pickles = pickles or [pickle.dumps([person(columns, i)]) for i in range(10)]
    images = [(f"{name}.jpg", picture(i)) for i, name in enumerate(columns["imgname"])]
    write_tars(folder / "tars", images, pickles, per_tar=4)
    return sorted((folder / "tars").glob("*.tar"))


def test_the_labels_of_tars_are_those_of_the_layout(tmp_path: Path, columns: Columns) -> None:
    write(tmp_path, columns)
    arguments = ["tar-labels", str(tmp_path / "tars" / "*.tar"), "--out", str(tmp_path / "x" / "labels.npz")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and "10 people in 10 images of 3 tars" in result.stdout, result.output
    with np.load(tmp_path / "x" / "labels.npz") as archive:
        assert set(archive) == set(columns)
        for key in set(columns) - {"scale"}:
            np.testing.assert_array_equal(archive[key], columns[key])
        np.testing.assert_allclose(archive["scale"], np.stack([columns["scale"]] * 2, 1), rtol=1e-6)
    batch = read_label_file(tmp_path / "x" / "labels.npz")
    assert [bool(bad) for bad in batch.bad] == [i == 7 for i in range(10)]
    assert "exists already" in CliRunner().invoke(main, arguments).stderr
    assert CliRunner().invoke(main, [*arguments, "--overwrite"]).exit_code == 0
    missing = CliRunner().invoke(main, ["tar-labels", "none/*.tar", "--out", "x.npz"])
    assert missing.exit_code == 2 and "no such tar: none/*.tar" in missing.stderr


def test_several_people_and_none_in_an_image(tmp_path: Path, columns: Columns) -> None:
    one, two, three = (person(columns, i) for i in range(3))
    pickles = [pickle.dumps([]), pickle.dumps([one, two]), pickle.dumps([three])]
    arrays = read_tar_labels(write(tmp_path, columns, pickles))
    assert arrays["imgname"].tolist() == columns["imgname"][[1, 1, 2]].tolist()
    np.testing.assert_array_equal(arrays["betas"], columns["betas"][:3])


def test_a_pickle_is_not_run(tmp_path: Path, columns: Columns) -> None:
    tars = write(tmp_path, columns, [pickle.dumps([Trap(tmp_path / "unpickled")])])
    with pytest.raises(LabelError, match=r"frame_000000\.data\.pyd': expected .*open"):
        read_tar_labels(tars)
    assert not (tmp_path / "unpickled").exists()


def without(key: str) -> Any:
    return lambda someone: {k: v for k, v in someone.items() if k != key}


BAD = [
    (without("betas"), "[0].betas': expected numbers of shape (10,), found no such key; there is body_pose,"),
    (lambda p: p | {"center": np.zeros(3)}, "[0].center': expected numbers of shape (2,), found shape (3,)"),
    (
        lambda p: p | {"betas": np.array(["a"] * 10)},
        "[0].betas': expected numbers of shape (10,), found shape",
    ),
    (lambda p: p | {"betas": None}, "[0].betas': expected numbers of shape (10,), found a NoneType"),
    (lambda p: 3, "': expected a list with a dictionary for each person, found a list"),
]


@pytest.mark.parametrize(("change", "said"), BAD)
def test_bad_people(tmp_path: Path, columns: Columns, change: Any, said: str) -> None:
    tars = write(tmp_path, columns, [pickle.dumps([change(person(columns, 0))])])
    with pytest.raises(LabelError) as caught:
        read_tar_labels(tars)
    assert str(caught.value).startswith(f"{tars[0]}: 'S1/video_0/frame_000000.data.pyd")
    assert said in str(caught.value)


def test_bad_tars(tmp_path: Path, columns: Columns) -> None:
    whole = write(tmp_path, columns)
    data = whole[0].read_bytes()
    cut = tmp_path / "cut.tar"
    for size in (512, 2000, len(data) // 2):
        cut.write_bytes(data[:size])
        with pytest.raises(LabelError, match=r"cut\.tar: .*expected a whole"):
            read_tar_labels([whole[1], cut])
    with pytest.raises(LabelError, match="expected a tar that can be read, found No such file"):
        read_tar_labels([tmp_path / "none.tar"])
    (tmp_path / "more").mkdir()
    empty = write(tmp_path / "more", columns, [pickle.dumps([])])
    with pytest.raises(LabelError, match=r"expected members KEY\.data\.pyd"):
        read_tar_labels(empty)
