"""Measures between frames of a sequence: rotations of joints, jumps and jitter, in any division into shards."""

from __future__ import annotations

import json
import math
import pickle
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from verify_people import as_people, fitted_fields

from skelfit.bodies.angle_continuity import make_continuous
from skelfit.bodies.dofs import NUM_DOFS, SKEL_JOINT_NAMES, dof_index, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.fitting.start.warm_start import root_angles
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.joint_turns import (
    LABEL_JOINTS,
    fit_rotations,
    followed,
    label_rotations,
    lengths,
    turns_between,
)
from skelfit.verification.measures.person_measures import measure
from skelfit.verification.measures.posed_bodies import BodyModels
from skelfit.verification.report.aggregate import Aggregate
from skelfit.verification.report.tables import tables

Fields = dict[str, np.ndarray]
Json = dict[str, Any]
ELBOW = dof_index("elbow_flexion_l")


@pytest.fixture(scope="module")
def bodies(models: ModelSet) -> BodyModels:
    return BodyModels(models)


@pytest.fixture(scope="module")
def still(models: ModelSet) -> Fields:
    """Two people who stand still for twenty frames each."""
    return {name: np.repeat(value, 20, axis=0) for name, value in fitted_fields(models, 2).items()}


def copied(fields: Fields) -> Fields:
    return {name: value.copy() for name, value in fields.items()}


def in_time(lengths: dict[str, int]) -> dict[str, list[Any]]:
    names = [name for name, n in lengths.items() for _ in range(n)]
    frames = [i for n in lengths.values() for i in range(n)]
    return {"sequence": names, "frame": frames, "angles": ["continuous"] * len(names)}


def parts(bodies: BodyModels, people: DecodedPeople, size: int) -> list[Aggregate]:
    batch_of = np.arange(len(people)) // size
    batches = [people.select(batch_of == k) for k in range(batch_of.max() + 1)]
    return [Aggregate.of(measure(bodies, batch, bones_every=50)) for batch in batches]


def anatomy_of(bodies: BodyModels, fields: Fields, sizes: tuple[int, ...] = (7,), **changes: Any) -> Json:
    """The report of the frames of two sequences, the same however they are cut, and in whatever order they come."""
    people = as_people(fields, **(in_time({"one": 20, "two": 20}) | changes))
    whole = parts(bodies, people, 40)
    expected = tables(whole[0])["anatomy"]
    for size in sizes:
        cut = parts(bodies, people, size)
        mixed = [cut[i] for i in np.random.default_rng(size).permutation(len(cut))]
        for division in (cut, mixed):
            anatomy = tables(reduce(Aggregate.merge, division))["anatomy"]
            assert anatomy["jumps"] == expected["jumps"] and anatomy["jitter"] == expected["jitter"]
    assert tables(pickle.loads(pickle.dumps(whole[0])))["anatomy"] == expected
    json.dumps(expected, allow_nan=False)
    return expected


def test_jumps_of_sequences(bodies: BodyModels, still: Fields) -> None:
    """Found at their frames; a gap is no jump, another description is no motion."""
    fields = copied(still)
    fields["skel_poses"][7:20, ELBOW] += math.radians(60)
    fields["skel_poses"][33:, dof_index("shoulder_r_x")] += 2 * math.pi
    frames = in_time({"one": 20, "two": 20})["frame"]
    frames[30:] = [n + 5 for n in frames[30:]]
    jumps = anatomy_of(bodies, fields, (1, 3, 7), frame=frames)["jumps"]
    assert (jumps["sequences"], jumps["frames"], jumps["pairs"]) == (2, 40, 37)
    assert jumps["turn_above"] == {"10": 1 / 37, "20": 1 / 37, "45": 1 / 37, "90": 0} | {
        d: pytest.approx(1 / 37) for d in ("10", "20", "45")
    }
    assert jumps["added_deg_above"]["45"] == pytest.approx(1 / 37)
    assert jumps["added_mm_above"]["20"] == pytest.approx(1 / 37)
    elbow, rest = jumps["worst"][:2]
    assert (elbow["sequence"], elbow["frame"], elbow["joint"]) == ("one", 7, "ulna_l")
    assert elbow["shard"] == "people-000000" and elbow["label_turn_deg"] == 0
    assert elbow["turn_deg"] == pytest.approx(60, abs=0.01) and elbow["added_mm"] > 20
    assert rest["turn_deg"] < 0.01 and rest["added_mm"] < 0.01


def test_turns_of_the_label_are_no_jump_of_the_fit(bodies: BodyModels, still: Fields) -> None:
    """A fast elbow, and a smaller jump of the spine: the spine comes first, the elbow adds nothing."""
    fields = copied(still)
    fields["skel_poses"][7:20, ELBOW] += math.radians(60)
    pose = Rotation.from_rotvec(fields["smpl_pose"][7:20, 18]) * Rotation.from_euler("y", -60, True)
    fields["smpl_pose"][7:20, 18] = pose.as_rotvec()
    fields["skel_poses"][30:, dof_index("lumbar_bending")] += math.radians(12)
    jumps = anatomy_of(bodies, fields)["jumps"]
    assert jumps["turn_deg"]["max"] == pytest.approx(60, abs=0.01)
    assert jumps["label_turn_deg"]["max"] == pytest.approx(60, abs=0.01)
    assert jumps["added_deg"]["max"] == pytest.approx(12, abs=0.01)
    spine = jumps["worst"][0]
    assert (spine["sequence"], spine["frame"], spine["joint"]) == ("two", 10, "lumbar_body")
    assert spine["turn_deg"] == pytest.approx(12, abs=0.01)


def test_a_turn_through_the_pole_is_no_jump(bodies: BodyModels, models: ModelSet, still: Fields) -> None:
    """The pelvis of docs/labels.md, z up: its angles step by 15 degrees and more, its rotation by two."""
    fields = copied(still)
    t = np.linspace(0, 9, 271)[40:80]
    sway = np.stack([4 * np.sin(2 * math.pi * t), 3 * np.sin(4 * math.pi * t + 1)], 1)
    turned = (
        Rotation.from_euler("x", [90], True)
        * Rotation.from_euler("y", 40 * t[:, None], True)
        * Rotation.from_euler("zx", sway, True)
    )
    fields["smpl_pose"][:, 0] = turned.as_rotvec()
    frame = SkelModel(models.skel_of("male"), dtype=torch.float64).frames(torch.zeros(10).double()).frame[0]
    fields["skel_poses"][:, :3] = root_angles(frame.expand(40, 3, 3), torch.tensor(turned.as_matrix()))
    fields["skel_poses"] = make_continuous(fields["skel_poses"]).astype(np.float32)
    steps = np.degrees(np.abs(np.diff(fields["skel_poses"][:, :3], axis=0)))
    assert steps.max() > 15
    changes: dict[str, Any] = {"sequence": ["walk"] * 40, "frame": list(range(40))}
    for name in ("skel_betas", "smpl_betas"):
        fields[name][:] = fields[name][:1]
    fields["skel_poses"][:, 3:] = fields["skel_poses"][:1, 3:]
    fields["smpl_pose"][:, 1:] = fields["smpl_pose"][:1, 1:]
    anatomy = anatomy_of(bodies, fields, **changes)
    assert anatomy["jumps"]["turn_deg"]["max"] < 2.1
    assert anatomy["jumps"]["added_deg"]["max"] < 1e-3
    assert anatomy["jitter"]["by_joint"]["pelvis"][0] == pytest.approx(
        anatomy["jitter"]["by_joint"]["pelvis"][1], abs=1e-4
    )


def test_jitter_of_known_motions(bodies: BodyModels, still: Fields) -> None:
    """Constant speed has none; steps of a degree back and forth have two degrees per frame^2."""
    fields = copied(still)
    fields["skel_poses"][:20, ELBOW] += np.radians(np.arange(20))
    fields["skel_poses"][20:, ELBOW] += np.radians(np.arange(20) % 2)
    jitter = anatomy_of(bodies, fields)["jitter"]
    assert jitter["triples"] == 36 and jitter["label_deg"]["count"] == 36
    assert jitter["by_joint"]["ulna_l"] == [pytest.approx(1, abs=1e-4), 0]
    assert sum(fit for fit, _ in jitter["by_joint"].values()) == pytest.approx(1, abs=1e-3)
    # A mean over the 23 joints of the body.
    assert jitter["fit_deg"]["max"] == pytest.approx(2 / 23, abs=1e-4)
    assert jitter["fit_deg"]["mean"] == pytest.approx(1 / 23, abs=1e-4)
    assert jitter["label_deg"]["max"] == 0
    # The label's mean is over its own 21 joints; the humerus corresponds to two of them.
    fields = copied(still)
    for joint in (13, 16):
        fields["smpl_pose"][:, joint] = np.radians(np.arange(40) % 2)[:, None] * [0, 0, 1]
    jitter = anatomy_of(bodies, fields)["jitter"]
    assert jitter["label_deg"]["max"] == pytest.approx(4 / 21, abs=1e-3)
    jittering = {name: label for name, (_, label) in jitter["by_joint"].items() if label > 1e-3}
    assert jittering == {"scapula_l": pytest.approx(2, abs=1e-3), "humerus_l": pytest.approx(4, abs=1e-3)}


def test_labels_without_smpl_have_turns_of_the_fit_alone(bodies: BodyModels, still: Fields) -> None:
    fields = copied(still)
    fields["skel_poses"][7:20, ELBOW] += math.radians(30)
    fields["smpl_pose"][:] = 0
    anatomy = anatomy_of(bodies, fields, smpl=[False] * 40, smpl_gender=[""] * 40)
    jumps, jitter = anatomy["jumps"], anatomy["jitter"]
    assert jumps["turn_deg"]["max"] == pytest.approx(30, abs=0.01)
    assert jumps["added_deg"]["count"] == 0 and jumps["added_deg"]["unknown"] == 38
    worst = jumps["worst"][0]
    assert (worst["frame"], worst["joint"], worst["label_turn_deg"]) == (7, "ulna_l", None)
    assert jitter["by_joint"]["ulna_l"][1] is None and jitter["by_joint"]["ulna_l"][0] > 1


def test_closed_aggregates_keep_no_frames(bodies: BodyModels, still: Fields) -> None:
    """Aggregates of whole sequences: the same numbers without frames."""
    people = as_people(still, **in_time({"one": 20, "two": 20}))
    one, two = parts(bodies, people, 20)
    whole, shards = one.merge(two), one.closed().merge(two.closed())
    assert len(whole.runs) == 2 and not shards.runs
    assert tables(whole) == tables(shards) == tables(whole.closed())


def test_no_sequences(bodies: BodyModels, still: Fields) -> None:
    anatomy = tables(parts(bodies, as_people(still), 40)[0])["anatomy"]
    assert anatomy["jumps"]["pairs"] == anatomy["jitter"]["triples"] == 0 and anatomy["jumps"]["worst"] == []


# Rotations.


def test_turns_of_the_fit_are_those_of_the_model(models: ModelSet) -> None:
    """Any two poses of a person: as far apart as the model's own local rotations."""
    rng = np.random.default_rng(0)
    low, high = np.nan_to_num(dof_limits(), neginf=-4, posinf=4).T
    poses = rng.uniform(low, high, (20, NUM_DOFS))
    model = SkelModel(models.skel_of("male"), dtype=torch.float64)
    frames = model.frames(torch.tensor(rng.normal(0, 1, 10)))
    local = Rotation.from_matrix(
        np.concatenate([model.joints(frames, torch.tensor(q)).local_rot.numpy() for q in poses])
    )
    expected = [
        (Rotation(local.as_quat()[24 * i : 24 * i + 24]).inv() * local[24 * i + 24 : 24 * i + 48]).magnitude()
        for i in range(19)
    ]
    rotations = fit_rotations(poses)
    np.testing.assert_allclose(
        lengths(turns_between(rotations[:-1], rotations[1:])), np.degrees(expected), atol=2e-2
    )  # the axes of elbows and forearms have four digits


def test_label_joints_correspond_to_skel_joints(models: ModelSet) -> None:
    """When one joint of SMPL turns, exactly the corresponding joints of SKEL turn."""
    rest = followed(label_rotations(np.zeros((1, 24, 3)), np.ones(1, bool)))
    for joint in range(24):
        pose = np.zeros((1, 24, 3))
        pose[0, joint] = [0.1, 0.2, -0.2]
        turned = lengths(turns_between(rest, followed(label_rotations(pose, np.ones(1, bool)))))[0]
        follow = [j for j, joints in enumerate(LABEL_JOINTS) if joint in joints]
        assert np.flatnonzero(turned > 1e-3).tolist() == follow
        np.testing.assert_allclose(turned[follow], np.degrees(0.3), atol=1e-4)
    names = [SKEL_JOINT_NAMES[j] for j, joints in enumerate(LABEL_JOINTS) if 16 in joints]
    assert names == ["humerus_l"]


def test_at_most_three_jumps_of_a_sequence_are_listed(bodies: BodyModels, still: Fields) -> None:
    """A sequence that jumps in every frame does not hide the jumps of others."""
    fields = copied(still)
    fields["skel_poses"][:20, ELBOW] += np.radians(40) * (np.arange(20) % 2)
    fields["skel_poses"][24:, ELBOW] += np.radians(12)
    fields["skel_poses"][33:, ELBOW] += np.radians(8)
    worst = anatomy_of(bodies, fields)["jumps"]["worst"]
    assert [(jump["sequence"], jump["frame"]) for jump in worst[:5]] == [
        *(("one", frame) for frame in (1, 2, 3)), ("two", 4), ("two", 13),
    ]  # fmt: skip
    assert len(worst) == 6
