"""Label files of evaluations: rows that do not count, rows that cannot be used, and files that are refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_people import MadePeople, made_people, write_camerahmr, write_hmr2, write_moyo

from skelfit.errors import LabelError
from skelfit.protocols.protocol_table import PROTOCOLS
from skelfit.protocols.published_labels import read_labels, rows_outside

COUNT = 4


@pytest.fixture(scope="module")
def people() -> MadePeople:
    return made_people(COUNT)


def test_units_and_genders_as_published(tmp_path: Path, people: MadePeople) -> None:
    """Boxes are px/200 in CameraHMR's files and px in the others; what is not male is female there."""
    scale = np.stack([people.size[:, 0], people.size[:, 1]], 1) / 200
    made = write_camerahmr(
        tmp_path / "a.npz", people, scale=scale, gender=np.array(["m", "male", "f", "neutral"])
    )
    labels = read_labels(made, PROTOCOLS["emdb"])
    np.testing.assert_allclose(labels.size, people.size)
    assert labels.gender == ("male", "male", "female", "female")
    without = read_labels(write_camerahmr(tmp_path / "b.npz", people, gender=None), PROTOCOLS["spec"])
    assert set(without.gender) == {"neutral"}
    np.testing.assert_allclose(without.size, np.repeat(people.size.max(1), 2).reshape(-1, 2))
    moyo = read_labels(write_moyo(tmp_path / "c.npz", people), PROTOCOLS["moyo"])
    np.testing.assert_allclose(moyo.size, people.size)
    assert moyo.pose is not None and np.allclose(moyo.pose, people.pose)
    assert set(moyo.gender) == {"neutral"}
    nothing = np.zeros((COUNT, 44, 3))
    flat = read_labels(write_hmr2(tmp_path / "d.npz", people, nothing, nothing), PROTOCOLS["lsp"])
    np.testing.assert_allclose(flat.size, people.size)
    assert flat.imgname == tuple(people.imgname)  # bytes in the file


def test_moyo_hard_takes_camera_1_and_the_middle_half(tmp_path: Path) -> None:
    """Of each sequence by itself, in the order of frames and not of rows."""
    frames = (
        [("a", 1, k) for k in range(10)]
        + [("b", 1, k) for k in (9, 10, 11, 100)]
        + [("a", 2, k) for k in range(4)]
    )
    order = np.random.default_rng(0).permutation(len(frames))
    people = made_people(len(frames))
    names = np.array([f"220923_{s}" for s, _, _ in frames])[order]
    paths = np.array(
        [f"220923_{s}/YOGI_Cam_{c:02d}/220923_{s}_YOGI_Cam_{c:02d}_{k}.jpg" for s, c, k in frames]
    )[order]
    made = write_moyo(tmp_path / "moyo.npz", people, names=names, img_paths=paths)
    protocol = PROTOCOLS["moyo-hard"]
    outside = rows_outside(read_labels(made, protocol), protocol, made)
    kept = sorted(paths[i].split("/")[-1] for i, reason in enumerate(outside) if not reason)
    expected = [f"220923_a_YOGI_Cam_01_{k}.jpg" for k in range(2, 7)] + [
        f"220923_b_YOGI_Cam_01_{k}.jpg" for k in (10, 11)
    ]
    assert kept == sorted(expected)
    assert {reason for reason in outside if reason} == {
        "another camera than camera 1",
        "outside of the middle half of its sequence",
    }
    plain = write_moyo(tmp_path / "plain.npz", people)
    with pytest.raises(LabelError, match="YOGI_Cam_01"):
        rows_outside(read_labels(plain, protocol), protocol, plain)
    everything = PROTOCOLS["moyo"]
    assert set(rows_outside(read_labels(plain, everything), everything, plain)) == {""}


def test_rows_that_cannot_be_used(tmp_path: Path, people: MadePeople) -> None:
    pose, center = people.pose.reshape(COUNT, 72).copy(), people.center.copy()
    pose[0, 5], center[1, 0] = np.nan, np.inf
    scale = people.size.max(1) / 200
    scale[2] = 0
    names = np.array([*people.imgname[:3], ""])
    made = write_camerahmr(
        tmp_path / "a.npz", people, pose_cam=pose, center=center, scale=scale, imgname=names
    )
    faults = read_labels(made, PROTOCOLS["camerahmr-3dpw"]).faults
    assert faults == ("non_finite:pose_cam", "non_finite:center", "box_too_small: 0 px", "empty_imgname")


class Dangerous:
    """Would write a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.write_text, (Path("danger"), "danger"))


@pytest.mark.parametrize(
    ("protocol", "changed", "message"),
    [
        (
            "emdb",
            {"pose_cam": None},
            "'pose_cam': expected numbers of shape .* no such key; the file has cam_int",
        ),
        (
            "emdb",
            {"shape": np.zeros((3, 10))},
            "'shape': expected 4 rows, as many as 'imgname' has, found 3 rows",
        ),
        ("emdb", {"center": np.zeros((4, 3))}, r"'center': expected numbers of shape \(N, 2\), found shape"),
        ("emdb", {"imgname": np.array([], str)}, "expected 0 rows, as many as 'imgname' has, found 4 rows"),
        (
            "moyo",
            {"smpl": None},
            "'smpl': expected a dictionary of global_orient, body_pose and betas, found no such",
        ),
        (
            "moyo",
            {"smpl": {"betas": np.zeros((4, 10))}},
            "'smpl.global_orient': expected .* found no such key; the file has betas",
        ),
        (
            "moyo",
            {"smpl": {"global_orient": np.zeros((4, 4))}},
            "'smpl.global_orient': expected numbers of shape .* found shape",
        ),
        (
            "moyo",
            {
                "smpl": {
                    "global_orient": np.zeros((3, 3)),
                    "body_pose": np.zeros((3, 69)),
                    "betas": np.zeros((3, 10)),
                }
            },
            "'smpl': expected 4 rows, as many as 'img_paths' has, found 3 rows",
        ),
        ("moyo", {"smpl": np.zeros(3)}, "'smpl': expected a dictionary .* found an array of numbers"),
        ("moyo", {"smpl": np.array(Dangerous(), object)}, "found an object array"),
        (
            "lsp",
            {"body_keypoints_2d": None, "extra_keypoints_2d": None},
            "'extra_keypoints_2d': expected numbers",
        ),
        (
            "hmr2-3dpw",
            {"extra_keypoints_3d": np.zeros((4, 19, 3))},
            "'extra_keypoints_3d': expected numbers of shape",
        ),
    ],
)
def test_files_that_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    people: MadePeople,
    protocol: str,
    changed: dict[str, Any],
    message: str,
) -> None:
    """One message names the file, the key, what was expected and what was found. Nothing of a file is run."""
    monkeypatch.chdir(tmp_path)
    path, nothing = tmp_path / "labels.npz", np.zeros((COUNT, 44, 3))
    layout = PROTOCOLS[protocol].layout
    if layout == "camerahmr":
        write_camerahmr(path, people, **changed)
    elif layout == "moyo":
        write_moyo(path, people, **changed)
    else:
        write_hmr2(path, people, nothing, nothing, **changed)
    with pytest.raises(LabelError, match=message) as raised:
        read_labels(path, PROTOCOLS[protocol])
    assert str(raised.value).startswith(str(path)) and not Path("danger").exists()


def test_files_of_other_kinds(tmp_path: Path) -> None:
    other = tmp_path / "labels.pkl"
    other.write_bytes(pickle.dumps({"names": np.array(["a"]), "img_paths": np.array(["a"])}, protocol=4))
    with pytest.raises(LabelError, match="'smpl': expected a dictionary .* found no such key"):
        read_labels(other, PROTOCOLS["moyo"])
    with pytest.raises(LabelError, match="no such file"):
        read_labels(tmp_path / "none.npz", PROTOCOLS["emdb"])
