"""A person's `.osim`, opened by OpenSim: it moves as SKEL does, and OpenSim's tools run on it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import trimesh
from export_fakes import export, make_fields, make_metas, write_run
from scipy.spatial.transform import Rotation

from skelfit.bodies.dofs import DOF_NAMES, SKEL_JOINT_NAMES, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.exports.exporter import ExportOptions
from skelfit.exports.opensim_files.person_model import PersonModel, person_model
from skelfit.exports.opensim_files.person_rig import ORDER, PersonRig
from skelfit.exports.opensim_files.segment_masses import (
    DENSITIES,
    enclosed_volume,
    inside_points,
    segment_masses,
)

FRAMES, RATE = 31, 30.0
COORDINATES = (*DOF_NAMES, "pelvis_tx", "pelvis_ty", "pelvis_tz")
TO_GROUND = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]], dtype=torch.float64)  # from y up, z forward
Array = np.ndarray


@dataclass(frozen=True)
class Exported:
    """A sequence of one person, exported; every angle moves through its range, after a calm start."""

    folder: Path
    skel: SkelModel
    betas: Array  # (10,)
    model: PersonModel


@pytest.fixture(scope="module")
def exported(models: ModelSet, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    top = tmp_path_factory.mktemp("opensim")
    fields = make_fields(FRAMES)
    low, high = np.clip(dof_limits(), -1, 1).T
    phase = np.random.default_rng(1).uniform(0, 2 * np.pi, 46)
    wave = np.sin(2 * np.pi * 0.8 * np.arange(FRAMES)[:, None] / RATE + phase)
    wave *= np.clip(np.arange(FRAMES) / 8, 0, 1)[:, None]
    fields["skel_poses"] = ((low + high) / 2 + 0.49 * (high - low) * wave).astype(np.float32)
    fields["skel_betas"][:] = fields["skel_betas"][0]
    metas = make_metas(
        FRAMES,
        sequence=["all ranges"] * FRAMES,
        frame=[*range(FRAMES)],
        frame_rate=[RATE] * FRAMES,
        coordinates=["world_y_up"] * FRAMES,
        skel_gender=["female"] * FRAMES,
    )
    run = write_run(top / "run", fields, metas, models_sha256=models.sha256, shard_size=50)
    export("opensim", run, top / "out", ExportOptions(models))
    skel = SkelModel(models.skel_of("female"), dtype=torch.float64)
    betas = fields["skel_betas"][0].astype(np.float64)
    return Exported(top / "out", skel, betas, person_model(skel, betas))


def random_states() -> dict[str, Array]:
    """One at rest, with accelerations; one with speeds of 1 rad/s."""
    rng = np.random.default_rng(2)
    low, high = np.clip(dof_limits(), -1, 1).T
    values = np.concatenate([rng.uniform(low, high, (2, 46)), rng.normal(size=(2, 3))], 1)
    speeds = rng.normal(size=(2, 49)) * [[0], [1]]
    return {"values": values, "speeds": speeds, "accelerations": 5 * rng.normal(size=(2, 49))}


@pytest.fixture(scope="module")
def opened(exported: Exported) -> dict[str, Array]:
    """What OpenSim reads and computes."""
    if find_spec("opensim") is None:
        pytest.skip("OpenSim is not installed")
    states: dict[str, Any] = {"names": COORDINATES, **random_states()}
    np.savez(exported.folder / "states.npz", **states)
    script = Path(__file__).parents[1] / "support" / "opensim_runs.py"
    command = [sys.executable, str(script), "all_ranges", "states.npz", "opened.npz"]
    done = subprocess.run(command, cwd=exported.folder, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warn" not in done.stdout + (exported.folder / "opensim.log").read_text(), done.stdout
    return dict(np.load(exported.folder / "opened.npz"))


def mot(exported: Exported) -> dict[str, Array]:
    lines = (exported.folder / "all_ranges.mot").read_text().splitlines()
    start = lines.index("endheader") + 1
    numbers = np.array([line.split("\t") for line in lines[start + 1 :]], float)
    return dict(zip(lines[start].split("\t"), numbers.T, strict=True))


def trc(exported: Exported) -> dict[str, Array]:
    lines = (exported.folder / "all_ranges.trc").read_text().splitlines()
    numbers = np.array([line.split("\t") for line in lines[6:]], float)[:, 2:].reshape(FRAMES, -1, 3)
    return dict(zip(lines[3].split("\t")[2::3], np.moveaxis(numbers, 1, 0), strict=True))


def test_it_has_exactly_skels_coordinates(opened: dict[str, Array]) -> None:
    names = opened["coordinates"].tolist()
    assert sorted(names) == sorted(COORDINATES)
    ranges = dict(zip(names, opened["ranges"].tolist(), strict=True))
    defaults = dict(zip(names, opened["defaults"].tolist(), strict=True))
    for name, limits in zip(DOF_NAMES, dof_limits(), strict=True):
        expected = limits if np.isfinite(limits).all() else [-np.pi, np.pi]
        np.testing.assert_allclose(ranges[name], expected, atol=1e-9)
        assert defaults[name] == 0
    assert 0.7 < defaults["pelvis_ty"] < 1.2 and defaults["pelvis_tx"] == 0


def test_all_joints_are_where_the_trc_says(exported: Exported, opened: dict[str, Array]) -> None:
    expected, labels = trc(exported), opened["labels"].tolist()
    assert labels == list(expected)
    distance = {
        name: np.linalg.norm(opened["markers"][:, k] - expected[name], axis=1).max()
        for k, name in enumerate(labels)
    }
    rigid = [name for name in labels if name.endswith(("_jc", "_x", "_y"))]
    assert len(rigid) == 72
    assert max(distance[name] for name in rigid) < 1e-6  # m, of an allowed millimetre
    # The model has no skin: a marker on soft parts moves a little on the body that carries it.
    assert max(distance.values()) < 0.06
    assert max(distance[name] for name in ("NOSE", "R_INDEX", "L_BIG_TOE")) < 1e-4


def test_inverse_kinematics_gives_the_angles_back(exported: Exported, opened: dict[str, Array]) -> None:
    motion = mot(exported)
    assert max(np.ptp(motion[name]) for name in DOF_NAMES[3:]) > 80  # degrees
    for k, name in enumerate(opened["coordinates"].tolist()):
        np.testing.assert_allclose(opened["ik"][:, k], motion[name], atol=0.02, err_msg=name)


def test_inverse_dynamics_runs_on_the_motion(opened: dict[str, Array]) -> None:
    forces = opened["id_forces"]
    assert forces.shape == (FRAMES, 49) and np.isfinite(forces).all()
    lift = forces[:, opened["coordinates"].tolist().index("pelvis_ty")]
    assert abs(lift.mean() / (9.80665 * opened["mass"]) - 1) < 0.35  # it carries the weight, more or less


def naive_forces(exported: Exported, q: Array, speed: Array, acceleration: Array) -> Array:
    """Inverse dynamics by d'Alembert's principle, from differences of SKEL's own forward model."""
    skel, frames = exported.skel, exported.skel.frames(torch.tensor(exported.betas))
    masses = exported.model.masses

    def bodies(x: Array) -> tuple[Array, Array]:
        """Centres of mass (N,24,3) and orientations (N,24,3,3) at coordinates (N,49)."""
        posed = skel.joints(frames, torch.tensor(x[:, :46]))
        turns = (TO_GROUND @ posed.rot @ frames.frame).numpy()
        joints = ((posed.pos - posed.pos[:, :1]) @ TO_GROUND.T).numpy() + x[:, None, 46:]
        return joints + (turns @ masses.center[..., None])[..., 0], turns

    def vector(cross: Array) -> Array:
        return np.stack([cross[..., 2, 1], cross[..., 0, 2], cross[..., 1, 0]], -1)

    step = 3e-4  # s along the movement, rad and m along a coordinate
    times = step * np.array([[-1], [0], [1]])
    places, (back, turns, ahead) = bodies(q + speed * times + acceleration * times**2 / 2)
    turning, faster = (ahead - back) / (2 * step), (ahead - 2 * turns + back) / step**2
    unturn = np.swapaxes(turns, -1, -2)
    omega = vector(turning @ unturn)
    alpha = vector(faster @ unturn + turning @ np.swapaxes(turning, -1, -2))
    inertia = turns @ masses.inertia @ unturn
    moment = (inertia @ alpha[..., None])[..., 0] + np.cross(omega, (inertia @ omega[..., None])[..., 0])
    force = masses.mass[:, None] * ((places[0] - 2 * places[1] + places[2]) / step**2 + [0, 9.80665, 0])
    after, before = bodies(q + step * np.eye(49)), bodies(q - step * np.eye(49))
    moved, turned = ((x - y) / (2 * step) for x, y in zip(after, before, strict=True))
    work: Array = (moved * force).sum((1, 2)) + (vector(turned @ unturn) * moment).sum((1, 2))
    return work


def test_forces_are_those_of_skels_own_movement(exported: Exported, opened: dict[str, Array]) -> None:
    states = random_states()
    rest, moving = (
        naive_forces(exported, *(states[part][k] for part in ("values", "speeds", "accelerations")))
        for k in range(2)
    )
    np.testing.assert_allclose(opened["forces"][0], rest, atol=1e-3)
    # OpenSim has no second derivatives of functions of two angles: docs/opensim.md says what this costs.
    np.testing.assert_allclose(opened["forces"][1], moving, atol=4)
    assert abs(opened["forces"][1] - opened["forces"][0]).max() > 100


# Parts of it, without OpenSim.


def test_sliding_polynomials_are_skels_slides(exported: Exported) -> None:
    """Also at twice the limits."""
    rng = np.random.default_rng(0)
    betas = torch.tensor(exported.betas)
    rig, frames = exported.model.rig, exported.skel.frames(betas)
    for pose in rng.uniform(-1.6, 1.6, (20, 46)):
        posed = exported.skel.joints(frames, torch.tensor(pose))
        assert sorted(rig.slides) == [11, 12, 13, 14, 19]
        for joint, slides in rig.slides.items():
            moved = np.zeros(3)
            for slide in slides:
                powers = [pose[DOF_NAMES.index(n)] ** np.arange(ORDER + 1) for n in slide.coordinates]
                value = slide.coefficients
                if len(powers) == 2:  # terms above ORDER are not written
                    value = np.where(np.add.outer(*[np.arange(ORDER + 1)] * 2) <= ORDER, value, 0) @ powers[1]
                moved += slide.axis * (value @ powers[0])
            parent = int(exported.skel.asset.parents[joint])
            local = posed.rot[parent].mT @ (posed.pos[joint] - posed.pos[parent])
            expected = (local - frames.offsets[joint]).numpy()
            np.testing.assert_allclose(frames.frame[joint].numpy() @ moved, expected, atol=2e-6)


def test_masses_of_a_box_are_exact() -> None:
    """A box that one segment moves: its mass, centre and inertia are the textbook's."""
    size = np.array([0.2, 0.5, 0.3])
    box = trimesh.creation.box(size)
    joint, turn = np.array([0.1, 0.0, 0.0]), Rotation.from_rotvec([0.3, -0.4, 0.9]).as_matrix()
    rig = PersonRig("male", np.tile(joint, (24, 1)), np.tile(turn, (24, 1, 1)), np.zeros((46, 3)), {})
    weights = np.zeros((len(box.vertices), 24))
    weights[:, 1] = 1
    masses = segment_masses(rig, np.array(box.vertices), np.array(box.faces), weights, 0.01)
    mass = DENSITIES[1] * size.prod()
    assert masses.mass[1] == pytest.approx(mass) and masses.mass.sum() == pytest.approx(mass)
    np.testing.assert_allclose(masses.center[1], turn.T @ -joint, atol=1e-3)
    squares = size**2
    expected = turn.T @ np.diag(mass / 12 * (squares.sum() - squares)) @ turn
    np.testing.assert_allclose(masses.inertia[1], expected, rtol=0.02, atol=5e-3)


def test_masses_of_a_person_are_plausible(exported: Exported) -> None:
    person = exported.model
    skin = exported.skel.shape(torch.tensor(exported.betas)).v_rest.numpy()
    mesh = trimesh.Trimesh(skin, exported.skel.asset.faces, process=False)
    assert enclosed_volume(skin, exported.skel.asset.faces) == pytest.approx(mesh.volume)
    points = inside_points(skin, exported.skel.asset.faces, 0.02)
    assert len(points) * 0.02**3 == pytest.approx(mesh.volume, rel=0.02)
    masses = dict(zip(SKEL_JOINT_NAMES, person.masses.mass, strict=True))
    total = sum(masses.values())
    assert total == pytest.approx(1025 * mesh.volume, rel=0.02)
    # Shares of the body's mass, as de Leva (1996) and Winter have them, within a third.
    for names, share in (
        (["femur_r"], 0.12),
        (["tibia_r"], 0.044),
        (["humerus_l"], 0.028),
        (["head"], 0.075),
    ):
        assert sum(masses[name] for name in names) / total == pytest.approx(share, rel=0.34), names
    for inertia in person.masses.inertia:
        low, middle, high = np.linalg.eigvalsh(inertia)
        assert low > 0 and high < low + middle


def test_bones_stand_in_their_bodies_as_in_the_mesh(exported: Exported) -> None:
    """In the T-pose, the parts put together are the bone mesh of SKEL."""
    rig, betas = exported.model.rig, torch.tensor(exported.betas)
    document = ElementTree.parse(exported.folder / "all_ranges.osim")
    files = {body.get("name"): body.findtext(".//mesh_file") for body in document.iter("Body")}
    assert list(files) == list(SKEL_JOINT_NAMES) and None not in files.values()
    whole = exported.skel.bones(exported.skel.shape(betas), torch.zeros(46, dtype=torch.float64)).numpy()
    faces = exported.skel.asset.bone_faces
    owner = exported.skel.asset.bone_weights_rigid.argmax(1)[faces[:, 0]]
    for joint, path in enumerate(files.values()):
        part: Any = trimesh.load(exported.folder / str(path), process=False)
        placed = part.vertices @ rig.frames[joint].T + rig.joints[joint]
        np.testing.assert_allclose(placed[part.faces], whole[faces[owner == joint]], atol=1e-6)
