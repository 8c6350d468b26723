"""The start kernel against float64 torch functions: SMPL's joints and SKEL's betas and angles."""

from dataclasses import dataclass
from functools import cache, lru_cache
from math import pi

import lane_kernels
import numpy as np
import pytest
import torch
import warp as wp
from lane_kernels import LANES, OTHERS, SHAPES

from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS, dof_limits, limits_middle
from skelfit.bodies.lazy_roma import roma
from skelfit.bodies.model_set import open_models
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.fitting.backends.body_tables import body_tables
from skelfit.fitting.backends.kernels import kernels_for
from skelfit.fitting.backends.retraction_tables import make_balls
from skelfit.fitting.start.betas_transfer import beta_map
from skelfit.fitting.start.warm_start_tables import start_tables
from tools.studies.body_angles import body_angles

lane_kernels.prepare()
WIDER = dof_limits({"scapula_elevation_r": (-0.8, 0.3), "head_twist": (-1.5, 1.5)})


@dataclass(frozen=True)
class StartResult:
    """The start of B people."""

    transforms: np.ndarray  # (B, 24, 3, 4)
    coefficients: np.ndarray  # (B, 218)
    betas: np.ndarray  # (B, 10)
    q: np.ndarray  # (B, 46)


@lru_cache
def pair(dtype: torch.dtype) -> tuple[SmplModel, SkelModel]:
    models = open_models()
    return SmplModel(models.smpl_of("neutral"), "cpu", dtype), SkelModel(models.skel_of("male"), "cpu", dtype)


def start(
    pose: np.ndarray,
    betas: np.ndarray,
    lanes: int = LANES,
    threads: int = 1,
    limits: np.ndarray | None = None,
    slots: int | None = None,
) -> StartResult:
    """The kernel's start of labels: pose (B, 24, 3) rad, betas (B, 10)."""
    smpl, skel = pair(torch.float32)
    kernels, people, rows = kernels_for(lanes), len(pose), lane_kernels.rows_of(len(pose), lanes)
    groups, vector = len(rows), kernels.lanes.V
    # Groups of one thread run one after the other and may share a slot.
    slots = slots or (1 if threads == 1 else groups)
    transforms = wp.zeros((groups, NUM_JOINTS, 12), dtype=vector, device="cpu")
    coefficients = wp.zeros((groups, 218), dtype=vector, device="cpu")
    actual = [wp.zeros((people, n), dtype=float, device="cpu") for n in (10, NUM_DOFS)]
    inputs = [
        wp.array(pose.reshape(people, 72), dtype=float, device="cpu"),
        wp.array(betas, dtype=float, device="cpu"),
        rows,
        start_tables(smpl, skel, beta_map(smpl, skel), "cpu", limits),
        body_tables(skel, "cpu"),
        make_balls(range(NUM_JOINTS), range(NUM_DOFS), "cpu", limits),
        kernels.joint_frames.make_joint_frames(slots, "cpu"),
        kernels.smpl_joints.make_smpl_frames(slots, "cpu"),
        kernels.closed_form_start.make_start_scratch(slots, "cpu"),
        transforms,
        coefficients,
        *actual,
    ]
    wp.launch_tiled(
        kernels.closed_form_start.start, dim=[groups], inputs=inputs, block_dim=threads, device="cpu"
    )
    return StartResult(
        np.moveaxis(transforms.numpy(), -1, 1).reshape(-1, NUM_JOINTS, 3, 4)[:people],
        np.moveaxis(coefficients.numpy(), -1, 1).reshape(-1, 218)[:people],
        *(x.numpy() for x in actual),
    )


def reference(pose: np.ndarray, betas: np.ndarray, limits: np.ndarray | None = None) -> StartResult:
    """The same by torch, in doubles."""
    smpl, skel = pair(torch.float64)
    p, b = torch.from_numpy(pose).double(), torch.from_numpy(betas).double()
    local = roma.rotvec_to_rotmat(p)
    still = local.clone()
    still[:, 0] = torch.eye(3)
    offset, matrix = beta_map(smpl, skel)
    skel_betas = offset + b @ matrix.mT
    feature = (local[:, 1:] - torch.eye(3)).flatten(1)
    q = body_angles(skel.frames(skel_betas).frame, local, limits)
    coefficients = torch.cat((torch.ones(len(b), 1), b, feature), 1)
    actual = (smpl.transforms(still, b), coefficients, skel_betas, q)
    return StartResult(*(x.numpy() for x in actual))


PEOPLE = ("everyday", "extreme", "random")


@cache
def labels(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Poses (B, 24, 3), rad, and betas (B, 10)."""
    if name == "random":
        return random_labels()
    actual = make_labels(300, "neutral")[name]
    return actual.pose.numpy(), actual.betas.numpy()


def random_labels(people: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Random rotation vectors of up to three turns, some of them zero."""
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 1, (people, NUM_JOINTS, 3))
    pose *= rng.uniform(0, 6 * pi, (people, NUM_JOINTS, 1)) / np.linalg.norm(pose, axis=-1, keepdims=True)
    pose[::7, ::5] = 0
    pose[1::7, ::5] *= 1e-6
    return pose.astype(np.float32), rng.normal(0, 1.5, (people, 10)).astype(np.float32)


def gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The difference of angles, modulo whole turns."""
    return np.abs((a.astype(np.float64) - b + pi) % (2 * pi) - pi)


@pytest.mark.parametrize("name", PEOPLE)
def test_smpl_agrees_with_float64(name: str) -> None:
    actual, expected = start(*labels(name)), reference(*labels(name))
    loss = 3.0 if name == "random" else 1.0  # of angles of several turns, digits are lost
    assert np.abs(actual.transforms - expected.transforms).max() < 2e-6 * loss
    assert np.abs(actual.coefficients - expected.coefficients).max() < 1e-6 * loss
    assert np.abs(actual.betas - expected.betas).max() < 3e-6


@pytest.mark.parametrize("limits", [None, WIDER], ids=["usual", "wider"])
@pytest.mark.parametrize("name", PEOPLE)
def test_angles_agree_with_float64(name: str, limits: np.ndarray | None) -> None:
    actual, expected = start(*labels(name), limits=limits), reference(*labels(name), limits)
    distance = gap(actual.q, expected.q)
    # Near an Euler pole, and near a half turn of a twist, angles lose digits.
    assert np.median(distance.max(1)) < (3e-6 if name == "random" else 5e-7)
    assert distance.max() < (1e-4 if name == "random" else 1e-5)
    assert (actual.q[:, :3] == 0).all()
    middle = limits_middle(limits)
    assert (np.abs(actual.q - middle)[:, 3:] < pi + 1e-5).all()


@pytest.mark.parametrize("lanes, threads", SHAPES)
def test_bits_depend_neither_on_batch_nor_threads(lanes: int, threads: int) -> None:
    pose, betas = (x[:37] for x in labels("random"))
    actual = start(pose, betas, lanes, threads)
    order = np.random.default_rng(1).permutation(37)
    for other, rows in (
        (start(pose[order], betas[order], lanes, threads), order),
        (start(pose, betas), slice(None)),
        (start(pose, betas, slots=3), slice(None)),
    ):
        for name, rows_of_start in vars(actual).items():
            assert np.array_equal(getattr(other, name), rows_of_start[rows]), name


@pytest.mark.parametrize("lanes, threads", [(LANES, 1), OTHERS])
def test_a_person_that_is_not_finite_changes_no_other(lanes: int, threads: int) -> None:
    pose, betas = (x[:32].copy() for x in labels("everyday"))
    actual = start(pose, betas, lanes, threads)
    pose[5, 3], betas[21, 0] = np.nan, np.inf
    lost = np.isin(np.arange(32), (5, 21))
    again = start(pose, betas, lanes, threads)
    for name, rows_of_start in vars(actual).items():
        assert np.array_equal(getattr(again, name)[~lost], rows_of_start[~lost]), name
    assert not np.isfinite(again.coefficients[lost]).all(1).any()
