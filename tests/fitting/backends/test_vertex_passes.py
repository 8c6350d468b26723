"""The vertex passes against plain float64 sums over vertices."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import lane_kernels
import numpy as np
import pytest
import torch
import warp as wp
from lane_kernels import LANES, OTHERS, SHAPES

from skelfit.bodies.model_set import ModelSet, open_models
from skelfit.bodies.skel import SkelModel, corrective_feature, skinning_transforms
from skelfit.bodies.smpl import SmplModel
from skelfit.fitting.backends.body_tables import body_tables
from skelfit.fitting.backends.kernels import kernels_for
from skelfit.fitting.backends.skin_tables import SkinPlan, smpl_skin, stage_skin
from skelfit.fitting.backends.variable_tables import make_tree, moment_program

lane_kernels.prepare()
COUNT, SIZE, BETAS = 37, 32, 10  # people, so that no group of several is whole; vertices a block; betas
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class SkinnedPeople:
    """People and their targets, in float64."""

    q: np.ndarray  # (B, 46)
    betas: np.ndarray  # (B, 10)
    trans: np.ndarray  # (B, 3)
    joints: np.ndarray  # (B, 24, 3)
    coefficients: np.ndarray  # (B, k)
    transforms: np.ndarray  # (B, 24, 12)
    target: np.ndarray  # (B, V, 3)


@lru_cache
def body() -> tuple[ModelSet, SkelModel]:
    models = open_models()
    return models, SkelModel(models.skel_of("male"), dtype=torch.float64)


@lru_cache
def skinned_people() -> SkinnedPeople:
    model, rng = body()[1], np.random.default_rng(5)
    # Numbers that float32 has, so that kernels and doubles mean the same people.
    q, betas, trans = (
        rng.normal(0, s, (COUNT, n)).astype(np.float32).astype(float)
        for s, n in ((0.3, 46), (1, 10), (0.1, 3))
    )
    shape, shift = model.shape(torch.tensor(betas)), torch.tensor(trans)
    posed = model.joints(shape.frames, torch.tensor(q))
    skin = model.forward(shape, torch.tensor(q), shift).vertices.numpy()
    feature = corrective_feature(posed.local_rot, model.corrective_joints).numpy()
    transforms = skinning_transforms(posed, shape.frames.joints)
    transforms[..., 3] += shift[:, None]
    return SkinnedPeople(
        q=q,
        betas=betas,
        trans=trans,
        joints=(posed.pos + shift[:, None]).numpy(),
        coefficients=np.concatenate((np.ones((COUNT, 1)), betas, feature), 1),
        transforms=transforms.flatten(2).numpy(),
        target=skin + rng.normal(0, 0.02, skin.shape),
    )


@lru_cache
def plan(dofs: str = "all", vertices: str = "all", stride: int = 8) -> SkinPlan:
    models, model = body()
    relative = np.random.default_rng(6).uniform(0.2, 1, 6890)
    return stage_skin(model, dofs, vertices, stride, SIZE, points=models.keypoints44, relative=relative)


def lanes_of(x: np.ndarray, lanes: int, rows: np.ndarray) -> Any:
    """Numbers of people (B, ...) as lane vectors of groups (G, ...)."""
    groups = np.moveaxis(x[rows], 1, -1)
    return wp.array(np.ascontiguousarray(groups, dtype=np.float32), dtype=kernels_for(lanes).lanes.V)


def people_of(x: Any, rows: np.ndarray) -> np.ndarray:
    """Lane vectors of groups (G, ...) as numbers of people, (B, ...)."""
    groups = np.moveaxis(x.numpy().reshape(*x.shape, rows.shape[1]), -1, 1)
    out = np.zeros((rows.max() + 1, *groups.shape[2:]), np.float32)
    out[rows.reshape(-1)] = groups.reshape(-1, *groups.shape[2:])
    return out


def whole(rows: np.ndarray, lanes: int) -> np.ndarray:
    """People in groups of lanes; the last person repeats until the last group is whole."""
    return rows[np.arange(-(-len(rows) // lanes) * lanes).clip(max=len(rows) - 1)].reshape(-1, lanes)


def skinned(people: SkinnedPeople, lanes: int, rows: np.ndarray) -> Any:
    """The inputs of a pass; transforms and coefficients are written by the pass."""
    at, groups = kernels_for(lanes).skinning.SkinInputs(), len(rows)
    at.coefficients = unwritten(lanes, groups, people.coefficients.shape[1])
    at.transforms = unwritten(lanes, groups, 24, 12)
    at.target = lanes_of(people.target, lanes, whole(np.arange(len(people.target)), lanes))
    at.rows = wp.array(rows.astype(np.int32), dtype=int)
    return at


def unwritten(lanes: int, *shape: int) -> Any:
    """Lane vectors filled with a number that kernels have to overwrite."""
    return wp.full(shape, value=kernels_for(lanes).lanes.V(7.0), dtype=kernels_for(lanes).lanes.V)


def run(
    people: SkinnedPeople,
    tables: SkinPlan,
    lanes: int,
    threads: int = 1,
    rows: np.ndarray | None = None,
    chunk: int = 3,
) -> Arrays:
    """All passes over people's skins: the results of each, (B, ...)."""
    rows = whole(np.arange(len(people.q)) if rows is None else rows, lanes)
    kernels, groups = kernels_for(lanes), len(rows)
    at, joints = skinned(people, lanes, rows), len(tables.joints)
    chunks = -(-groups // chunk)
    scratch = kernels.skinning.make_skin_scratch(chunks, SIZE, BETAS, "cpu")
    out, beta_moments, errors = (
        kernels.moments.SkinMoments(),
        kernels.betas_moments.BetaMoments(),
        kernels.skin_errors.SkinErrors(),
    )
    shapes = {
        out: {"start": (joints, 12), "pairs": (len(tables.pairs), 10), "d": (joints, 12), "value": ()},
        beta_moments: {
            "betas": (BETAS,),
            "cross": (joints, 12, BETAS),
            "products": (BETAS, BETAS),
            "residual": (BETAS,),
        },
        errors: {
            "mean": (),
            "mean_square": (),
            "largest": (),
            "points": (tables.num_points, 3),
            "joints": (24, 3),
        },
    }
    for struct, fields in shapes.items():
        for name, shape in fields.items():
            setattr(struct, name, unwritten(lanes, groups, *shape))

    posing = kernels.posing.make_pose_inputs(chunks, "cpu")
    posing.body = body_tables(body()[1], "cpu")
    for name in ("q", "betas", "trans"):
        setattr(posing, name, wp.array(getattr(people, name), dtype=float, device="cpu"))

    def launch(kernel: Any, *results: Any) -> None:
        inputs = [tables.skin, at, posing, chunk, scratch, *results]
        wp.launch_tiled(kernel, dim=[chunks], inputs=inputs, block_dim=threads, device="cpu")

    sums: Arrays = {}
    launch(kernels.moments.moments, out)
    sums |= {name: people_of(getattr(out, name), rows) for name in shapes[out]}
    launch(kernels.betas_moments.shaped_moments, out, beta_moments)
    for name in shapes[out]:
        assert np.array_equal(people_of(getattr(out, name), rows), sums[name], equal_nan=True)
    launch(kernels.skin_errors.errors, errors)
    for struct in (beta_moments, errors):
        sums |= {name: people_of(getattr(struct, name), rows) for name in shapes[struct]}
    sums |= {name: people_of(getattr(at, name), rows) for name in ("coefficients", "transforms")}
    return sums


def naive(people: SkinnedPeople, tables: SkinPlan) -> Arrays:
    """The same in float64, from the definitions."""
    models, model = body()
    v, joints = tables.vertices, list(tables.joints)
    relative = np.random.default_rng(6).uniform(0.2, 1, 6890)
    om = relative[v] / relative[v].sum()
    weights = np.asarray(model.asset.skin_weights, dtype=float)
    basis = np.concatenate((model.v_template[..., None], model.shapedirs, model.posedirs), -1)
    rest = np.einsum("vck,bk->bvc", basis, people.coefficients)
    blended = np.einsum("vj,bjx->bvx", weights, people.transforms).reshape(COUNT, -1, 3, 4)
    skin = np.einsum("bvrc,bvc->bvr", blended[..., :3], rest) + blended[..., 3]
    h = np.concatenate((rest, np.ones_like(rest[..., :1])), -1)[:, v]
    residual, active = (skin - people.target)[:, v], weights[np.ix_(v, np.array(joints))]
    moves = np.einsum("bvrc,vck->bvrk", blended[:, v, :, :3], basis[v, :, 1 : 1 + BETAS])
    a, b = tables.pairs.T
    block = np.einsum("vp,bvx,bvy->bpxy", om[:, None] * active[:, a] * active[:, b], h, h, optimize=True)
    distance = np.linalg.norm(residual, axis=-1)
    rows, columns = [0, 0, 0, 1, 1, 2, 0, 1, 2, 3], [0, 1, 2, 1, 2, 2, 3, 3, 3, 3]
    return {
        "betas": people.betas,
        "coefficients": people.coefficients,
        "transforms": people.transforms,
        "joints": people.joints,
        "start": people.transforms[:, joints],
        "pairs": block[..., rows, columns],
        "d": np.einsum("vj,bvr,bvc->bjrc", om[:, None] * active, residual, h, optimize=True).reshape(
            COUNT, -1, 12
        ),
        "value": (om * distance**2).sum(1),
        "cross": np.einsum("vj,bvrk,bvc->bjrck", om[:, None] * active, moves, h, optimize=True).reshape(
            COUNT, -1, 12, BETAS
        ),
        "products": np.einsum("v,bvrk,bvrl->bkl", om, moves, moves, optimize=True),
        "residual": np.einsum("v,bvrk,bvr->bk", om, moves, residual, optimize=True),
        "mean": distance.mean(1),
        "mean_square": (distance**2).mean(1),
        "largest": distance.max(1),
        "points": np.einsum("kv,bvr->bkr", np.asarray(models.keypoints44, float)[:, v], skin[:, v]),
    }


def same(one: Arrays, other: Arrays, one_rows: Any = slice(None), other_rows: Any = slice(None)) -> None:
    for name in one:
        assert np.array_equal(one[name][one_rows], other[name][other_rows]), name


@pytest.mark.parametrize("lanes, threads", SHAPES)
@pytest.mark.parametrize("stage", [("all", "all", 8), ("lower_body", "lower_body", 16)])
def test_passes_agree_with_their_definitions(lanes: int, threads: int, stage: tuple[str, str, int]) -> None:
    tables = plan(*stage)
    sums, expected = run(skinned_people(), tables, lanes, threads), naive(skinned_people(), tables)
    for name, x in expected.items():
        assert sums[name].shape == x.shape
        # Residuals of 20 mm are differences of positions of about 1 m, which are known to half a micrometre.
        tolerance = 5e-5 if name in ("d", "residual") else 4e-6
        assert np.abs(sums[name] - x).max() < tolerance * np.abs(x).max(), name


@pytest.mark.parametrize("lanes, threads", SHAPES[1:])
def test_lanes_and_threads_change_no_bit(lanes: int, threads: int) -> None:
    same(run(skinned_people(), plan(), lanes, threads), run(skinned_people(), plan(), LANES))


@pytest.mark.parametrize("lanes, threads", SHAPES)
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_change_no_bit(lanes: int, threads: int, chunk: int) -> None:
    whole_ = run(skinned_people(), plan(), lanes, threads)
    same(run(skinned_people(), plan(), lanes, threads, chunk=chunk), whole_)


@pytest.mark.parametrize("lanes, threads", [(LANES, 1), OTHERS])
def test_batches_change_no_bit(lanes: int, threads: int) -> None:
    alone, rng = run(skinned_people(), plan(), lanes, threads), np.random.default_rng(1)
    rows = np.concatenate((rng.permutation(COUNT), rng.integers(COUNT, size=9)))
    same(run(skinned_people(), plan(), lanes, rows=rows), alone)
    few = np.array([16, 3, 3, 36])
    same(run(skinned_people(), plan(), lanes, rows=few), alone, few, few)


@pytest.mark.parametrize("broken", ["q", "target"])
def test_a_person_that_is_not_finite_changes_no_other(broken: str) -> None:
    people, sick, well = skinned_people(), 5, np.delete(np.arange(COUNT), 5)
    target, q = people.target.copy(), people.q.copy()
    if broken == "target":
        target[sick, plan().vertices[3], 1] = np.nan
    else:
        q[sick, 20] = np.nan
    sums = run(replace(people, q=q, target=target), plan(), LANES)
    same(sums, run(people, plan(), LANES), well, well)
    assert np.isnan(sums["value"][sick]) and np.isnan(sums["largest"][sick]) and np.isnan(sums["mean"][sick])


@pytest.mark.parametrize("lanes, threads", SHAPES)
def test_target_skins_agree_with_smpl(lanes: int, threads: int) -> None:
    model, rng = SmplModel(body()[0].smpl_of("neutral"), dtype=torch.float64), np.random.default_rng(2)
    pose, betas = (torch.tensor(rng.normal(0, s, (COUNT, *n))) for s, n in ((0.4, (24, 3)), (1, (10,))))
    rotation = torch.matrix_exp(
        torch.linalg.cross(torch.eye(3).double().expand(COUNT, 24, 3, 3), pose[..., None, :])
    )
    turns = (rotation[:, 1:] - torch.eye(3)).flatten(1)
    coefficients = torch.cat((torch.ones(COUNT, 1), betas, turns), 1).numpy()
    transforms = model.transforms(rotation, betas).flatten(2).numpy()
    rows, chunk = whole(np.arange(COUNT), lanes), 2
    at = kernels_for(lanes).skinning.SkinInputs()
    at.coefficients, at.transforms = (lanes_of(x, lanes, rows) for x in (coefficients, transforms))
    at.target = unwritten(lanes, len(rows), len(model.v_template), 3)
    at.rows = wp.array(rows.astype(np.int32), dtype=int)
    chunks = -(-len(rows) // chunk)
    inputs = [
        smpl_skin(model, SIZE).skin,
        at,
        chunk,
        kernels_for(lanes).skinning.make_skin_scratch(chunks, SIZE, 0, "cpu"),
    ]
    kernel = kernels_for(lanes).skin_errors.target_skin
    wp.launch_tiled(kernel, dim=[chunks], inputs=inputs, block_dim=threads, device="cpu")
    assert np.abs(people_of(at.target, rows) - model.vertices(pose, betas).numpy()).max() < 1e-6


def test_each_joint_is_a_pair_with_itself() -> None:
    """Also a joint that holds none of the vertices: kernels read all cells of the root."""
    plan = stage_skin(body()[1], "with_root", "all", 2000, SIZE)
    tree = make_tree("with_root", plan.pairs)
    assert {(k, k) for k in range(len(tree.joints))} <= {tuple(pair) for pair in plan.pairs.tolist()}
    assert (moment_program(tree).cells[0, tree.owner] >= 0).all()
