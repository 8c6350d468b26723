"""`skelfit.fit` and `fit_mesh`: the bits of a conversion, any shape of arguments, one sentence for each fault."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from label_files import write
from scipy.spatial.transform import Rotation

from skelfit.api.fit_arrays import NumPyPeople, fit, fit_mesh, load_models
from skelfit.bodies.dofs import DOF_NAMES
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.smpl import SmplModel
from skelfit.cli import main
from skelfit.config.pipeline import Pipeline
from skelfit.config.pipeline_choice import chosen_pipeline
from skelfit.errors import ArgumentError, DeviceError, SkelfitError
from skelfit.labels.demo_people import sample_labels
from skelfit.shards.label_vector import unpack
from skelfit.shards.row_statistics import round_mm
from skelfit.shards.row_status import PUBLISHED
from skelfit.shards.shard_reader import read_rows, read_samples

ROOT = Path(__file__).parents[2]
PEOPLE, FRAMES = 24, 12
NAN_ROW, ABSURD_ROW = 3, 5
Labels = dict[str, Any]  # arrays by name


@pytest.fixture(scope="module")
def labels() -> Labels:
    """People of all genders before a camera; one with a number that is not finite, one with absurd betas."""
    pose, betas, pelvis = sample_labels(PEOPLE, 3, 0.3)
    pose, betas = pose.copy(), betas.copy()
    pose[NAN_ROW, 7, 1] = np.nan
    betas[ABSURD_ROW, 2] = 40
    gender = np.array(["neutral", "male", "female"] * (PEOPLE // 3))
    return {"pose": pose, "betas": betas, "transl": pelvis, "gender": gender}


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual pipeline with gates that some people do not pass, and small shards."""
    text = (ROOT / "pipelines" / "hmr-skel.yaml").read_text().replace("name: hmr-skel", "name: gated")
    gates = "gates:\n  max_pve_mm: 12.0\n  limit_deg: 6.0\n"
    path = tmp_path_factory.mktemp("pipeline") / "gated.yaml"
    path.write_text(text.replace("gates:\n", gates).replace("shard_size: 1000", "shard_size: 7"))
    return path


def converted(folder: Path, columns: dict[str, Any], *options: object) -> tuple[list[dict[str, Any]], Labels]:
    """The rows of a conversion of a label file, and the label vectors of its people by name, NaN where none is."""
    path = write(folder / "people.npz", columns)
    words = [
        "convert",
        "--labels",
        path,
        "--out",
        folder / "out",
        "--workers",
        "0",
        "--device",
        "cpu",
        *options,
    ]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    rows = [row for file in sorted((folder / "out").glob("*.rows.jsonl")) for row in read_rows(file)]
    samples = [sample for tar in sorted((folder / "out").glob("*.tar")) for sample in read_samples(tar)]
    parts = unpack(np.array([label for _, label, _ in samples]))
    places = [meta["row"] for _, _, meta in samples]
    whole = {}
    for name in ("skel_poses", "skel_betas", "skel_trans"):
        whole[name] = np.full((len(rows), parts[name].shape[1]), np.nan, np.float32)
        whole[name][places] = parts[name]
    return rows, whole


def assert_as_converted(people: NumPyPeople, rows: list[dict[str, Any]], stored: Labels) -> None:
    """The people of a call, flat, are those of a conversion: every status, and every bit of who was stored."""
    assert people.status.tolist() == [row["status"] for row in rows]
    assert [gender or None for gender in people.skel_gender.tolist()] == [row["skel_gender"] for row in rows]
    assert round_mm(people.pve_mm) == [row["pve_mm"] for row in rows]
    published = people.usable
    assert published.tolist() == [row["status"] in PUBLISHED for row in rows] and published.any()
    for name, value in (
        ("skel_poses", people.poses),
        ("skel_betas", people.betas),
        ("skel_trans", people.trans),
    ):
        assert value.dtype == np.float32 and value[published].tobytes() == stored[name][published].tobytes()


def fit_here(labels: Labels, **options: Any) -> NumPyPeople:
    """Arrays fitted on this processor."""
    people: Any = fit(**labels, **options, device="cpu")
    assert isinstance(people.poses, np.ndarray)
    return people


def camerahmr(labels: Labels) -> dict[str, Any]:
    """The same people as a label file of the CameraHMR release."""
    camera = np.array([[600, 0, 128], [0, 600, 128], [0, 0, 1]], np.float32)
    return {
        "imgname": np.array([f"{i}.jpg" for i in range(PEOPLE)]),
        "center": np.full((PEOPLE, 2), 128.0),
        "scale": np.full(PEOPLE, 1.0),
        "cam_int": np.tile(camera, (PEOPLE, 1, 1)),
        "pose_cam": labels["pose"].reshape(PEOPLE, 72),
        "shape": labels["betas"],
        "trans_cam": labels["transl"],
        "gender": labels["gender"],
    }


def test_a_fit_has_the_bits_of_a_conversion(tmp_path: Path, labels: Labels, gated: Path) -> None:
    rows, stored = converted(tmp_path, camerahmr(labels), "--pipeline", gated)
    people = fit_here(labels, pipeline=gated)
    assert_as_converted(people, rows, stored)
    # Statuses that differ, or the comparison says little.
    assert {"ok", "bad_input", "residual_above_gate", "limit_violation"} <= set(people.status.tolist())
    reasons = [row["reason"].replace("pose_cam", "pose") for row in rows]
    assert people.reason.tolist() == reasons
    assert np.isnan(people.poses[[NAN_ROW, ABSURD_ROW]]).all() and people.reason[NAN_ROW] == "non_finite:pose"


def test_frames_of_a_motion_have_the_bits_of_a_conversion(tmp_path: Path) -> None:
    start, stop = (Rotation.from_rotvec(x) for x in sample_labels(2, 5, 0.0)[0])
    step = (start.inv() * stop).as_rotvec()
    pose = np.stack(
        [(start * Rotation.from_rotvec(t * step)).as_rotvec() for t in np.linspace(0, 0.4, FRAMES)]
    )
    pose, betas = pose.astype(np.float32), np.linspace(-1, 1, 10).astype(np.float32)
    transl = np.linspace([0, 0, 0.9], [0.3, 0, 0.9], FRAMES).astype(np.float32)
    motion = {"poses": pose.reshape(FRAMES, 72), "betas": betas, "trans": transl}
    rows, stored = converted(tmp_path, motion | {"mocap_framerate": 25.0, "gender": np.array("neutral")})
    people = fit(pose, betas, transl, frames_per_second=25.0, device="cpu")
    assert_as_converted(people, rows, stored)
    assert (people.betas == people.betas[0]).all(), "one shape for a motion"
    alone = fit(pose, betas, transl, device="cpu")
    assert (alone.poses != people.poses).any(), "frames together are fitted otherwise than alone"
    two = fit(np.stack([pose, pose[::-1]]), betas, transl, frames_per_second=25.0, device="cpu")
    assert two.poses.shape == (2, FRAMES, 46) and two.poses[0].tobytes() == people.poses.tobytes()


def test_meshes_have_the_bits_of_a_conversion(tmp_path: Path, models: ModelSet) -> None:
    pose, betas, pelvis = (torch.tensor(x) for x in sample_labels(5, 0, 0.0))
    vertices = SmplModel(models.smpl_of("male")).vertices(pose, betas, pelvis).numpy()
    vertices[3, 17, 1] = np.inf
    rows, stored = converted(tmp_path, {"vertices": vertices, "gender": np.array(["male"] * 5)})
    people = fit_mesh(vertices, gender="male", device="cpu", models=models)
    assert_as_converted(people, rows, stored)
    assert (people.status[3], people.reason[3]) == ("bad_input", "non_finite:vertices")
    one = fit_mesh(torch.tensor(vertices[0]), gender="male", device="cpu", models=models)
    assert isinstance(one.poses, torch.Tensor) and one.poses.shape == (46,)
    assert one.poses.numpy().tobytes() == people.poses[0].tobytes()


@pytest.fixture(scope="module")
def few(labels: Labels) -> Labels:
    """Six people without a fault, as numbers that float32 holds."""
    return {name: values[6:12] for name, values in labels.items()}


@pytest.fixture(scope="module")
def fitted(few: Labels) -> NumPyPeople:
    return fit_here(few)


def test_leading_dimensions_are_kept(few: Labels, fitted: NumPyPeople) -> None:
    grid = {name: values.reshape(2, 3, *values.shape[1:]) for name, values in few.items()}
    grid["pose"] = grid["pose"].reshape(2, 3, 72)
    people = fit_here(grid)
    shapes = {name: value.shape for name, value in people.to_numpy().items()}
    plain = dict.fromkeys(("pve_mm", "max_vertex_mm", "status", "reason", "skel_gender"), (2, 3))
    assert shapes == {"poses": (2, 3, 46), "betas": (2, 3, 10), "trans": (2, 3, 3)} | plain
    assert people.poses.reshape(6, 46).tobytes() == fitted.poses.tobytes()
    one = fit(few["pose"][4], few["betas"][4], few["transl"][4], gender=str(few["gender"][4]), device="cpu")
    assert one.status.shape == () and one.poses.tobytes() == fitted.poses[4].tobytes()
    assert fit(np.zeros((0, 24, 3)), np.zeros(10), device="cpu").poses.shape == (0, 46)


def test_arguments_are_broadcast(few: Labels) -> None:
    pose, betas = few["pose"], few["betas"][0]
    one_shape = fit_here({"pose": pose, "betas": betas}, gender="m")
    many = {"pose": pose, "betas": np.tile(betas, (6, 1)), "transl": np.zeros((6, 3))}
    each = fit_here(many, gender=["male"] * 6)
    assert one_shape.poses.tobytes() == each.poses.tobytes()
    assert one_shape.trans.tobytes() == each.trans.tobytes()
    assert set(one_shape.skel_gender.tolist()) == {"male"}


def test_matrices_are_the_axis_angles_they_are(few: Labels, fitted: NumPyPeople) -> None:
    matrices = Rotation.from_rotvec(few["pose"].reshape(-1, 3)).as_matrix().reshape(6, 24, 3, 3)
    matrices[2, 9] *= 1.5
    people = fit_here(few | {"pose": matrices})
    good = [0, 1, 3, 4, 5]
    assert np.abs(people.poses[good] - fitted.poses[good]).max() < 2e-3
    assert people.status[2] == "bad_input" and people.reason[2].startswith("bad_rotation: pose, joint 9")


def test_tensors_in_are_tensors_out(few: Labels, fitted: NumPyPeople) -> None:
    tensors: dict[str, Any] = {k: torch.tensor(few[k]) for k in ("pose", "betas", "transl")}
    people = fit(
        tensors["pose"].double().requires_grad_(), tensors["betas"], few["transl"], gender=few["gender"]
    )
    assert isinstance(people.poses, torch.Tensor) and people.poses.dtype == torch.float32
    assert people.poses.numpy().tobytes() == fitted.poses.tobytes()
    assert isinstance(people.joints(), torch.Tensor) and isinstance(people.status, np.ndarray)
    assert isinstance(people.angle("knee_angle_l", degrees=True), torch.Tensor)
    assert isinstance(people.to_numpy()["poses"], np.ndarray)
    halves = fit(
        tensors["pose"].bfloat16(), tensors["betas"], tensors["transl"], gender=few["gender"].tolist()
    )
    assert (halves.status == "ok").all()


def test_more_betas_than_ten_are_said(few: Labels, fitted: NumPyPeople) -> None:
    more = np.concatenate([few["betas"], np.full((6, 6), 9.0)], axis=1)
    people = fit_here(few | {"betas": more})
    assert people.notes == ("'betas': using 10 of 16 columns",) and fitted.notes == ()
    assert people.poses.tobytes() == fitted.poses.tobytes()


def test_angles_by_name(fitted: NumPyPeople) -> None:
    column = DOF_NAMES.index("knee_angle_l")
    assert list(fitted.angles) == list(DOF_NAMES)
    np.testing.assert_array_equal(fitted.angles["knee_angle_l"], fitted.poses[:, column])
    np.testing.assert_array_equal(fitted.angle("knee_angle_l"), fitted.poses[:, column])
    np.testing.assert_allclose(
        fitted.angle("knee_angle_l", degrees=True), fitted.poses[:, column] * 180 / np.pi, rtol=1e-6
    )
    with pytest.raises(
        ArgumentError,
        match="name: expected a name of DOF_NAMES, such as .*knee_angle_l, .*found 'l_knee_angle'",
    ):
        fitted.angle("l_knee_angle")


def test_bodies_follow_from_the_parameters(few: Labels, fitted: NumPyPeople, models: ModelSet) -> None:
    vertices, joints, bones = fitted.vertices(), fitted.joints(), fitted.bones()
    assert vertices.shape == (6, 6890, 3) and joints.shape == (6, 24, 3) and bones.shape[::2] == (6, 3)
    for i, gender in enumerate(few["gender"]):
        smpl = SmplModel(models.smpl_of(str(gender)))
        target = smpl.vertices(*(torch.tensor(few[k][i]) for k in ("pose", "betas", "transl"))).numpy()
        distance = 1000 * np.linalg.norm(vertices[i] - target, axis=1)
        assert distance.mean() == pytest.approx(fitted.pve_mm[i], abs=0.02)
        assert distance.max() == pytest.approx(fitted.max_vertex_mm[i], abs=0.1)
    # Bones are inside the skin, joints among the bones.
    assert (bones.min(1) > vertices.min(1) - 0.01).all() and (bones.max(1) < vertices.max(1) + 0.01).all()
    assert (joints.min(1) > vertices.min(1)).all() and (joints.max(1) < vertices.max(1)).all()


def test_who_has_no_fit_has_no_body(labels: Labels) -> None:
    two = {name: values[[NAN_ROW, 6]] for name, values in labels.items()}
    people = fit_here(two)
    assert np.isnan(people.vertices()[0]).all() and np.isfinite(people.vertices()[1]).all()
    assert np.isnan(people.joints()[0]).all() and np.isnan(people.bones()[0]).all()
    assert people.usable.tolist() == [False, True] and people.skel_gender[0] == ""
    assert "1 bad_input" in repr(people) and "open body" in repr(people) and "PVE mean" in repr(people)


def test_some_of_the_people(fitted: NumPyPeople) -> None:
    for index in (2, slice(1, 3), [5, 0], fitted.pve_mm > np.median(fitted.pve_mm), -1):
        few_of = fitted[index]
        assert few_of.poses.tobytes() == fitted.poses[index].tobytes()
        assert (
            few_of.status.shape == fitted.status[index].shape
            and few_of.betas.shape == fitted.betas[index].shape
        )
        assert few_of.vertices().tobytes() == fitted.vertices()[index].tobytes()
    assert len(fitted) == 6 and [person.status.shape for person in fitted] == [()] * 6
    with pytest.raises(IndexError):
        fitted[0, 0]


def test_a_picture(fitted: NumPyPeople, labels: Labels) -> None:
    figure = fitted.plot(limit=2)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=40)
    assert stream.getvalue()[:4] == b"\x89PNG" and len(figure.axes) == 2
    # The demo's people stand before a camera, whose y points down.
    box = figure.axes[0].get_zlim()  # type: ignore[attr-defined]
    assert box[0] < -fitted.joints()[0, 0, 1] < box[1] and np.diff(box) < 2.5
    assert len(fitted[0].plot(up="z").axes) == 1
    with pytest.raises(ArgumentError, match="up: expected x, y, z, -x, -y or -z, found 'down'"):
        fitted.plot(up="down")
    nothing = fit(*(labels[k][NAN_ROW] for k in ("pose", "betas")), device="cpu")
    with pytest.raises(ArgumentError, match="expected a person with a fit to draw, found none among 1"):
        nothing.plot()


def test_without_matplotlib_plot_says_what_to_install(
    fitted: NumPyPeople, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(
        SkelfitError, match="plot: expected matplotlib, which draws; install it with: pip install"
    ):
        fitted.plot()


POSE = r"axis-angles \(\.\.\., 24, 3\) or \(\.\.\., 72\) in rad, or rotation matrices \(\.\.\., 24, 3, 3\)"
Z = np.zeros


@pytest.mark.parametrize(("arguments", "said"), [
    ({"pose": Z((5, 23, 3))}, rf"pose: expected {POSE}, found shape \(5, 23, 3\)"),
    ({"pose": Z(3)}, rf"pose: expected {POSE}, found shape \(3,\)"),
    ({"pose": Z(())}, rf"pose: expected {POSE}, found shape \(\)"),
    ({"pose": Z((5, 24, 3), complex)}, rf"pose: expected numbers, {POSE}, found dtype complex128"),
    ({"pose": [["a"] * 72]}, rf"pose: expected numbers, {POSE}, found dtype <U1"),
    ({"pose": [[1.0], [1.0, 2.0]]}, rf"pose: expected {POSE}, found no array"),
    ({"pose": torch.zeros(5, 72, dtype=torch.bool)}, rf"pose: expected numbers, {POSE}, found dtype bool"),
    ({"betas": Z((5, 9))}, r"betas: expected shape \(\.\.\., 10\) or more numbers each, found shape \(5, 9\)"),
    ({"betas": 1.0}, r"betas: expected shape \(\.\.\., 10\) or more numbers each, found shape \(\)"),
    ({"betas": Z((4, 10))}, r"betas: expected leading dimensions that go with \(5,\), .* found shape \(4, 10\)"),
    ({"transl": Z((5, 4))}, r"transl: expected shape \(\.\.\., 3\) in m, found shape \(5, 4\)"),
    ({"transl": Z((2, 3))}, r"transl: expected leading dimensions .* found shape \(2, 3\)"),
    ({"gender": "man"}, r"gender: expected neutral, male or female, one for all or one per person, found 'man'"),
    ({"gender": ["male"] * 4}, r"gender: expected leading dimensions .* found shape \(4,\)"),
    ({"gender": [1] * 5}, r"gender: expected neutral, male or female, .* found dtype int64"),
    ({"device": "tpu"}, r"device: expected auto, cpu or cuda, found 'tpu'"),
    ({"frames_per_second": 0}, r"frames_per_second: expected a rate of 0\.1 to 10000 Hz, found 0"),
    ({"pose": Z(72), "frames_per_second": 30}, r"pose: expected poses of at least two frames, .* found one person"),
    ({"skel_gender": "neutral"}, r"fit\.skel_gender': expected male, female or best, found 'neutral'"),
    ({"pipeline": "hmr-skle"}, r"hmr-skle: expected a pipeline: .* did you mean hmr-skel\?"),
    ({"models": "nowhere"}, r"nowhere: expected a models folder, found no such folder"),
])  # fmt: skip
def test_a_fault_is_one_sentence(arguments: dict[str, Any], said: str) -> None:
    usual: dict[str, Any] = {"pose": Z((5, 72)), "betas": Z(10), "device": "cpu"}
    with pytest.raises(SkelfitError, match=said) as caught:
        fit(**usual | arguments)
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(caught.value, ValueError) == isinstance(caught.value, ArgumentError)


def test_faults_of_meshes() -> None:
    with pytest.raises(
        ArgumentError, match=r"vertices: expected shape \(\.\.\., 6890, 3\) in m.* found shape \(10475, 3\)"
    ):
        fit_mesh(np.zeros((10475, 3)))
    with pytest.raises(
        ArgumentError, match=r"gender: expected one for all or one for each of the meshes \(2,\)"
    ):
        fit_mesh(np.zeros((2, 6890, 3)), gender=[["male", "male"]])
    flat = fit_mesh(np.zeros((2, 6890, 3)), gender="male", device="cpu")
    assert flat.status.tolist() == ["bad_input"] * 2 and flat.reason[0] == "absurd_mesh: 0.00 m long"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(DeviceError, match="device cuda"):
        fit(np.zeros(72), np.zeros(10), device="cuda")


def test_models_and_pipelines_as_objects(few: Labels, fitted: NumPyPeople, models: ModelSet) -> None:
    chosen: Pipeline = chosen_pipeline("hmr-skel")
    people = fit_here(few, models=models, pipeline=chosen)
    assert people.poses.tobytes() == fitted.poses.tobytes() and people.models is models
    female = fit(few["pose"], few["betas"], skel_gender="female", pipeline=chosen, device="cpu")
    assert set(female.skel_gender.tolist()) == {"female"}
    assert load_models() == models and load_models() is not models
