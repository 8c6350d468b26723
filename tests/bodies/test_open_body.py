"""The open body: sizes, closed skin, weights, joints, symmetry, landmarks, bones; and that peers can load it."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from skelfit.bodies.dofs import dof_index
from skelfit.bodies.model_set import open_models
from skelfit.bodies.open_body import (
    SKEL_DOFS,
    SKEL_JOINTS,
    SMPL_PARTNER,
    open_body_models,
    open_keypoint_regressor,
    write_official,
)
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.fitting.start.betas_transfer import beta_map
from skelfit.verification.measures.skin_distance import SkinSurface

FLIP = np.array([-1.0, 1.0, 1.0])
GENDERS = ("neutral", "male", "female")
SKEL_PARTNER = [
    SKEL_JOINTS.index(n[:-2] + {"_r": "_l", "_l": "_r"}[n[-2:]] if n[-2] == "_" else n) for n in SKEL_JOINTS
]


@pytest.fixture(scope="module")
def models() -> dict[str, dict[str, Any]]:
    return open_body_models()


@pytest.fixture(scope="module")
def partner(models: dict[str, dict[str, Any]]) -> np.ndarray:
    """Left-right partner of each vertex, found from the template alone."""
    v = models["smpl_neutral"]["v_template"].astype(np.float64)
    order, mirror = np.lexsort(np.round(v, 5).T), np.lexsort(np.round(v * FLIP, 5).T)
    out = np.empty(len(v), np.int64)
    out[order] = mirror
    assert np.abs(v[out] * FLIP - v).max() < 1e-6
    return out


def winding(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Generalised winding number of each point: 1 inside a closed outward mesh, 0 outside."""
    out = []
    for p in np.array_split(points, max(1, len(points) // 100)):
        a, b, c = (vertices[faces[:, k]][None] - p[:, None] for k in range(3))
        la, lb, lc = (np.linalg.norm(x, axis=2) for x in (a, b, c))
        above = np.einsum("pfi,pfi->pf", a, np.cross(b, c))
        below = la * lb * lc + (a * b).sum(2) * lc + (b * c).sum(2) * la + (c * a).sum(2) * lb
        out.append(np.arctan2(above, below).sum(1) / (2 * np.pi))
    return np.concatenate(out)


def shaped(model: dict[str, Any], beta: np.ndarray) -> np.ndarray:
    template = model["v_template"] if "v_template" in model else model["skin_template_v"]
    return template.astype(np.float64) + model["shapedirs"] @ beta


def test_official_schema_and_sizes(models: dict[str, dict[str, Any]]) -> None:
    assert set(models) == {f"smpl_{g}" for g in GENDERS} | {"skel_male", "skel_female"}
    for gender in GENDERS:
        m = models[f"smpl_{gender}"]
        shapes = {
            k: m[k].shape for k in ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights")
        }
        assert shapes == {
            "v_template": (6890, 3),
            "f": (13776, 3),
            "shapedirs": (6890, 3, 10),
            "posedirs": (6890, 3, 207),
            "J_regressor": (24, 6890),
            "weights": (6890, 24),
        }
        assert m["kintree_table"].dtype == np.uint32
        assert m["kintree_table"][0, 0] == 4294967295
    for gender in ("male", "female"):
        m = models[f"skel_{gender}"]
        assert m["version"] == "1.1.1"
        assert m["skel_template_v"].shape == (24752, 3)
        assert m["skel_weights"].shape == m["skel_weights_rigid"].shape == (24752, 24)
        assert m["per_joint_rot"].shape == (24, 3, 3)
        assert (
            m["apose_rel_transfo"].shape == m["tpose_transfo"].shape == m["apose_transfo"].shape == (24, 4, 4)
        )
        assert len(m["joints_name"]) == 24
        assert len(set(m["pose_params_name"])) == 46
    assert SKEL_DOFS[26] == "scapula_abduction_r"
    assert SKEL_DOFS[39:43] == ["shoulder_l_x", "shoulder_l_y", "shoulder_l_z", "elbow_flexion_l"]


def test_all_numbers_are_finite(models: dict[str, dict[str, Any]]) -> None:
    for model in models.values():
        for key, value in model.items():
            array = value.data if hasattr(value, "tocsr") else value
            if isinstance(array, np.ndarray):
                assert np.isfinite(array).all(), key


def test_skin_is_closed_with_genus_zero(models: dict[str, dict[str, Any]]) -> None:
    faces = models["smpl_neutral"]["f"].astype(np.int64)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    directed, count = np.unique(edges, axis=0, return_counts=True)
    assert (count == 1).all(), "an edge is used twice in the same direction"
    assert {tuple(e) for e in directed.tolist()} == {(b, a) for a, b in directed.tolist()}
    assert len(np.unique(faces)) - len(directed) // 2 + len(faces) == 2
    reached, front = {0}, [0]
    around: dict[int, list[int]] = {}
    for a, b in directed.tolist():
        around.setdefault(a, []).append(b)
    while front:
        front = [n for v in front for n in around[v] if n not in reached and not reached.add(n)]  # type: ignore[func-returns-value]
    assert len(reached) == 6890


@pytest.mark.parametrize("gender", GENDERS)
def test_no_degenerate_faces_and_outward_winding(models: dict[str, dict[str, Any]], gender: str) -> None:
    m = models[f"smpl_{gender}"]
    for beta in (np.zeros(10), 2 * np.eye(10)[0], -2 * np.eye(10)[0]):
        a, b, c = (shaped(m, beta)[m["f"][:, k]] for k in range(3))
        area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
        assert area.min() > 5e-8
        assert 0.03 < np.einsum("fi,fi->", a, np.cross(b, c)) / 6 < 0.16  # m3: the volume of a person


@pytest.mark.parametrize(("gender", "stature"), [("neutral", 1.70), ("male", 1.77), ("female", 1.64)])
def test_stands_in_smpls_tpose(models: dict[str, dict[str, Any]], gender: str, stature: float) -> None:
    m = models[f"smpl_{gender}"]
    v, joints = m["v_template"], m["J_regressor"] @ m["v_template"]
    assert np.ptp(v[:, 1]) == pytest.approx(stature, abs=1e-3)
    assert 0.85 < np.ptp(v[:, 0]) / stature < 1.1
    assert np.abs(joints[0] - [0, -0.22, 0]).max() < 0.03
    arm = joints[[16, 18, 20]]
    assert np.ptp(arm[:, 1]) < 0.02, "the left arm is level"
    assert (np.diff(arm[:, 0]) > 0.15).all(), "the left hand is at +x"
    assert joints[10, 2] - joints[7, 2] > 0.08, "the foot points forward"


def test_weights_are_convex_and_few(models: dict[str, dict[str, Any]]) -> None:
    smpl, skel = models["smpl_male"]["weights"], models["skel_male"]["skin_weights"].toarray()
    for weights, most in ((smpl, 4), (skel, 5)):
        assert (weights >= 0).all()
        assert np.abs(weights.sum(1) - 1).max() < 1e-9
        assert (weights > 0).sum(1).max() <= most
        assert (weights.max(0) > 0.3).all(), "a joint owns no skin"
    for gender in ("male", "female"):
        m = models[f"skel_{gender}"]
        for key in ("skel_weights", "skel_weights_rigid"):
            assert np.abs(m[key].toarray().sum(1) - 1).max() < 1e-9
        assert set(np.unique(m["skel_weights_rigid"].toarray())) == {0.0, 1.0}


def test_left_and_right_agree(models: dict[str, dict[str, Any]], partner: np.ndarray) -> None:
    for gender in GENDERS:
        m = models[f"smpl_{gender}"]
        assert np.abs(m["v_template"][partner] * FLIP - m["v_template"]).max() < 1e-6
        assert np.abs(m["shapedirs"][partner] * FLIP[:, None] - m["shapedirs"]).max() < 1e-5
    m = models["smpl_neutral"]
    swap = np.array(SMPL_PARTNER)
    assert np.abs(m["weights"][partner][:, swap] - m["weights"]).max() < 1e-4
    skel = models["skel_male"]["skin_weights"].toarray()
    assert np.abs(skel[partner][:, SKEL_PARTNER] - skel).max() < 1e-4
    blocks = m["posedirs"].reshape(6890, 3, 23, 3, 3)
    sign = FLIP[:, None, None, None] * np.outer(FLIP, FLIP)
    assert np.abs(blocks[partner][:, :, swap[1:] - 1] * sign - blocks).max() < 5e-4  # 8-bit steps


@pytest.mark.parametrize("name", ["smpl_neutral", "smpl_male", "smpl_female", "skel_male", "skel_female"])
def test_joints_lie_inside_all_usual_bodies(models: dict[str, dict[str, Any]], name: str) -> None:
    m = models[name]
    regressor = m["J_regressor_osim" if "J_regressor_osim" in m else "J_regressor"].toarray()
    assert (regressor >= 0).all()
    assert np.abs(regressor.sum(1) - 1).max() < 1e-9
    faces = m["f"] if "f" in m else m["skin_template_f"]
    rng = np.random.default_rng(0)
    for beta in (np.zeros(10), *rng.uniform(-2, 2, (4, 10))):
        v = shaped(m, beta)
        assert (winding(regressor @ v, v, faces) > 0.5).all()


def test_skel_joints_differ_from_smpls(models: dict[str, dict[str, Any]]) -> None:
    m = models["skel_male"]
    v = m["skin_template_v"]
    smpl, skel = m["J_regressor"] @ v, m["J_regressor_osim"] @ v
    away = {
        n: np.linalg.norm(skel[SKEL_JOINTS.index(n)] - smpl[j]) for n, j in (("pelvis", 0), ("femur_l", 1))
    }
    assert 0.03 < away["pelvis"] < 0.12
    assert 0.008 < away["femur_l"] < 0.04


def test_minimal_rotation_is_the_identity_at_the_template(models: dict[str, dict[str, Any]]) -> None:
    for gender in ("male", "female"):
        m = models[f"skel_{gender}"]
        joints = m["J_regressor_osim"] @ m["skin_template_v"].astype(np.float64)
        parents = m["osim_kintree_table"][0]
        offset = joints - joints[np.maximum(parents, 0)]
        child = [next((k for k in range(24) if parents[k] == j), 0) for j in range(24)]
        rel, turn = m["apose_rel_transfo"], m["per_joint_rot"]
        assert np.abs(rel[:, :3, :3] @ rel[:, :3, :3].transpose(0, 2, 1) - np.eye(3)).max() < 1e-9
        assert np.abs(np.linalg.det(turn) - 1).max() < 1e-9
        for j in set(range(24)) - {0, 5, 10, 13, 18, 23}:
            stored, wanted = rel[child[j], :3, 3], offset[child[j]]
            if j in (16, 21):
                stored, wanted = stored + rel[j + 2, :3, 3], wanted + offset[j + 2]
            if j == 12:
                wanted = offset[child[11]]
            stored = turn[j] @ stored
            cosine = stored @ wanted / np.linalg.norm(stored) / np.linalg.norm(wanted)
            assert cosine > 1 - 1e-10, SKEL_JOINTS[j]
        frames = turn @ rel[:, :3, :3].transpose(0, 2, 1)
        assert np.abs(frames[0] - np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]])).max() < 1e-9
        assert np.abs(frames[15] - np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])).max() < 1e-9
        assert np.abs(frames[20] - np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]])).max() < 1e-9


def test_published_vertex_ids_sit_at_the_right_places(models: dict[str, dict[str, Any]]) -> None:
    m = models["smpl_neutral"]
    v, joints = m["v_template"], m["J_regressor"] @ m["v_template"]
    head, nose = joints[15], v[332]
    assert abs(nose[0]) < 1e-3
    assert nose[2] > v[(v[:, 1] > head[1]) & (np.abs(v[:, 0]) < 0.1), 2].max() - 5e-3
    for left, right in ((2800, 6260), (583, 4071), (3216, 6617), (3226, 6624), (3387, 6787), (2445, 5905)):
        assert np.abs(v[left] * FLIP - v[right]).max() < 1e-3
        assert v[left, 0] > 0
    assert v[414, 1] > v[:, 1].max() - 1e-3, "top of the head"
    assert v[583, 0] > v[2800, 0] + 0.02, "the ear is further out than the eye"
    assert v[3216, 0] < v[3226, 0], "the big toe is on the inner side"
    assert v[3387, 2] < joints[7, 2] - 0.03, "the heel is behind the ankle"
    tips = v[[2746, 2319, 2445, 2556, 2673]]
    assert (np.diff(tips[:, 2]) < 0).all(), "palms down, thumbs forward"
    for a, b, axis, least in (
        *((410, 384, 2, 0.12), (414, 384, 1, 0.08), (196, 3708, 0, 0.10), (6179, 6137, 1, 0.02)),
        *((5906, 5670, 0, -0.2), (3495, 3027, 2, 0.12), (3506, 3027, 2, 0.12)),
    ):
        gap = v[a, axis] - v[b, axis]
        assert gap > least if least > 0 else -0.25 < gap < -0.12


@pytest.mark.parametrize("gender", ["male", "female"])
def test_bones_lie_inside_the_skin(models: dict[str, dict[str, Any]], gender: str) -> None:
    m = models[f"skel_{gender}"]
    bone = m["skel_weights_rigid"].toarray().argmax(1)
    joints = m["J_regressor_osim"] @ m["skin_template_v"]
    world = np.einsum("vij,vj->vi", m["per_joint_rot"][bone], m["skel_template_v"]) + joints[bone]
    assert set(bone) == set(range(24))
    some = np.random.default_rng(0).choice(len(world), 600, replace=False)
    inside = winding(world[some], m["skin_template_v"].astype(np.float64), m["skin_template_f"]) > 0.5
    assert inside.mean() > 0.98
    assert np.ptp(world[:, 1]) > 0.9 * np.ptp(m["skin_template_v"][:, 1]), "from head to foot"
    faces = m["skel_template_f"].astype(np.int64)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, count = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    assert (count == 2).all(), "the bones are closed"
    assert set(np.unique(faces)) == set(range(24752))


@pytest.mark.parametrize(("gender", "most"), [("male", 0.02), ("female", 0.012)])
def test_bones_lie_inside_usual_people(gender: str, most: float) -> None:
    """Neutral people in this body's shape space, arms lowered and elbows bent: few vertices outside, right as left."""
    models = open_models()
    skel = SkelModel(models.skel_of(gender), dtype=torch.float64)
    offset, matrix = beta_map(SmplModel(models.smpl_of("neutral"), dtype=torch.float64), skel)
    betas = offset + torch.tensor(np.random.default_rng(5).standard_normal((12, 10))) @ matrix.mT
    q = torch.zeros(12, 46, dtype=torch.float64)
    for name, angle in (
        ("shoulder_r_x", 1.1),
        ("elbow_flexion_r", 0.8),
        ("shoulder_l_x", -1.1),
        ("elbow_flexion_l", 0.8),
    ):
        q[:, dof_index(name)] = angle
    shape = skel.shape(betas)
    skin, bones = skel.forward(shape, q).vertices.numpy(), skel.bones(shape, q).numpy()
    surface = SkinSurface(skel.asset.faces, skel.asset.v_template)
    out = np.stack([surface.signed_distances(*person) > 0 for person in zip(skin, bones, strict=True)])
    assert out.mean() < most
    joint = skel.asset.bone_weights_rigid.argmax(1)
    for right, left in enumerate(SKEL_PARTNER):
        assert abs(out[:, joint == right].mean() - out[:, joint == left].mean()) < 0.004


def test_correctives_are_small_and_keep_the_volume_of_a_bent_knee(models: dict[str, dict[str, Any]]) -> None:
    m = models["smpl_neutral"]
    angle = 2.0
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    features = np.zeros((23, 3, 3))
    features[3] = turn - np.eye(3)  # joint 4, the left knee
    offset = m["posedirs"].astype(np.float64) @ features.ravel()
    assert np.abs(m["posedirs"]).max() <= 0.0301
    assert 0.002 < np.linalg.norm(offset, axis=1).max() < 0.06
    template, joints = m["v_template"].astype(np.float64), m["J_regressor"] @ m["v_template"]
    share = m["weights"][:, [4, 7, 10]].sum(1)[:, None]

    def volume(v: np.ndarray) -> float:
        posed = v + share * ((v - joints[4]) @ turn.T + joints[4] - v)
        a, b, c = (posed[m["f"][:, k]] for k in range(3))
        return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)

    a, b, c = (template[m["f"][:, k]] for k in range(3))
    rest = float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)
    assert abs(volume(template + offset) - rest) < 0.6 * abs(volume(template) - rest)


def test_keypoint_regressor(models: dict[str, dict[str, Any]]) -> None:
    rows = open_keypoint_regressor()
    assert rows.shape == (44, 6890)
    assert rows.dtype == np.float32
    assert np.abs(rows.sum(1) - 1).max() < 1e-5
    points = rows @ models["smpl_neutral"]["v_template"]
    right = [2, 3, 4, 9, 10, 11, 15, 17, 22, 23, 24, 25, 26, 27, 31, 32, 33]
    left = [5, 6, 7, 12, 13, 14, 16, 18, 19, 20, 21, 30, 29, 28, 36, 35, 34]
    assert np.abs(points[right] * FLIP - points[left]).max() < 2e-3
    assert (points[left, 0] > 0).all()
    middle = [0, 1, 8, *range(37, 44)]
    assert np.abs(points[middle, 0]).max() < 2e-3
    heights = points[[21, 14, 13, 8, 39, 41, 40, 37, 42, 43, 38], 1]
    assert heights[0] == heights.min()
    assert heights[-1] == heights.max()


def test_official_files_load_in_independent_packages(
    models: dict[str, dict[str, Any]], tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_official(models, tmp_path)
    assert sorted(p.name for p in paths) == sorted(p.name for p in tmp_path.iterdir())
    smplx, torch = importlib.import_module("smplx"), importlib.import_module("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = smplx.SMPL(model_path=str(tmp_path / "SMPL_NEUTRAL.pkl"))
        skel = importlib.import_module("body_models.skel.torch").SKEL(
            model_path=tmp_path / "skel_female.pkl", gender="female"
        )
        at_rest = body().vertices[0].detach().numpy()
        zero = skel.forward_vertices(
            shape=torch.zeros(1, 10), body_pose=torch.zeros(1, 43), head_pose=torch.zeros(1, 3)
        )
    assert np.abs(at_rest - models["smpl_neutral"]["v_template"]).max() < 1e-6
    difference = zero[0].detach().numpy() - models["skel_female"]["skin_template_v"]
    assert np.ptp(difference, axis=0).max() < 1e-6
