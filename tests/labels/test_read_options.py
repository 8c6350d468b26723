"""Options that settle how labels are read: used, or refused by name, for every option and every layout."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camerahmr_file import camerahmr_arrays as camerahmr
from click.testing import CliRunner, Result
from job_fakes import FakeFitter, write_images
from label_files import LAYOUTS, N, amass, fourdhumans, hmr2, mesh, people, spin, write
from scipy.spatial.transform import Rotation
from track_files import TRACK_FILES

from skelfit.cli import main
from skelfit.config.manifest import LabelLayout, LabelSource, ReadOptions
from skelfit.errors import LabelError
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.label_store import build_store
from skelfit.labels.read_settings import OPTIONS, OptionError, ReadSettings
from skelfit.labels.readers.registry import READERS, read_label_file
from skelfit.shards.label_vector import unpack
from skelfit.shards.shard_reader import read_samples

MAKERS = LAYOUTS | {"camerahmr": lambda: camerahmr(N)}
VALUES = {
    "coordinates": "camera",
    "vertex_map": "map.npz",
    "scale_unit": "px",
    "angle_unit": "deg",
    "rot6d": "columns",
    "length_unit": "cm",
    "labels_up": "y",
    "up": "y",
}
OTHER_VALUES = {
    "coordinates": "world",
    "vertex_map": "other.npz",
    "scale_unit": "px/200",
    "angle_unit": "rad",
    "rot6d": "rows",
    "length_unit": "m",
    "labels_up": "z",
    "up": "z",
}
# In which layouts the files of MAKERS raise the question that an option settles.
USED: dict[str, set[str]] = {
    "scale_unit": {"camerahmr", "4dhumans", "spin", "hmr2"},
    "angle_unit": {"camerahmr", "4dhumans", "spin", "amass"},  # those of hmr2 are matrices
    "rot6d": set(),
    "length_unit": {"mesh"},
    "coordinates": set(),  # of tracks alone
    "vertex_map": set(),  # of meshes of other bodies
    "labels_up": {"amass"},
    "up": {"amass"},
}
POSE = {
    "camerahmr": "pose_cam",
    "4dhumans": "body_pose",
    "spin": "pose",
    "amass": "poses",
    "hmr2": "body_pose",
}


def read_with(path: Path, **options: Any) -> LabelBatch:
    return read_label_file(path, None, ReadSettings(options=ReadOptions(**options)))


def posed(source: str, form: str) -> dict[str, Any]:
    """A file of a layout whose poses are of a form: rad, deg, or columns of a matrix."""
    pose = people()["pose"]
    if source == "amass":
        poses = amass()["poses"].reshape(N, -1, 3)
        pose = poses
    if form == "columns":
        matrices = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix()[..., :2]
        values = np.swapaxes(matrices, -1, -2).reshape(N, -1, 6)
    else:
        values = np.degrees(pose) if form == "deg" else pose
    if source == "hmr2":
        return hmr2() | {"global_orient": values[:, :1], "body_pose": values[:, 1:]}
    return MAKERS[source]() | {POSE[source]: values}


def expected_pose(source: str) -> np.ndarray:
    pose = people()["pose"]
    if source == "amass":
        pose = np.zeros((N, 24, 3))
        pose[:, :22] = amass()["poses"].reshape(N, -1, 3)[:, :22]
    return pose


def test_every_option_and_layout_is_here() -> None:
    assert (
        MAKERS.keys() | TRACK_FILES.keys() | {"bedlam"} == READERS.keys()
        and VALUES.keys() == USED.keys() == OPTIONS.keys()
    )
    assert set(ReadOptions.__dataclass_fields__) == OPTIONS.keys()


@pytest.mark.parametrize("option", VALUES)
@pytest.mark.parametrize("source", MAKERS)
def test_an_option_is_used_or_refused(tmp_path: Path, source: str, option: str) -> None:
    path = write(tmp_path / "x.npz", MAKERS[source]())
    if source in USED[option]:
        one, two = (
            read_label_file(path, source, ReadSettings(options=ReadOptions(**{option: value})))  # type: ignore[arg-type]
            for value in (VALUES[option], OTHER_VALUES[option])
        )
        numbers = any(
            not np.array_equal(getattr(one, name), getattr(two, name)) for name in one.field_shapes()
        )
        assert numbers != option.endswith("up")
        # What is up in the shards is the job's work (tests of `world_up`): a reader takes it, and no more.
        assert numbers or (one.about != two.about) == (option != "up")
        return
    with pytest.raises(OptionError) as caught:
        read_label_file(path, source, ReadSettings(options=ReadOptions(**{option: VALUES[option]})))  # type: ignore[arg-type]
    what, flag = OPTIONS[option]
    assert str(caught.value) == (
        f"{path}: expected {what}, for {flag} {VALUES[option]} (in a manifest: read.{option}), "
        f"found none in these {source} labels"
    )


@pytest.mark.parametrize("source", POSE)
@pytest.mark.parametrize("form", ["rad", "deg"])
def test_degrees_in_every_layout(tmp_path: Path, source: str, form: Any) -> None:
    """By value, and where the option says so."""
    path = write(tmp_path / "x.npz", posed(source, form))
    for options in ({}, {"angle_unit": form}):
        np.testing.assert_allclose(read_with(path, **options).pose, expected_pose(source), atol=1e-5)
    other = "deg" if form == "rad" else "rad"
    assert not np.allclose(read_with(path, angle_unit=other).pose, expected_pose(source), atol=1e-2)


@pytest.mark.parametrize("source", [s for s in POSE if s != "amass"])
def test_six_numbers_in_every_layout(tmp_path: Path, source: str) -> None:
    path = write(tmp_path / "x.npz", posed(source, "columns"))
    pose = read_with(path, rot6d="columns").pose.reshape(-1, 3)
    away = Rotation.from_rotvec(pose) * Rotation.from_rotvec(expected_pose(source).reshape(-1, 3)).inv()
    assert away.magnitude().max() < 1e-5
    with pytest.raises(LabelError, match="say which with --rot6d"):
        read_with(path)
    with pytest.raises(OptionError, match="expected axis-angles, for --angle-unit rad"):
        read_with(path, angle_unit="rad", rot6d="columns")


@pytest.mark.parametrize(("source", "key", "make"), [
    ("camerahmr", "scale", lambda: camerahmr(N) | {"scale": np.full(N, 1.25)}),
    ("4dhumans", "scale", fourdhumans), ("spin", "scale", spin), ("hmr2", "box_size", hmr2),
])  # fmt: skip
def test_boxes_in_every_layout(tmp_path: Path, source: LabelLayout, key: str, make: Any) -> None:
    side = np.full(N, 250.0)
    for unit, values in (("px", side), ("px/200", side / 200)):
        for shape in ((N,), (N, 1)):
            path = write(tmp_path / "x.npz", make() | {key: values.reshape(shape)})
            for options in ({}, {"scale_unit": unit}):
                batch = read_label_file(path, source, ReadSettings(options=ReadOptions(**options)))  # type: ignore[arg-type]
                np.testing.assert_allclose(batch.scale, 1.25, rtol=1e-6)


def test_keypoints_in_shares_of_an_image_tell_no_unit(tmp_path: Path) -> None:
    """Nor do those that are all in one place: then the size itself tells."""
    points = camerahmr(N)["gtkps"] / [200, 200, 1]
    for gtkps in (points, points * [0, 0, 1], 2 * points - [1, 1, 0.5]):
        batch = read_label_file(write(tmp_path / "x.npz", camerahmr(N) | {"gtkps": gtkps}))
        np.testing.assert_allclose(batch.scale[:, 0], camerahmr(N)["scale"], rtol=1e-6)


def test_a_folder_is_refused_once_not_file_by_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "motions" / f"{name}.npz", amass(3))
    (tmp_path / "motions" / "0.npz").write_bytes(b"cut")
    source = LabelSource("motions", read=ReadOptions(rot6d="rows"))
    with pytest.raises(OptionError, match=r"a\.npz: expected rotations as 6 numbers, for --rot6d rows"):
        build_store(source, tmp_path / "motions", tmp_path / "stores")


# By layout of tracks: the options of which its files raise the question.
OF_TRACKS = {
    "gvhmr": {"angle_unit", "coordinates", "labels_up", "up"},
    "wham": {"angle_unit", "coordinates", "labels_up", "up"},
    "tram": set(),
    "prompthmr": {"angle_unit", "coordinates", "labels_up", "up"},
    "slahmr": {"angle_unit", "coordinates"},
    "phalp": set(),
    "vibe": {"angle_unit"},
    "pare": {"angle_unit"},
    "romp": {"angle_unit"},
    "3dpw": {"angle_unit", "coordinates"},
    "aist": {"angle_unit", "labels_up", "up"},
    "easymocap": {"angle_unit", "labels_up", "up"},
}


@pytest.mark.parametrize("source", OF_TRACKS)
def test_options_of_tracks(tmp_path: Path, source: LabelLayout) -> None:
    path = TRACK_FILES[source](tmp_path)
    path = path / "000000.json" if path.is_dir() else path
    for option, value in VALUES.items():
        read = partial(read_with, path, **{option: value})
        if option in OF_TRACKS[source]:
            read()
            continue
        with pytest.raises(OptionError, match=f"for {OPTIONS[option][1]} {value}"):
            read()
    assert OF_TRACKS.keys() == TRACK_FILES.keys()


# The command line.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("skelfit.api.convert_dataset.make_fitter", lambda *_: FakeFitter(stages=3))
    write_images(Path("images"))
    return tmp_path


def convert(*arguments: object) -> Result:
    words = ["convert", *map(str, arguments), "--out", "out", "--workers", "0", "--overwrite"]
    result = CliRunner().invoke(main, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def refused(*arguments: object) -> str:
    result = convert(*arguments)
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return result.stderr.splitlines()[-1].removeprefix("Error: ")


def test_options_without_use_are_refused(folder: Path) -> None:
    """For each: a file that has a use for it, one that has none, and what is said."""
    bare = {k: v for k, v in hmr2().items() if k in ("global_orient", "body_pose", "betas")}
    write(Path("a.npz"), amass() | {"gender": np.array("male")})
    write(Path("c.npz"), camerahmr(N))
    write(Path("m.npz"), mesh() | {"imgname": people()["imgname"]})
    write(Path("n.npz"), bare | {"imgname": people()["imgname"]})
    crop = ("--images", "images", "--image-mode", "crop")
    cases: list[tuple[str, str, tuple[object, ...], str]] = [
        ("c", "a", ("--skel-gender", "female"), "a.npz: expected people of neutral gender, for --skel-gender female, "
         "found only male and female ones in these amass labels; drop --skel-gender female"),
        ("c", "a", ("--images", "images"), "a.npz: expected names of images, for --images, found none in these amass "
         "labels; drop --images"),
        ("c", "n", crop, "n.npz: expected boxes of people, for --image-mode crop, found none in these hmr2 labels; "
         "drop --image-mode crop"),
        ("c", "a", ("--filter", "few_keypoints"), "a.npz: expected 2D keypoints, for --filter few_keypoints, found "
         "none in these amass labels; drop --filter few_keypoints"),
        ("c", "a", ("--filter", "low_confidence=0.5"), "a.npz: expected 2D keypoints, for --filter low_confidence, "
         "found none in these amass labels; drop --filter low_confidence"),
        ("c", "m", ("--filter", "large_betas"), "m.npz: expected SMPL betas, for --filter large_betas, found none in "
         "these mesh labels; drop --filter large_betas"),
    ]  # fmt: skip
    for good, bad, options, said in cases:
        assert refused("--labels", f"{bad}.npz", *options) == said
        assert convert("--labels", f"{good}.npz", *options).exit_code == 0, options


def test_options_of_images_without_images(folder: Path) -> None:
    write(Path("c.npz"), camerahmr(N))
    plain = ("--labels", "c.npz")
    images = "neither --images nor a manifest's"
    head = "command line: expected"
    assert refused(*plain, "--image-mode", "crop") == f"{head} images, for --image-mode crop, found {images}"
    assert (
        refused(*plain, "--image-mode", "bytes") == f"{head} images, for --image-mode bytes, found {images}"
    )
    assert refused(*plain, "--images", "images", "--crop-size", 96, "--crop-margin", 2) == (
        f"{head} --image-mode crop (images.mode of the pipeline), for --crop-size and --crop-margin, "
        "found the mode bytes"
    )
    assert convert(*plain, "--image-mode", "none").exit_code == 0
    assert convert(*plain, "--images", "images", "--image-mode", "crop", "--crop-size", 96).exit_code == 0


def test_groups_of_filters_and_manifests_are_told_what_has_no_effect(folder: Path) -> None:
    """A group asks for none of its rules by name: what one cannot do is said, and the others are done."""
    write(Path("a.npz"), amass())
    said = convert("--labels", "a.npz", "--filter", "all").stdout
    assert "a.npz: no row has 2D keypoints, so the filter few_keypoints leaves none of them out" in said
    assert "a.npz: no row has 2D keypoints, so the filter low_confidence takes no keypoint away" in said
    assert "large_betas leaves" not in said


@pytest.mark.parametrize(("entry", "said"), [
    ("read: {rot6d: rows}", "data/a.npz: expected rotations as 6 numbers, for --rot6d rows (in a manifest: "
     "read.rot6d), found none in these amass labels"),
    ("path_rule: basename", "data/a.npz: expected names of images, for the manifest's path_rule, found none in these "
     "amass labels"),
    ("path_prefix: x/", "data/a.npz: expected names of images, for the manifest's path_prefix, found none in these "
     "amass labels"),
    ("expected_keys: [poses, nothing]", "data/a.npz: 'nothing': expected a key of this file (by the manifest)"),
])  # fmt: skip
def test_manifests_are_refused_alike(folder: Path, entry: str, said: str) -> None:
    write(Path("data/a.npz"), amass())
    Path("m.yaml").write_text(f"name: m\nlabels:\n  - path: a.npz\n    {entry}\n")
    assert refused("--manifest", "m.yaml").startswith(said)


def test_a_manifest_settles_units(folder: Path) -> None:
    write(Path("data/c.npz"), camerahmr(N) | {"scale": 200 * camerahmr(N)["scale"]})
    Path("m.yaml").write_text("name: m\nlabels:\n  - path: c.npz\n    read: {scale_unit: px}\n")
    for unit, factor in (("px", 1), ("px/200", 200)):
        Path("m.yaml").write_text(f"name: m\nlabels:\n  - path: c.npz\n    read: {{scale_unit: {unit}}}\n")
        assert convert("--manifest", "m.yaml").exit_code == 0
        labels = [label for _, label, _ in read_samples(Path("out/m-000000.tar"))]
        assert len(labels) >= N - 2
        rows = [meta["row"] for _, _, meta in read_samples(Path("out/m-000000.tar"))]
        scales = unpack(np.array(labels))["scale"][:, 0]
        np.testing.assert_allclose(scales, factor * camerahmr(N)["scale"][rows], rtol=1e-6)


def test_expected_keys_count_for_pickles_and_not_for_folders(folder: Path) -> None:
    path = write(folder / "x.pkl", amass())
    build_store(LabelSource("x.pkl", expected_keys=("poses",)), path, folder / "stores")
    with pytest.raises(LabelError, match="'nothing': expected a key of this file"):
        build_store(LabelSource("x.pkl", expected_keys=("nothing",)), path, folder / "stores")
    write(folder / "motions/a.npz", amass())
    with pytest.raises(
        LabelError, match="expected a label file, for the manifest's expected_keys, found a folder"
    ):
        build_store(LabelSource("motions", expected_keys=("poses",)), folder / "motions", folder / "stores")
