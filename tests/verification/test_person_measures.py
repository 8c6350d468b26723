"""Measures of people, against computations that share no code with them: body-models, smplx, scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from body_models.skel import _pose as oracle_pose
from body_models.skel.torch import SKEL as OracleSkel
from export_fakes import Fields, make_fields
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation
from verify_people import as_people, fitted_fields

from skelfit.bodies.dofs import DOF_NAMES, dof_limits
from skelfit.bodies.joint_distances import procrustes_aligned
from skelfit.bodies.keypoint_names import MIRRORED_KEYPOINTS
from skelfit.bodies.model_set import ModelSet, make_model_set
from skelfit.verification.measures.accuracy import JOINT_SETS, PARTS, parts_of_vertices
from skelfit.verification.measures.anatomy import KNEES_ELBOWS, euler_angles, smpl_hinges
from skelfit.verification.measures.bone_protrusion import bone_sample
from skelfit.verification.measures.person_measures import PersonMetrics, measure
from skelfit.verification.measures.posed_bodies import BodyModels, bone_vertices

NEAR = 1e-3  # mm, px
COUNT = 12


@pytest.fixture(scope="module")
def bodies(models: ModelSet) -> BodyModels:
    return BodyModels(models)


@pytest.fixture(scope="module")
def fields(models: ModelSet) -> Fields:
    """Fitted people, some metres away, with keypoints that miss a little and some without confidence."""
    people = fitted_fields(models, COUNT)
    rng = np.random.default_rng(0)
    people["gtkps"][..., :2] += rng.normal(0, 6, (COUNT, 44, 2))
    people["gtkps"][..., 2] = rng.choice([0, 0.2, 0.3, 1], (COUNT, 44))
    return people


@pytest.fixture(scope="module")
def genders() -> list[str]:
    return ["female" if i % 3 == 0 else "male" for i in range(COUNT)]


@pytest.fixture(scope="module")
def metrics(bodies: BodyModels, fields: Fields, genders: list[str]) -> PersonMetrics:
    return measure(bodies, as_people(fields, skel_gender=genders), bones_every=1)


@pytest.fixture(scope="module")
def skins(fields: Fields, genders: list[str], official: Path) -> tuple[np.ndarray, np.ndarray]:
    """Skins (N,V,3) m of label and fit, in the camera frame, by smplx and body-models in float64."""
    double = {name: torch.tensor(fields[name], dtype=torch.float64) for name in fields}
    smpl = smplx.SMPL(model_path=str(official / "SMPL_NEUTRAL.pkl"), dtype=torch.float64)
    with torch.no_grad():
        target = smpl(
            betas=double["smpl_betas"],
            global_orient=double["smpl_pose"][:, 0],
            body_pose=double["smpl_pose"][:, 1:].flatten(1),
            transl=double["smpl_trans"],
        ).vertices
        fit = torch.empty_like(target)
        for gender in ("male", "female"):
            oracle = OracleSkel(model_path=official / f"skel_{gender}.pkl", gender=gender).double()
            rows = torch.tensor([g == gender for g in genders])
            body, head = oracle_pose.unpack_pose(oracle._runtime.xp, double["skel_poses"][rows])
            skin = oracle.forward_vertices(body, head, shape=double["skel_betas"][rows])
            fit[rows] = skin + double["skel_trans"][rows][:, None]
    return target.numpy(), fit.numpy()


def test_vertex_errors(
    metrics: PersonMetrics, skins: tuple[np.ndarray, np.ndarray], models: ModelSet
) -> None:
    distance = 1000 * np.linalg.norm(skins[1] - skins[0], axis=-1)
    accuracy = metrics.accuracy
    assert np.abs(accuracy.vertex_mm - distance).max() < NEAR
    assert np.abs(accuracy.pve_mm - distance.mean(1)).max() < NEAR
    assert np.abs(accuracy.max_vertex_mm - distance.max(1)).max() < NEAR
    stored = np.abs(metrics.people.fields()["errors"] - np.stack([distance.mean(1), distance.max(1)], 1))
    assert np.abs(accuracy.stored_off_mm - stored).max() < NEAR
    parts = parts_of_vertices(models.skel_of("male"))
    assert set(parts.tolist()) == set(range(len(PARTS)))
    for p in range(len(PARTS)):
        assert np.abs(accuracy.part_mm[1, p] - distance[1, parts == p].mean()) < NEAR
    middle = {name: models.skel_of("male").v_template[parts == p].mean(0) for p, name in enumerate(PARTS)}
    assert middle["head"][1] > middle["chest"][1] > middle["abdomen"][1] > middle["pelvis"][1]
    assert middle["foot_r"][1] < middle["shank_r"][1] < middle["thigh_r"][1] and middle["hand_r"][0] < -0.5


@pytest.mark.parametrize("name", JOINT_SETS)
def test_joint_errors(
    metrics: PersonMetrics,
    skins: tuple[np.ndarray, np.ndarray],
    models: ModelSet,
    genders: list[str],
    name: str,
) -> None:
    """MPJPE, with the roots matched, and after scipy's Procrustes alignment."""
    for i in range(COUNT):
        dense = {
            "smpl24": models.smpl_of("neutral").J_regressor,
            "skel24": models.skel_of(genders[i]).J_regressor_osim,
        }.get(name, models.keypoints44)
        points = list(JOINT_SETS[name].points)
        label, fit = ((np.asarray(dense, np.float64) @ skin[i])[points] for skin in skins)
        root = list(JOINT_SETS[name].root)
        matched = fit - fit[root].mean(0) + label[root].mean(0)
        # scipy scales both to unit size: what is left is a share of the label's.
        size = np.linalg.norm(label - label.mean(0))
        one, two, _ = procrustes(label, fit)
        expected = [np.linalg.norm(x - label, axis=1).mean() for x in (fit, matched)]
        expected.append(size * np.linalg.norm(one - two, axis=1).mean())
        assert np.abs(metrics.accuracy.joints_mm[name][i] - 1000 * np.array(expected)).max() < NEAR


def test_alignment_never_mirrors() -> None:
    """Alignment is the best similarity without reflection."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(4, 14, 3))
    turned = 1.7 * Rotation.random(4, random_state=2).as_matrix() @ points.swapaxes(1, 2) + [
        [[1.0]],
        [[2]],
        [[3]],
        [[4]],
    ]
    assert np.abs(procrustes_aligned(points, turned.swapaxes(1, 2)) - turned.swapaxes(1, 2)).max() < 1e-12
    mirrored = points * [-1, 1, 1]
    assert np.linalg.norm(procrustes_aligned(points, mirrored) - mirrored, axis=-1).mean() > 0.3


def test_reprojection(
    metrics: PersonMetrics, skins: tuple[np.ndarray, np.ndarray], fields: Fields, models: ModelSet
) -> None:
    """One person and one keypoint at a time."""
    for i in range(COUNT):
        for k, skin in enumerate(skins):
            distances = []
            for point, (x, y, confidence) in zip(
                np.asarray(models.keypoints44, np.float64) @ skin[i], fields["gtkps"][i].tolist(), strict=True
            ):
                u, v, w = fields["cam_int"][i].astype(np.float64) @ point
                if confidence >= 0.3:
                    distances.append(float(np.hypot(u / w - x, v / w - y)))
            assert metrics.reprojection.px[i, k] == pytest.approx(np.mean(distances), abs=NEAR)
            side = 200 * float(fields["scale"][i].max())
            for t, share in enumerate((0.05, 0.1)):
                expected = np.mean([d < share * side for d in distances])
                assert metrics.reprojection.pck[i, k, t] == pytest.approx(expected, abs=1e-9)
        assert metrics.reprojection.seen[i] == len(distances)


def test_what_cannot_be_projected(bodies: BodyModels, fields: Fields, models: ModelSet) -> None:
    """No camera, no keypoints, no box, behind the camera, no SMPL parameters: other people are unchanged."""
    changed = {name: value.copy() for name, value in fields.items()}
    changed["gtkps"][1, :, 2] = 0
    changed["skel_trans"][2, 2] -= 40
    changed["smpl_trans"][2, 2] -= 40
    changed["scale"][3] = 0
    camera = [i != 0 for i in range(COUNT)]
    smpl = [i != 4 for i in range(COUNT)]
    m = measure(bodies, as_people(changed, camera=camera, smpl=smpl))
    whole = measure(bodies, as_people(fields))
    assert np.isnan(m.reprojection.px[[0, 1, 2, 4]]).all() and (m.reprojection.pck[2] == 0).all()
    assert np.isnan(m.reprojection.pck[[0, 1, 3, 4]]).all() and np.isfinite(m.reprojection.px[3]).all()
    assert np.abs(m.reprojection.px[5:] - whole.reprojection.px[5:]).max() < 1e-9
    assert np.isnan(m.accuracy.pve_mm[4]) and np.isnan(m.accuracy.joints_mm["smpl24"][4]).all()
    assert np.isnan(m.anatomy.smpl_hinges_deg[4]).all() and np.isfinite(m.anatomy.excess_deg).all()
    assert np.abs(m.accuracy.pve_mm[5:] - whole.accuracy.pve_mm[5:]).max() < 1e-9
    bare = BodyModels(make_model_set(models.smpl, models.skel, "bare", None))
    bare_metrics = measure(bare, as_people(fields))
    assert (
        np.isnan(bare_metrics.reprojection.px).all()
        and np.isnan(bare_metrics.accuracy.joints_mm["lsp14"]).all()
    )
    assert np.isfinite(bare_metrics.accuracy.joints_mm["skel24"]).all()


def test_measures_do_not_depend_on_the_batch(
    bodies: BodyModels, fields: Fields, metrics: PersonMetrics
) -> None:
    one = measure(bodies, metrics.people.select(np.arange(COUNT) == 5), bones_every=1)
    assert np.array_equal(one.accuracy.vertex_mm[0], metrics.accuracy.vertex_mm[5])
    assert one.accuracy.pve_mm[0] == metrics.accuracy.pve_mm[5]
    assert one.bones.depth_mm[0] == metrics.bones.depth_mm[metrics.bones.rows.tolist().index(5)]
    assert np.abs(one.accuracy.joints_mm["smpl24"][0] - metrics.accuracy.joints_mm["smpl24"][5]).max() < 1e-9
    assert np.abs(one.anatomy.excess_deg[0] - metrics.anatomy.excess_deg[5]).max() < 1e-9


@pytest.mark.parametrize("order", ["xyz", "xzy", "yzx", "zyx"])
def test_euler_angles_against_scipy(order: str) -> None:
    rotations = Rotation.random(50, random_state=3)
    angles = euler_angles(rotations.as_matrix(), order)
    assert np.abs(angles - rotations.as_euler(order.upper())).max() < 1e-9


def test_knees_and_elbows_of_smpl_in_their_own_ranges() -> None:
    """Flexion within the range has no excess; beyond it or sideways, the excess is the angle."""
    pose = np.zeros((6, 24, 3))
    pose[0, [4, 5], 0] = np.radians(100)
    pose[0, 18, 1], pose[0, 19, 1] = np.radians(-120), np.radians(120)
    pose[1, 4, 0] = np.radians(-25)
    pose[2, 5, 2] = np.radians(12)
    pose[3, 18, 1] = np.radians(30)
    pose[4, 19, 0] = np.radians(80)
    pose[5, 5, 0] = np.radians(150)
    excess = smpl_hinges(pose)
    expected = np.zeros((6, 4))
    expected[1, 0], expected[2, 1], expected[3, 2], expected[4, 3], expected[5, 1] = 25, 12, 30, 12.5, 15
    assert list(KNEES_ELBOWS) == ["left knee", "right knee", "left elbow", "right elbow"]
    assert np.abs(excess - expected).max() < 1e-9


def test_excess_against_a_loop(bodies: BodyModels) -> None:
    fields = make_fields(5)
    fields["skel_poses"] *= 1.7
    m = measure(bodies, as_people(fields))
    limits = dof_limits()
    for i in range(5):
        for d, angle in enumerate(fields["skel_poses"][i].astype(float)):
            low, high = limits[d]
            expected = np.degrees(max(low - angle, angle - high, 0))
            assert m.anatomy.excess_deg[i, d] == pytest.approx(expected, abs=1e-6)
    # Angles of a sequence may lie whole turns away without a violation.
    fields["skel_poses"] = np.clip(fields["skel_poses"], *limits.T).astype(np.float32)
    fields["skel_poses"][:, DOF_NAMES.index("knee_angle_r")] += 2 * np.pi
    for angles, largest in (("continuous", 1e-4), ("canonical", 360.1)):
        m = measure(bodies, as_people(fields, angles=[angles] * 5))
        assert (m.anatomy.excess_deg.max() > 1) == (largest > 1) and m.anatomy.excess_deg.max() < largest


def winding(corners: np.ndarray, point: np.ndarray) -> float:
    """How often a surface of triangles (F,3,3) goes round a point, by all solid angles."""
    a, b, c = (corners - point).swapaxes(0, 1)
    la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
    above = (a * np.cross(b, c)).sum(1)
    below = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
    return float(2 * np.arctan2(above, below).sum() / (4 * np.pi))


def distance_to_triangles(corners: np.ndarray, point: np.ndarray) -> float:
    """The distance of a point to triangles (F,3,3): to their edges, and to projections that lie within them."""
    a, b, c = corners.swapaxes(0, 1)
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    height = ((point - a) * normal).sum(1)
    foot = point - height[:, None] * normal
    distances, within = [], np.ones(len(corners), bool)
    for p, q in ((a, b), (b, c), (c, a)):
        along = q - p
        within &= (np.cross(along, foot - p) * normal).sum(1) >= 0
        t = np.clip(((point - p) * along).sum(1) / (along**2).sum(1), 0, 1)
        distances.append(np.linalg.norm(point - p - t[:, None] * along, axis=1).min())
    return float(min([*distances, *np.abs(height[within])]))


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_distances_of_bones_to_the_skin(bodies: BodyModels, scale: float) -> None:
    """Against all triangles in float64, with signs. Scale 1: poses in which the skin folds into itself."""
    fields = make_fields(4, seed=4)
    fields["skel_betas"][:] = np.random.default_rng(1).normal(size=(4, 10))
    fields["skel_poses"] *= scale
    genders = ["female", "male", "female", "male"]
    outside = 0
    for group in bodies.pose(as_people(fields, skel_gender=genders)):
        surface = bodies.surface(group.skel.gender)
        vertices = bone_sample(group.skel.asset).vertices
        for k, bones in enumerate(bone_vertices(group, [0, 1], vertices)):
            distance = surface.signed_distances(group.skin[k], bones)
            corners = group.skin[k].astype(np.float64)[group.skel.asset.faces]
            checked = [*np.flatnonzero(distance > 0)[::4], *range(0, len(bones), 80)]
            rounds = np.array([winding(corners, bones[i]) for i in checked])
            assert ((distance[checked] > 0) == (rounds < 0.5)).all()
            expected = np.array([distance_to_triangles(corners, bones[i]) for i in checked])
            assert 1000 * np.abs(np.abs(distance[checked]) - expected).max() < NEAR
            outside += int((distance[checked] > 0).sum())
    assert outside > 10


def test_shares_of_bones_outside(bodies: BodyModels, metrics: PersonMetrics) -> None:
    measured = metrics.bones
    assert sorted(measured.rows.tolist()) == list(range(COUNT))
    assert 0 < measured.share.mean() < 0.1 and measured.joint_share.shape == (COUNT, 24)
    for group in bodies.pose(metrics.people):
        sample = bone_sample(group.skel.asset)
        whole = bone_vertices(group, [1], np.arange(24752))
        assert np.array_equal(bone_vertices(group, [1], sample.vertices), whole[:, sample.vertices])
        distance = bodies.surface(group.skel.gender).signed_distances(group.skin[1], whole[0])
        index = measured.rows.tolist().index(group.rows[1])
        sampled = distance[sample.vertices]
        assert measured.depth_mm[index] == pytest.approx(1000 * max(sampled.max(), 0))
        for j in range(24):
            assert measured.joint_share[index, j] == pytest.approx((sampled[sample.joint == j] > 0).mean())
        assert measured.share[index] == pytest.approx((distance > 0).mean(), abs=0.01)


def test_bone_samples_spread_over_the_bones(bodies: BodyModels) -> None:
    """The samples spread over the bones of every joint, around and along."""
    asset = bodies.skel("male").asset
    sample = bone_sample(asset)
    joint = asset.bone_weights_rigid.argmax(1)
    assert np.array_equal(sample.joint, joint[sample.vertices]) and np.array_equal(
        sample.size, np.bincount(joint)
    )
    assert set(sample.joint.tolist()) == set(range(24)) and len(sample.vertices) < 6000
    for j in range(24):
        sampled, all_vertices = (
            asset.bone_v_template[i].astype(float) for i in (sample.vertices[sample.joint == j], joint == j)
        )
        assert len(sampled) >= min(160, len(all_vertices))
        assert np.abs(sampled.mean(0) - all_vertices.mean(0)).max() < 0.25 * all_vertices.std(0).max()
        assert np.abs(sampled.std(0) / all_vertices.std(0) - 1).max() < 0.25


def test_mirrored_keypoints_are_those_of_the_other_side(models: ModelSet) -> None:
    points = np.asarray(models.keypoints44, np.float64) @ models.smpl_of("neutral").v_template
    off = np.linalg.norm(points[list(MIRRORED_KEYPOINTS)] * [-1, 1, 1] - points, axis=1)
    assert off.max() < 0.02
