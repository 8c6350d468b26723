"""Export to OpenSim: `.mot` and `.trc` read by parsers of our own, and by OpenSim where it is installed."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from export_fakes import SUBSET, export, make_fields, make_metas, write_run
from scipy.spatial.transform import Rotation

from skelfit.bodies.dofs import DOF_NAMES, SKEL_JOINT_NAMES
from skelfit.bodies.model_set import ModelSet, make_model_set
from skelfit.bodies.skel import SkelModel
from skelfit.errors import ModelError, OutputError
from skelfit.exports.exporter import ExportOptions
from skelfit.exports.opensim_files.motion import MARKERS

# x right, y down, z forward -> x towards the camera, y up, z to the left of the image; and the pelvis at rest.
CAMERA_TO_GROUND = np.array([[0, 0, -1], [0, -1, 0], [-1, 0, 0]])
PELVIS_AT_REST = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]])  # columns: forward, up, right
BODY = DOF_NAMES[3:]


def read_mot(path: Path) -> dict[str, np.ndarray]:
    """Columns by name, by OpenSim's description of the format: a header up to `endheader`, labels, numbers."""
    lines = path.read_text().splitlines()
    end = lines.index("endheader")
    assert lines[1] == "version=1" and "inDegrees=yes" in lines[:end]
    rows, columns = (
        int(next(x for x in lines[:end] if x.startswith(key)).split("=")[1]) for key in ("nRows", "nColumns")
    )
    labels = lines[end + 1].split("\t")
    numbers = np.array([line.split("\t") for line in lines[end + 2 :]], float)
    assert labels[0] == "time" and numbers.shape == (rows, columns) == (len(numbers), len(labels))
    return dict(zip(labels, numbers.T, strict=True))


def read_trc(path: Path) -> tuple[dict[str, str], np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Header, frames, times and markers (T,3) by name: three header lines, two of labels, an empty one, numbers."""
    lines = path.read_text().splitlines()
    assert lines[0].split("\t")[:3] == ["PathFileType", "4", "(X/Y/Z)"] and lines[5] == ""
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=True))
    labels = lines[3].split("\t")
    assert labels[:2] == ["Frame#", "Time"]
    names = labels[2::3]
    axes = [f"{axis}{i}" for i in range(1, len(names) + 1) for axis in "XYZ"]
    assert lines[4].split("\t") == ["", "", *axes]
    numbers = np.array([line.split("\t") for line in lines[6:]], float)
    assert numbers.shape == (int(header["NumFrames"]), 2 + 3 * int(header["NumMarkers"]))
    points = numbers[:, 2:].reshape(len(numbers), -1, 3)
    markers = {name: points[:, i] for i, name in enumerate(names)}
    return header, numbers[:, 0], numbers[:, 1], markers


def rotations(tilt: np.ndarray, tilt_list: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Pelvis orientations in the ground from degrees, as OpenSim composes them: about z, then x, then y."""
    angles = np.stack([tilt, tilt_list, rotation], 1)
    return Rotation.from_euler("zxy", angles, degrees=True).as_matrix()


def test_angles_joints_and_markers_are_those_of_the_shards(tmp_path: Path, models: ModelSet) -> None:
    fields, metas = make_fields(12), make_metas(12)
    run = write_run(tmp_path / "run", fields, metas, models_sha256=models.sha256)
    assert len(export("opensim", run, tmp_path / "out", ExportOptions(models)).files) == 8
    endings = (".mot", ".trc", ".csv", "-clinical.sto")
    names = {f"{SUBSET}-{i:06d}{end}" for i in range(2) for end in endings}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names | {"export.json"}
    paths = sorted((tmp_path / "out").glob("*.mot"))
    mots = [read_mot(path) for path in paths]
    mot = {name: np.concatenate([m[name] for m in mots]) for name in mots[0]}
    assert set(mot) == {"time", *DOF_NAMES, "pelvis_tx", "pelvis_ty", "pelvis_tz"}
    np.testing.assert_array_equal(mot["time"], [*range(8), *range(4)])
    angles = np.stack([mot[name] for name in BODY], 1)
    np.testing.assert_allclose(angles, np.degrees(fields["skel_poses"][:, 3:].astype(float)), atol=1e-6)

    trcs = [read_trc(path.with_suffix(".trc")) for path in paths]
    assert trcs[0][0]["Units"] == "m" and trcs[0][0]["DataRate"] == "1"
    markers = {name: np.concatenate([t[3][name] for t in trcs]) for name in trcs[0][3]}
    for gender in ("male", "female"):
        rows = [i for i in range(12) if metas[i]["skel_gender"] == gender]
        model = SkelModel(models.skel_of(gender), dtype=torch.float64)
        parts = ("skel_betas", "skel_poses", "skel_trans")
        betas, q, trans = (torch.tensor(fields[part][rows], dtype=torch.float64) for part in parts)
        body = model.forward(model.shape(betas), q, trans)
        rest = model.forward(model.shape(betas), torch.zeros_like(q)).rotations[:, 0]
        turn = (body.rotations[:, 0] @ rest.mT).numpy()
        pelvis = rotations(*(mot[name][rows] for name in DOF_NAMES[:3]))
        np.testing.assert_allclose(pelvis, CAMERA_TO_GROUND @ turn @ PELVIS_AT_REST, atol=1e-7)
        joints = body.joints.numpy() @ CAMERA_TO_GROUND.T
        for j, name in enumerate(SKEL_JOINT_NAMES):
            np.testing.assert_allclose(markers[f"{name}_jc"][rows], joints[:, j], atol=1e-7)
        for name, vertex in MARKERS.items():
            expected = body.vertices[:, vertex].numpy() @ CAMERA_TO_GROUND.T
            np.testing.assert_allclose(markers[name][rows], expected, atol=1e-7)
    pelvis = np.stack([mot[f"pelvis_t{axis}"] for axis in "xyz"], 1)
    np.testing.assert_array_equal(pelvis, markers["pelvis_jc"])


def test_a_person_who_faces_the_camera_is_upright_in_the_ground(tmp_path: Path, models: ModelSet) -> None:
    fields = make_fields(1)
    fields["skel_poses"][:] = 0
    # The body has y up and z forward; half a turn about x, which is SKEL's -z, lets it face a camera whose y is down.
    fields["skel_poses"][0, 0] = np.pi
    run = write_run(tmp_path / "run", fields, make_metas(1), models_sha256=models.sha256)
    export("opensim", run, tmp_path / "out", ExportOptions(models))
    mot = read_mot(tmp_path / "out" / f"{SUBSET}-000000.mot")
    for name in DOF_NAMES[:3]:
        assert abs(mot[name][0]) < 1e-4
    markers = read_trc(tmp_path / "out" / f"{SUBSET}-000000.trc")[3]
    assert markers["NOSE"][0, 1] > markers["pelvis_jc"][0, 1] + 0.4
    assert markers["pelvis_jc"][0, 1] > markers["R_HEEL"][0, 1] + 0.6
    assert markers["NOSE"][0, 0] > markers["BACK"][0, 0] and markers["R_HEEL"][0, 2] > markers["L_HEEL"][0, 2]


def spinning(frames: int, turns: float) -> np.ndarray:
    """Poses (frames,46) rad of a person who turns round, with angles within half a turn as a fit gives them."""
    poses = np.zeros((frames, 46))
    angle = np.linspace(0, 2 * np.pi * turns, frames)
    # Leaning far forward while turning: other tilt and list in every frame, and both descriptions come up.
    turn = Rotation.from_euler("xyx", np.stack([np.full(frames, 0.4), angle, np.full(frames, np.pi)], 1))
    poses[:, :3] = turn.as_euler("YXZ")[:, ::-1]
    poses[:, DOF_NAMES.index("shoulder_r_x")] = np.remainder(3 * angle + np.pi, 2 * np.pi) - np.pi
    return poses.astype(np.float32)


def test_a_sequence_is_one_motion_in_time_without_jumps(tmp_path: Path, models: ModelSet) -> None:
    frames = [f for f in range(60) if f != 17]  # one was not fitted
    n = len(frames)
    fields = make_fields(n + 5)
    fields["skel_poses"][:n] = spinning(60, 2.0)[frames]
    fields["skel_betas"][:] = 0
    metas = make_metas(
        n + 5,
        label_file=["amass.npz"] * n + ["b.npz"] * 5,
        sequence=["walk/01"] * (n + 3) + ["walk_01"] * 2,
        frame=[*frames, *range(3), *range(2)],
        frame_rate=[120.0] * n + [None] * 5,
        coordinates=["world_z_up"] * (n + 5),
        skel_gender=["male"] * (n + 5),
    )
    assert np.abs(np.diff(fields["skel_poses"][:n], axis=0)).max() > 3  # the angles are not continuous
    run = write_run(tmp_path / "run", fields, metas, models_sha256=models.sha256, shard_size=25)
    assert len(export("opensim", run, tmp_path / "out", ExportOptions(models)).files) == 3 * 8 - 2 + 24
    assert sorted(p.stem for p in (tmp_path / "out").glob("*.mot")) == ["walk_01", "walk_01-2", "walk_01-3"]
    mot = read_mot(tmp_path / "out" / "walk_01.mot")
    np.testing.assert_allclose(mot["time"], np.array(frames) / 120, atol=1e-8)
    steps = np.diff(np.stack([mot[name] for name in DOF_NAMES]), axis=1)
    assert np.abs(steps).max() < 80  # shoulder_r_x turns by 37 degrees a frame, and twice that past the gap
    assert mot["shoulder_r_x"][-1] - mot["shoulder_r_x"][0] == pytest.approx(3 * 720, abs=1e-3)
    # The same pelvis as with the stored angles, in a ground whose y is the world's z.
    ground = np.array([[0, -1, 0], [0, 0, 1], [-1, 0, 0]])
    local = Rotation.from_euler("zxy", fields["skel_poses"][:n, :3].astype(float)).as_matrix()
    expected = ground @ PELVIS_AT_REST @ local
    np.testing.assert_allclose(rotations(*(mot[name] for name in DOF_NAMES[:3])), expected, atol=1e-6)
    header, numbers, times, _ = read_trc(tmp_path / "out" / "walk_01.trc")
    assert header["DataRate"] == header["OrigDataRate"] == "120" and header["OrigDataStartFrame"] == "1"
    np.testing.assert_allclose((numbers - 1) / 120, times, atol=1e-8)
    with open(tmp_path / "out" / "walk_01.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["frame"]) for row in rows] == frames and rows[3]["key"] == metas[3]["key"]


@pytest.mark.skipif(find_spec("opensim") is None, reason="OpenSim is not installed")
def test_opensim_reads_the_files(tmp_path: Path, models: ModelSet) -> None:
    fields = make_fields(5)
    run = write_run(tmp_path / "run", fields, make_metas(5), models_sha256=models.sha256)
    export("opensim", run, tmp_path / "out", ExportOptions(models))
    stem = tmp_path / "out" / f"{SUBSET}-000000"
    # In a process of its own: it writes a log where it runs.
    code = f"""
import numpy, opensim
table = opensim.TimeSeriesTable({str(stem)!r} + ".mot")
assert opensim.Storage({str(stem)!r} + ".mot").isInDegrees()
markers = opensim.MarkerData({str(stem)!r} + ".trc")
assert markers.getUnits().getLabel() == "meters" and markers.getNumFrames() == 5
numpy.savez("read.npz", labels=table.getColumnLabels(), values=table.getMatrix().to_numpy())
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    with np.load(tmp_path / "read.npz") as read:
        columns = dict(zip(read["labels"].tolist(), read["values"].T, strict=True))
    angles = np.stack([columns[name] for name in BODY], 1)
    np.testing.assert_allclose(angles, np.degrees(fields["skel_poses"][:, 3:].astype(float)), atol=1e-6)


def test_people_get_models_one_by_one(tmp_path: Path, models: ModelSet) -> None:
    """A motion of several people has no model: its notes say how to get them."""
    metas = make_metas(5)
    run = write_run(tmp_path / "run", make_fields(5), metas, models_sha256=models.sha256)
    together = export("opensim", run, tmp_path / "together", ExportOptions(models))
    assert not any(name.endswith(".osim") for name in together.files)
    assert "0 of them with a model" in together.notes[0] and "--key KEY" in together.notes[1]
    key = metas[3]["key"]
    alone = export("opensim", run, tmp_path / "alone", ExportOptions(models, keys=(key,)))
    assert alone.people == 1 and f"open {key}.osim" in alone.notes[1]
    written = {path.relative_to(tmp_path / "alone").as_posix() for path in (tmp_path / "alone").rglob("*.*")}
    assert written == {*alone.files, "export.json"}
    # A single pose has no dynamics and nothing over time.
    names = {f"{key}{end}" for end in (".osim", ".mot", ".trc", ".csv", "-clinical.sto", "-ik.xml")}
    assert {name for name in written if "/" not in name} == names | {"export.json"}
    first = export("opensim", run, tmp_path / "first", ExportOptions(models, limit=2))
    assert [name for name in first.files if name.endswith(".osim")] == [f"{m['key']}.osim" for m in metas[:2]]
    with pytest.raises(OutputError, match="expected a person with the key x, found none"):
        export("opensim", run, tmp_path / "none", ExportOptions(models, keys=("x",)))


def test_the_rate_of_a_sequence(tmp_path: Path, models: ModelSet) -> None:
    """Of the labels; of files without one as given, or as the fit assumed."""
    rates: list[float | None] = [120.0, 120.0, None, None]
    metas = make_metas(
        4,
        sequence=["a", "a", "b", "b"],
        frame=[0, 1, 0, 1],
        frame_rate=rates,
        fitted_rate=[None if rate else 30.0 for rate in rates],
    )
    fields = make_fields(4)
    fields["skel_betas"][:] = 0
    run = write_run(tmp_path / "run", fields, metas, models_sha256=models.sha256)

    def step(folder: str, name: str) -> float:
        return float(read_mot(tmp_path / folder / f"{name}.mot")["time"][1])

    result = export("opensim", run, tmp_path / "assumed", ExportOptions(models))
    assert step("assumed", "a") == pytest.approx(1 / 120, abs=1e-8)
    assert step("assumed", "b") == pytest.approx(1 / 30, abs=1e-8)
    assert "a sequence has no frame rate in the labels: the fit's is taken" in result.notes[1]
    with pytest.raises(
        OutputError, match="sequence a: expected no --frame-rate, because the labels have 120"
    ):
        export("opensim", run, tmp_path / "other", ExportOptions(models, frame_rate=25.0))
    keys = tuple(meta["key"] for meta in metas[2:])
    export("opensim", run, tmp_path / "given", ExportOptions(models, keys=keys, frame_rate=25.0))
    header = read_trc(tmp_path / "given" / f"{keys[1]}.trc")
    assert header[0]["DataRate"] == "25" and header[2] == pytest.approx([1 / 25])


def test_sequences_of_a_person_share_bones(tmp_path: Path, models: ModelSet) -> None:
    fields = make_fields(8)
    fields["skel_betas"][:] = fields["skel_betas"][0]
    fields["skel_betas"][6:] = 0
    metas = make_metas(
        8,
        sequence=["one"] * 3 + ["two"] * 3 + ["other"] * 2,
        frame=[*range(3), *range(3), *range(2)],
        skel_gender=["male"] * 8,
    )
    run = write_run(tmp_path / "run", fields, metas, models_sha256=models.sha256)
    files = export("opensim", run, tmp_path / "out", ExportOptions(models)).files
    assert len([name for name in files if name.endswith(".osim")]) == 3
    assert {name.split("/")[0] for name in files if "/" in name} == {"one-bones", "other-bones"}
    texts = [(tmp_path / "out" / f"{name}.osim").read_text() for name in ("one", "two", "other")]
    assert texts[0].replace('name="one"', "") == texts[1].replace('name="two"', "") != texts[2]
    assert all("one-bones/femur_r.obj" in text for text in texts[:2]) and "other-bones/" in texts[2]
    assert "<model_file>two.osim</model_file>" in (tmp_path / "out" / "two-ik.xml").read_text()


def test_frames_with_betas_of_their_own_have_a_model_of_the_mean(tmp_path: Path, models: ModelSet) -> None:
    fields = make_fields(3)
    metas = make_metas(3, sequence=["a"] * 3, frame=[*range(3)], skel_gender=["male"] * 3)
    run = write_run(tmp_path / "run", fields, metas, models_sha256=models.sha256)
    result = export("opensim", run, tmp_path / "out", ExportOptions(models))
    assert "frames of a differ in betas: its model has their mean" in "\n".join(result.notes)
    document = ElementTree.parse(tmp_path / "out" / "a.osim")
    path = ".//CustomJoint[@name='tibia_r_joint']//PhysicalOffsetFrame[@name='parent_offset']/translation"
    shin = np.linalg.norm([float(x) for x in str(document.findtext(path)).split()])
    skel = SkelModel(models.skel_of("male"), dtype=torch.float64)
    mean = torch.tensor(fields["skel_betas"].astype(np.float64).mean(0))
    assert shin == pytest.approx(float(skel.frames(mean).offsets[2].norm()), abs=1e-9)


def test_files_of_the_user_are_not_replaced(tmp_path: Path, models: ModelSet) -> None:
    fields, metas = make_fields(9), make_metas(9)
    run = write_run(tmp_path / "run", fields, metas, models_sha256=models.sha256)
    out = tmp_path / "out"
    export("opensim", run, out, ExportOptions(models))
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files already"):
        export("opensim", run, out, ExportOptions(models))
    smaller = write_run(tmp_path / "few", make_fields(2), make_metas(2), models_sha256=models.sha256)
    export("opensim", smaller, out, ExportOptions(models, overwrite=True))
    assert sorted(p.name for p in out.glob("*.mot")) == [f"{SUBSET}-000000.mot"]
    assert (out / "mine.txt").read_text() == "mine"
    with pytest.raises(OutputError, match="expected a folder, found a file"):
        export("opensim", run, out / "mine.txt", ExportOptions(models))


def test_other_models_than_the_runs_are_refused(tmp_path: Path, models: ModelSet) -> None:
    run = write_run(tmp_path / "run", make_fields(1), make_metas(1))
    with pytest.raises(ModelError, match="expected the models of the run, 000"):
        export("opensim", run, tmp_path / "out", ExportOptions(models))
    assert not (tmp_path / "out").exists()
    before = make_model_set(models.smpl, models.skel, "without a regressor", None).sha256
    run = write_run(tmp_path / "older", make_fields(1), make_metas(1), models_sha256=before)
    assert export("opensim", run, tmp_path / "out", ExportOptions(models)).people == 1


def test_no_page_advises_a_model_that_cannot_play_the_files() -> None:
    """bsm.osim is named in one place, which says that it is not a model for them, and why."""
    root = Path(__file__).parents[2]
    texts = [path for pattern in ("*.md", "*.cfg", "Makefile") for path in root.glob(pattern)]
    folders = ("docs", "skelfit", "pipelines", "manifests", "shards", "examples")
    texts += [
        p
        for f in folders
        for p in (root / f).rglob("*")
        if p.suffix in {".md", ".py", ".yaml", ".html", ".js"}
    ]
    assert len(texts) > 200
    naming = {path for path in texts if re.search("bsm", path.read_text("utf-8"), re.IGNORECASE)}
    assert {path.relative_to(root).as_posix() for path in naming} == {"docs/opensim.md"}
    text = " ".join((root / "docs/opensim.md").read_text("utf-8").split())
    sentences = [s for s in re.split(r"(?<=[.:)*]) (?=[A-Z*-])", text) if "bsm" in s]
    assert len(sentences) >= 2
    for sentence in sentences:
        assert re.search(r"\b(not|cannot)\b", sentence), sentence
        assert not re.search(r"\b(load|open|use|take|import|play)s?\b.{0,40}bsm", sentence, re.IGNORECASE), (
            sentence
        )
    for reference in ("SKEL issue 2]", "SKEL issue 24]", "SKEL issue 34]", "AddBiomechanics issue 222]"):
        assert reference in text


@pytest.mark.skipif(find_spec("opensim") is None, reason="OpenSim is not installed")
@pytest.mark.parametrize("frames", [1, 3, 4])
def test_opensim_runs_every_setup_of_a_short_sequence(tmp_path: Path, models: ModelSet, frames: int) -> None:
    fields = make_fields(frames)
    fields["skel_betas"][:] = 0
    metas = make_metas(
        frames,
        sequence=["walk"] * frames,
        frame=[*range(frames)],
        frame_rate=[30.0] * frames,
        skel_gender=["male"] * frames,
    )
    run = write_run(tmp_path / "run", fields, metas, models_sha256=models.sha256)
    files = export("opensim", run, tmp_path / "out", ExportOptions(models)).files
    setups = [name for name in files if name.endswith(".xml")]
    assert setups == ["walk-ik.xml", "walk-id.xml"][: 2 if frames >= 4 else 1]
    code = "import opensim; assert opensim.InverseKinematicsTool('walk-ik.xml').run()"
    if frames >= 4:
        code += "; assert opensim.InverseDynamicsTool('walk-id.xml').run()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "out", timeout=120, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
