"""What docs/labels.md says of files, claim by claim: its own words, and a file that shows whether they hold."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from camerahmr_file import camerahmr_arrays as camerahmr
from click.testing import CliRunner
from job_fakes import FakeFitter
from label_files import LAYOUTS, N, amass, fourdhumans, hmr2, mesh, people, spin, write
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from track_files import TRACK_FILES, bedlam

from skelfit.cli import main
from skelfit.errors import LabelError
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.readers.label_folder import list_label_files
from skelfit.labels.readers.registry import READERS, detect_layout, read_label_file
from skelfit.labels.readers.track_layouts import TRACK_LAYOUTS, TrackLayout
from skelfit.shards.shard_reader import read_json

DOCS = " ".join((Path(__file__).parents[2] / "docs" / "labels.md").read_text().split())
MAKERS = LAYOUTS | {"camerahmr": lambda: camerahmr(N)}
CLAIMS: dict[str, Callable[[Path], None]] = {}
Columns = dict[str, Any]


def claim(words: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Tie a check to the words of the docs; it gets an empty folder."""

    def tie(check: Callable[[Path], None]) -> Callable[[Path], None]:
        assert words not in CLAIMS
        CLAIMS[words] = check
        return check

    return tie


def good(folder: Path, columns: Columns, source: str | None = None, name: str = "x.npz") -> LabelBatch:
    """The rows of a file, none of which is bad."""
    batch = read_label_file(write(folder / name, columns), source)  # type: ignore[arg-type]
    assert batch.bad == [""] * len(batch) and len(batch) > 0
    return batch


def fault(folder: Path, columns: Columns, source: str) -> LabelError:
    """The one error of a file."""
    with pytest.raises(LabelError) as caught:
        read_label_file(write(folder / "bad.npz", columns), source)  # type: ignore[arg-type]
    return caught.value


def without(columns: Columns, *keys: str) -> Columns:
    return {k: v for k, v in columns.items() if k not in keys}


def needs(folder: Path, source: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Each required key is missed by name; without all the optional ones the file is good."""
    columns = MAKERS[source]()
    good(folder, {k: columns[k] for k in required}, source)
    for key in required:
        assert fault(folder, without({k: columns[k] for k in required}, key), source).key == key
    assert set(columns) <= {*required, *optional}, "a key that is neither"


# What a file is.


@claim(
    "The first bytes of a file tell its kind: npz, npy, HDF5, or a pickle, which is read without being executed."
)
def _(folder: Path) -> None:
    for ending in (".npz", ".h5", ".pkl"):
        path = write(folder / f"x{ending}", without(hmr2(), "extra_info"))
        same = path.rename(folder / f"{ending[1:]}.txt")
        assert len(read_label_file(same)) == N
    assert len(read_label_file(write(folder / "x.npy", mesh()).rename(folder / "npy.npz"))) == N


@claim("The keys of a file tell its layout.")
def _(folder: Path) -> None:
    for source, make in MAKERS.items():
        assert detect_layout(write(folder / "x.npz", make()))[0] == source
    for source, write_file in TRACK_FILES.items():
        path = write_file(folder)
        assert detect_layout(path / "000000.json" if path.is_dir() else path)[0] == source
    assert detect_layout(bedlam(folder))[0] == "bedlam"
    assert MAKERS.keys() | TRACK_FILES.keys() | {"bedlam"} == READERS.keys()


@claim("If several layouts fit, it stops and asks for `--source`.")
def _(folder: Path) -> None:
    both = hmr2() | {"scale": people()["side"], "center": people()["center"]}
    with pytest.raises(LabelError, match="say which with --source 4dhumans or hmr2"):
        read_label_file(write(folder / "x.npz", both))
    good(folder, both, "hmr2")


@claim("`imgname`, `center`, `scale`, `pose`, `shape`; no `trans_cam`")
def _(folder: Path) -> None:
    more = {"trans_cam": np.tile([0, 0, 5.0], (N, 1)), "cam_int": camerahmr(N)["cam_int"]}
    assert detect_layout(write(folder / "x.npz", spin() | more))[0] == "camerahmr"


@claim("`global_orient`, `body_pose`, `betas`; no `has_*`")
def _(folder: Path) -> None:
    path = write(folder / "x.npz", hmr2() | {"has_betas": np.ones(N)})
    with pytest.raises(LabelError, match="also has"):
        detect_layout(path)


def vertices_of(batch: LabelBatch) -> NDArray[np.float32]:
    """The meshes of a batch that has some."""
    assert batch.vertices is not None
    return batch.vertices


@claim("`vertices`, `verts` or `pred_vertices` without betas; or an .npy, .obj, .ply or .glb")
def _(folder: Path) -> None:
    for key in ("vertices", "verts", "pred_vertices"):
        batch = good(folder, {key: mesh()["vertices"]})
        np.testing.assert_allclose(vertices_of(batch), mesh()["vertices"])
    np.testing.assert_allclose(vertices_of(good(folder, mesh(), name="x.npy")), mesh()["vertices"])


# Keys and units.


@claim("Numbers may be of any real type.")
def _(folder: Path) -> None:
    whole = np.arange(10) - np.arange(N)[:, None]
    for dtype in ("i1", "<i2", ">i4", "i8", "<f2", ">f4", ">f8", np.longdouble):
        for source, key in (
            ("camerahmr", "shape"),
            ("4dhumans", "betas"),
            ("spin", "shape"),
            ("hmr2", "betas"),
        ):
            batch = good(folder, MAKERS[source]() | {key: whole.astype(dtype)}, source)
            np.testing.assert_array_equal(batch.betas, whole)
    batch = good(folder, fourdhumans() | {"has_betas": np.ones(N, bool), "betas": np.abs(whole).astype("u2")})
    np.testing.assert_array_equal(batch.betas, np.abs(whole))


@claim(
    "Arrays of Python objects are refused, because loading them executes code from the file. "
    "Keys that are not in the table may hold anything."
)
def _(folder: Path) -> None:
    objects = np.array([{"a": 1}] * N, dtype=object)
    for source, make in MAKERS.items():
        reader, columns = READERS[source], make()  # type: ignore[index]
        good(folder, columns | {"of_no_use": objects}, source)
        for key in reader.required_keys:
            asked = next(k for k in key if k in columns)
            assert "object array" in fault(folder, columns | {asked: objects}, source).found


@claim(
    "The last part of a nested name counts: `pred_smpl_params.betas` is `betas`. "
    "If two names end alike, both keep their whole names."
)
def _(folder: Path) -> None:
    keys = ("global_orient", "body_pose", "betas")
    columns = {k: hmr2()[k] for k in keys}
    for joint in (".", "/"):
        nested = {f"pred_smpl_params{joint}{k}": v for k, v in columns.items()}
        np.testing.assert_allclose(good(folder, nested).betas, columns["betas"])
    with h5py.File(folder / "x.h5", "w") as file:
        for key, value in columns.items():
            file[f"a/b/{key}"] = value
    (folder / "x.pkl").write_bytes(pickle.dumps({"a": {"b": columns}}))
    for name in ("x.h5", "x.pkl"):
        np.testing.assert_allclose(read_label_file(folder / name).betas, columns["betas"])
    twice = {f"{above}.{k}": v for above in ("pred", "true") for k, v in columns.items()}
    assert "pred.betas" in fault(folder, twice, "hmr2").found


@claim("A pickle may also be a list of one dictionary per person.")
def _(folder: Path) -> None:
    persons = [{k: hmr2()[k][i] for k in ("global_orient", "body_pose", "betas")} for i in range(N)]
    (folder / "x.pkl").write_bytes(pickle.dumps(persons))
    np.testing.assert_allclose(read_label_file(folder / "x.pkl").betas, hmr2()["betas"])


@claim("A layout needs every key that is not marked optional, and ignores other keys.")
def _(folder: Path) -> None:
    required = {
        "camerahmr": ("imgname", "pose_cam", "shape", "trans_cam", "center", "scale", "cam_int"),
        "4dhumans": ("imgname", "body_pose", "betas", "center", "scale"),
        "spin": ("imgname", "pose", "shape", "center", "scale"),
        "amass": ("poses", "betas", "trans"),
        "hmr2": ("global_orient", "body_pose", "betas"),
        "mesh": ("vertices",),
    }
    for source, keys in required.items():
        needs(folder, source, keys, tuple(MAKERS[source]()))
        assert all(f"`{key}`" in DOCS for key in MAKERS[source]() if key not in PASSED_OVER), source
        good(folder, MAKERS[source]() | {"anything": np.zeros(3)}, source)


PASSED_OVER = {"personid", "extra_info", "dmpls", "body_keypoints_3d", "extra_keypoints_3d"}


@claim("`pose_cam` or `pose` of 24 joints (or [52 or 55](#other-bodies)), `shape` (N,10+)")
def _(folder: Path) -> None:
    columns = camerahmr(N)
    pose = columns["pose_cam"].reshape(N, 24, 3)
    for form in (pose, pose.reshape(N, 72)):
        for key in ("pose_cam", "pose"):
            batch = good(folder, without(columns, "pose_cam") | {key: form})
            np.testing.assert_allclose(batch.pose, pose, rtol=1e-6)
    fingers = np.concatenate([pose[:, :22], np.ones((N, 30, 3))], axis=1)
    batch = good(folder, columns | {"pose_cam": fingers})
    np.testing.assert_allclose(batch.pose[:, :22], pose[:, :22], rtol=1e-6)
    assert not batch.pose[:, 22:].any()
    assert fault(folder, columns | {"shape": np.zeros((N, 9))}, "camerahmr").key == "shape"


@claim("`trans_cam` (N,3); `cam_ext` (N,4,4) or (N,3,4), optional | translation in m; the last column of "
       "`cam_ext` is "
       "added to it")  # fmt: skip
def _(folder: Path) -> None:
    columns, more = camerahmr(N), np.tile(np.eye(4), (N, 1, 1))
    more[:, :3, 3] = [0.5, -1, 2]
    for extrinsic in (more, more[:, :3]):
        batch = good(folder, columns | {"cam_ext": extrinsic})
        np.testing.assert_allclose(batch.transl, columns["trans_cam"] + [0.5, -1, 2], rtol=1e-5)
    np.testing.assert_allclose(good(folder, columns).transl, columns["trans_cam"], rtol=1e-6)


def scale_in_any_shape(folder: Path, source: str, key: str, in_px: bool) -> None:
    side = np.stack([people()["side"], 0.5 * people()["side"]], axis=1) / (1 if in_px else 200)
    for value, expected in ((side[:, 0], side[:, :1]), (side[:, :1], side[:, :1]), (side, side)):
        batch = good(folder, MAKERS[source]() | {key: value}, source)
        wanted = np.broadcast_to(expected, (N, 2)) / (200 if in_px else 1)
        np.testing.assert_allclose(batch.scale, wanted, rtol=1e-6)
    assert fault(folder, MAKERS[source]() | {key: np.ones((N, 3))}, source).key == key


@claim("`center` (N,2), `scale` (N), (N,1) or (N,2), `cam_int` (N,3,3) | px; `scale` in px/200, by value")
def _(folder: Path) -> None:
    scale_in_any_shape(folder, "camerahmr", "scale", in_px=False)
    scale_in_any_shape(folder, "camerahmr", "scale", in_px=True)


@claim("`betas` (N,10+), `center` (N,2), `scale` (N), (N,1) or (N,2) | px; `scale` in px, by value")
def _(folder: Path) -> None:
    scale_in_any_shape(folder, "4dhumans", "scale", in_px=True)
    scale_in_any_shape(folder, "4dhumans", "scale", in_px=False)


@claim("`center` (N,2), `scale` (N), (N,1) or (N,2) | px; `scale` in px/200, by value")
def _(folder: Path) -> None:
    scale_in_any_shape(folder, "spin", "scale", in_px=False)
    scale_in_any_shape(folder, "spin", "scale", in_px=True)


@claim("`gtkps` (N,44+,3), `keypoints3d` (N,44+,3 or 4), both optional | px and confidence; m (and "
       "confidence); the first "
       "44")  # fmt: skip
def _(folder: Path) -> None:
    columns, rng = camerahmr(N), np.random.default_rng(0)
    bare = without(columns, "gtkps")
    batch = good(folder, bare)
    assert not batch.gtkps.any() and not batch.keypoints3d.any()
    np.testing.assert_allclose(batch.scale[:, 0], columns["scale"], rtol=1e-6)
    points = rng.uniform(0.1, 1, (N, 60, 4))
    batch = good(folder, bare | {"gtkps": points[..., [0, 1, 3]] * [200, 200, 1], "keypoints3d": points})
    np.testing.assert_allclose(batch.gtkps, (points[:, :44, [0, 1, 3]] * [200, 200, 1]), rtol=1e-6)
    np.testing.assert_allclose(batch.keypoints3d, points[:, :44], rtol=1e-6)
    batch = good(folder, bare | {"keypoints3d": points[..., :3]})
    np.testing.assert_allclose(batch.keypoints3d[..., :3], points[:, :44, :3], rtol=1e-6)
    assert (batch.keypoints3d[..., 3] == 1).all()


@claim("`body_pose` of 24 joints (or 52 or 55), or `global_orient` and 23 (or 21)")
def _(folder: Path) -> None:
    pose = people()["pose"]
    for joints in (23, 21):
        parts = {"global_orient": pose[:, :1], "body_pose": pose[:, 1 : joints + 1]}
        batch = good(folder, fourdhumans() | parts)
        np.testing.assert_allclose(batch.pose[:, : joints + 1], pose[:, : joints + 1], atol=1e-6)
        assert not batch.pose[:, joints + 1 :].any()


@claim("`has_body_pose`, `has_betas` (N), optional | 0: the row holds no label")
def _(folder: Path) -> None:
    flags = np.array([1, 0, 1, 1, 1, 1])
    for key in ("has_body_pose", "has_betas"):
        for value in (flags, flags[:, None], flags.astype(bool)):
            batch = read_label_file(write(folder / "x.npz", fourdhumans() | {key: value}))
            assert [bad for bad in batch.bad if bad] == [f"no_label: {key} is 0"] and batch.bad[1]
    good(folder, without(fourdhumans(), "has_body_pose", "has_betas"), "4dhumans")


def keypoints_of(folder: Path, source: str, keys: tuple[str, str, str, str]) -> None:
    """25 and 19 keypoints, in 2D and 3D, with and without more of them."""
    rng = np.random.default_rng(0)
    bare = without(MAKERS[source](), *keys)
    batch = good(folder, bare, source)
    assert not batch.gtkps.any() and not batch.keypoints3d.any()
    counts = (25, 19, 25, 19)
    for more in (0, 5):
        for last in (3, 4):
            points = [rng.uniform(0.1, 1, (N, n + more, 4)) for n in counts]
            values = [p[..., [0, 1, 3]] * [200, 200, 1] for p in points[:2]] + [
                p[..., :last] for p in points[2:]
            ]
            batch = good(folder, bare | dict(zip(keys, values, strict=True)), source)
            flat, deep = np.hstack([values[0][:, :25], values[1][:, :19]]), np.hstack([p[:, :n] for p, n in zip(
                points[2:], (25, 19), strict=True)])  # fmt: skip
            np.testing.assert_allclose(batch.gtkps, flat, rtol=1e-6)
            np.testing.assert_allclose(batch.keypoints3d[..., :3], deep[..., :3], rtol=1e-6)
            confidence = deep[..., 3] if last == 4 else 1
            np.testing.assert_allclose(batch.keypoints3d[..., 3], confidence, rtol=1e-6)


@claim(
    "`body_keypoints_2d` (N,25+,3), `extra_keypoints_2d` (N,19+,3), and `..._3d` with 3 or 4 numbers, all optional"
)
def _(folder: Path) -> None:
    two = ("body_keypoints_2d", "extra_keypoints_2d")
    keypoints_of(folder, "4dhumans", (*two, "body_keypoints_3d", "extra_keypoints_3d"))


@claim("`openpose` (N,25+,3), `part` (N,19+,3), `openpose_3d` (N,25+,3 or 4), `S` (N,19+,3 or 4), all "
       "optional | px, m and "
       "confidence; of `part` and `S` the first 19")  # fmt: skip
def _(folder: Path) -> None:
    keypoints_of(folder, "spin", ("openpose", "part", "openpose_3d", "S"))


@claim("`pose` of 24 joints (or 52 or 55), `shape` (N,10+); `has_smpl` (N), optional")
def _(folder: Path) -> None:
    good(folder, without(spin(), "has_smpl"), "spin")
    batch = read_label_file(write(folder / "x.npz", spin() | {"has_smpl": np.array([1, 1, 0, 1, 1, 1])}))
    assert batch.bad[2] == "no_label: has_smpl is 0" and sum(map(bool, batch.bad)) == 1


@claim("`poses` (N,72), (N,156), (N,165) or (N,66), or (N,24,3) and so on")
def _(folder: Path) -> None:
    poses = np.random.default_rng(0).normal(0, 0.2, (N, 55, 3))
    for joints in (24, 52, 55, 22):
        for value in (poses[:, :joints], poses[:, :joints].reshape(N, -1)):
            batch = good(folder, amass() | {"poses": value})
            kept = 24 if joints == 24 else 22
            np.testing.assert_allclose(batch.pose[:, :kept], poses[:, :kept], rtol=1e-6)
            assert not batch.pose[:, kept:].any()


@claim("`betas` (10+) or (N,10+), `trans` (N,3) | betas, m")
def _(folder: Path) -> None:
    betas = np.random.default_rng(0).normal(size=(N, 16))
    for value in (betas[0], betas[0, :10], betas, betas[:, :10], betas[:1]):
        expected = np.broadcast_to(value[..., :10], (N, 10))
        np.testing.assert_allclose(good(folder, amass() | {"betas": value}).betas, expected, rtol=1e-6)


@claim("`gender`; `mocap_framerate`, `mocap_frame_rate` or `fps`; `subject` or `subject_id`; all optional, one for "
       "the file")  # fmt: skip
def _(folder: Path) -> None:
    bare = without(amass(), "gender", "mocap_framerate")
    batch = good(folder, bare)
    assert batch.gender == ["neutral"] * N and batch.sequences[0].frame_rate is None
    for key in ("mocap_framerate", "mocap_frame_rate", "fps"):
        assert good(folder, bare | {key: np.array(50)}).sequences[0].frame_rate == 50
    for key in ("subject", "subject_id"):
        assert good(folder, bare | {key: np.array("s9")}).sequences[0].subject == "s9"


@claim("`global_orient`, `body_pose` of 23 or 21 joints, `betas` (N,10+) | rotations in any form")
def _(folder: Path) -> None:
    pose = people()["pose"]
    for joints in (23, 21):
        batch = good(folder, hmr2() | {"global_orient": pose[:, 0], "body_pose": pose[:, 1 : joints + 1]})
        np.testing.assert_allclose(batch.pose[:, : joints + 1], pose[:, : joints + 1], atol=1e-6)


@claim("`box_center` or `center` (N,2), `box_size` or `scale` (N), (N,1) or (N,2)")
def _(folder: Path) -> None:
    scale_in_any_shape(folder, "hmr2", "box_size", in_px=True)
    bare = without(hmr2(), "box_center", "box_size")
    other = bare | {"center": people()["center"], "scale": people()["side"] / 200}
    batch = good(folder, other, "hmr2")
    np.testing.assert_allclose(batch.scale[:, 0], people()["side"] / 200, rtol=1e-6)
    np.testing.assert_allclose(batch.center, people()["center"], rtol=1e-6)


@claim("`scaled_focal_length` or `focal_length_full` (N), (N,1) or (N,2)")
def _(folder: Path) -> None:
    bare = without(hmr2(), "scaled_focal_length")
    for key in ("scaled_focal_length", "focal_length_full"):
        for value in (np.full(N, 900.0), np.full((N, 1), 900.0), np.tile([900.0, 950.0], (N, 1))):
            batch = good(folder, bare | {key: value})
            wanted = [900, value.ravel()[1] if value.shape == (N, 2) else 900]
            np.testing.assert_allclose(batch.cam_int[0, [0, 1], [0, 1]], wanted)
            np.testing.assert_allclose(batch.cam_int[0, :2, 2], [320, 240])


@claim("`hmr2`, `mesh` | `imgname`, `img_path` or `image` (N), optional")
def _(folder: Path) -> None:
    for source in ("hmr2", "mesh"):
        bare = without(MAKERS[source](), "imgname")
        assert good(folder, bare).imgname == [""] * N
        for key in ("imgname", "img_path", "image"):
            assert good(folder, bare | {key: people()["imgname"]}).imgname == people()["imgname"].tolist()


@claim(
    "Every layout may have `gender`, of the SMPL body: `neutral`, `male` or `female`, or its first letter, in upper "
    "or lower case. There is one value for each row (N), or one for the whole file (in `amass` always)."
)
def _(folder: Path) -> None:
    texts = ["m", "F", "n", "MALE", "Female", "neutral"]
    expected = ["male", "female", "neutral", "male", "female", "neutral"]
    for source in MAKERS:
        if source != "amass":
            for column in (np.array(texts), np.array(texts, "S")):
                assert good(folder, MAKERS[source]() | {"gender": column}, source).gender == expected
        for text, gender in zip(texts, expected, strict=True):
            for one in (np.array(text), np.array(text, "S")):
                assert good(folder, MAKERS[source]() | {"gender": one}, source).gender == [gender] * N
    columns = without(hmr2(), "imgname")
    (folder / "x.pkl").write_bytes(pickle.dumps(columns | {"gender": "male"}))
    assert read_label_file(folder / "x.pkl").gender == ["male"] * N
    assert (
        read_label_file(write(folder / "x.npz", hmr2() | {"gender": np.array("x")})).bad
        == ["bad_gender: 'x'"] * N
    )


# Found by value.


@claim(
    "The answers are printed in the terminal, and kept in the store and in the run's identity (`labels[].notes` of "
    "`summary.json` and of every done marker)."
)
def _(folder: Path) -> None:
    path = write(folder / "x.npz", spin() | {"pose": np.degrees(spin()["pose"])})
    result = CliRunner().invoke(
        main, ["convert", "--labels", str(path), "--out", str(folder / "o"), "--workers", "0"]
    )
    note = "'pose': axis-angles in degrees"
    assert result.exit_code == 0 and f"\n  {note}" in result.output
    for name in ("summary.json", "x-000000.done.json"):
        (file,) = read_json(folder / "o" / name)["identity"]["labels"]
        assert file["notes"][0].startswith(note)


@claim("by the largest angle of each row, and the median over the rows: up to 6.6 is rad, from 15 on degrees")
def _(folder: Path) -> None:
    def pose(largest: float) -> Columns:
        angles = np.zeros((N, 24, 3))
        angles[:, 3, 1] = [largest] * (N // 2 + 1) + [0.01] * (N // 2 - 1)
        return spin() | {"pose": angles.reshape(N, 72)}

    assert good(folder, pose(6.59)).pose.max() == np.float32(6.59)
    assert good(folder, pose(15.1)).pose.max() == np.float32(np.radians(15.1))
    for largest in (6.7, 14.9):
        assert "--angle-unit" in fault(folder, pose(largest), "spin").found


@claim("x1 x2 y1 y2 z1 z2 if only this order gives unit vectors")
def _(folder: Path) -> None:
    pose = people()["pose"]
    pairs = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix()[..., :2].reshape(N, 24, 6)
    batch = good(folder, fourdhumans() | {"body_pose": pairs})
    away = Rotation.from_rotvec(batch.pose.reshape(-1, 3)) * Rotation.from_rotvec(pose.reshape(-1, 3)).inv()
    assert away.magnitude().max() < 1e-5


@claim("if none extend over 4 px, up to 10 is px/200 and from 40 on px")
def _(folder: Path) -> None:
    blind = without(spin(), "openpose", "part")
    for value, expected in ((10.0, 10.0), (40.0, 0.2)):
        np.testing.assert_allclose(good(folder, blind | {"scale": np.full(N, value)}, "spin").scale, expected)
    for value in (10.5, 39.0):
        assert "--scale-unit" in fault(folder, blind | {"scale": np.full(N, value)}, "spin").found


@claim("people are 0.4 to 2.6 m long in every pose")
def _(folder: Path) -> None:
    vertices = mesh()["vertices"] / np.ptp(mesh()["vertices"][..., 1])
    for length in (0.5, 2.5):
        for factor in (1, 100, 1000):
            batch = good(folder, {"vertices": vertices * length * factor})
            np.testing.assert_allclose(vertices_of(batch), vertices * length, rtol=1e-5)
    for length in (0.3, 20.0):
        assert "--length-unit" in fault(folder, {"vertices": vertices * length}, "mesh").found


@claim("more than ten betas? | the first ten are used")
def _(folder: Path) -> None:
    betas = np.random.default_rng(0).normal(size=(N, 300))
    for source, key in (("camerahmr", "shape"), ("4dhumans", "betas"), ("spin", "shape"), ("hmr2", "betas")):
        batch = good(folder, MAKERS[source]() | {key: betas}, source)
        np.testing.assert_allclose(batch.betas, betas[:, :10], rtol=1e-6)
        assert f"'{key}': using 10 of 300 columns" in batch.about.notes


# Coordinates.


@claim("`center` and `scale` are 0 if there is no box, and confidences are 0 if there are no keypoints.")
def _(folder: Path) -> None:
    for columns in (amass(), mesh(), without(hmr2(), "box_center", "box_size")):
        batch = good(folder, columns)
        assert not batch.center.any() and not batch.scale.any() and not batch.gtkps.any()
        assert not batch.keypoints3d.any()


@claim("known, `cam_int` is all 0: `skelfit convert` invents no camera")
def _(folder: Path) -> None:
    for columns in (amass(), mesh(), fourdhumans(), spin(), without(hmr2(), "scaled_focal_length")):
        batch = good(folder, columns)
        assert not batch.cam_int.any() and not batch.about.has_camera


@claim(
    "A camera is `cam_int`, or `img_size` with `scaled_focal_length`. These are of the whole image. "
    "HMR2's `focal_length` belongs to the crop and is not used."
)
def _(folder: Path) -> None:
    crop = without(hmr2(), "scaled_focal_length") | {"focal_length": np.full((N, 2), 5000.0)}
    assert not good(folder, crop).cam_int.any()
    assert good(folder, without(hmr2(), "img_size")).about.coordinates == "crop_camera"
    given = camerahmr(N)["cam_int"]
    np.testing.assert_allclose(good(folder, hmr2() | {"cam_int": given}).cam_int, given)


# Sequences.


@claim(
    "every .npz, .h5, .hdf5 and .pkl file in it and below is a sequence, in the order of their names. Two "
    "kinds are skipped: `shape.npz` (a subject's betas) and names that begin with a dot."
)
def _(folder: Path) -> None:
    names = ["a/b/2.h5", "a/1.PKL", "b.hdf5", "a/shape.npz", ".hidden.npz", ".git/x.npz", "x.txt", "c.npz"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    paths = [path.relative_to(folder).as_posix() for path in list_label_files(folder)]
    assert paths == ["a/1.PKL", "a/b/2.h5", "b.hdf5", "c.npz"]


@claim("Hz; null where the file does not say")
def _(folder: Path) -> None:
    assert good(folder, without(amass(), "mocap_framerate")).sequences[0].frame_rate is None
    assert good(folder, amass()).sequences[0].frame_rate == 120


@pytest.mark.parametrize("spec", TRACK_LAYOUTS, ids=[spec.layout for spec in TRACK_LAYOUTS])
def test_the_table_of_tracks_names_layouts_keys_and_code(spec: TrackLayout) -> None:
    row = DOCS.split(f"| `{spec.layout}` |", 1)[1].split(" | | `", 1)[0].split(" |\n", 1)[0]
    taken = row.split(" | ")[1]
    assert spec.source.split(":", 1)[0] in row
    for view in spec.views.values():
        keys = {key for keys in (view.pose[:1], view.root, view.trans) for key in keys if key != "Th"}
        for part in (part for key in keys for part in key.split(".")):
            assert f"`{part}`" in taken, part


@pytest.mark.parametrize("words", CLAIMS, ids=[words[:60] for words in CLAIMS])
def test_what_the_docs_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setattr("skelfit.api.convert_dataset.make_fitter", lambda *_: FakeFitter(stages=3))
    assert words in DOCS, "the docs say something else now"
    CLAIMS[words](tmp_path)
