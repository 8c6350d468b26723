"""SMPL fitted to SKEL: against float64 torch, known poses, and the way there and back."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache

import pytest
import torch
from backends import NEAR
from torch import Tensor

from skelfit.benchmark.device.launch_counter import recording
from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.dofs import NUM_DOFS, SKEL_PARENTS
from skelfit.bodies.lazy_roma import roma
from skelfit.bodies.model_set import open_models
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.manifest import Gender
from skelfit.config.pipeline_choice import chosen_pipeline
from skelfit.config.smpl_settings import SmplFitConfig
from skelfit.fitting.backends.backend import Backend, make_backend
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.smpl_fitter import SOURCES, SmplFit, SmplFitter

PEOPLE = 24
LAUNCHES, READS = 30, 12  # of a batch, at most
CASES = [(gender, kind) for gender in ("male", "female") for kind in ("everyday", "extreme")]


@cache
def first_fitter() -> Fitter:
    return Fitter(open_models(), chosen_pipeline("hmr-skel", None).fit)


@cache
def first_fit(gender: Gender, kind: str) -> FitResult:
    """SKEL fitted to made-up labels."""
    labels = make_labels(PEOPLE, gender)[kind]
    return first_fitter().fit(gender, labels.pose, labels.betas, labels.transl)


@cache
def fitter() -> SmplFitter:
    return SmplFitter(open_models())


@cache
def back(gender: str, kind: str) -> SmplFit:
    people = first_fit(gender, kind)
    return fitter().fit(gender, people.poses, people.betas, people.trans)


@cache
def bodies(gender: str) -> tuple[SmplModel, SkelModel]:
    models = open_models()
    return (
        SmplModel(models.smpl_of(gender), dtype=torch.float64),
        SkelModel(models.skel_of(gender), dtype=torch.float64),
    )


def skel_skin(gender: str, people: FitResult) -> Tensor:
    model = bodies(gender)[1]
    return model.forward(
        model.shape(people.betas.double()), people.poses.double(), people.trans.double()
    ).vertices


def smpl_skin(gender: str, fit: SmplFit) -> Tensor:
    return bodies(gender)[0].vertices(fit.pose.double(), fit.betas.double(), fit.transl.double())


def distance_mm(a: Tensor, b: Tensor) -> Tensor:
    return 1000 * (a - b).norm(dim=-1)


@pytest.mark.parametrize("gender, kind", CASES)
def test_the_skins_are_as_near_as_the_fit_says(gender: str, kind: str) -> None:
    fit = back(gender, kind)
    assert fit.finite.all() and fit.converged.all()
    distance = distance_mm(skel_skin(gender, first_fit(gender, kind)), smpl_skin(gender, fit))
    assert (distance.mean(1) - fit.pve_mm).abs().max() < 1e-3
    assert (distance.amax(1) - fit.max_vertex_mm).abs().max() < 2e-2
    mean, worst = {"everyday": (2.6, 5.0), "extreme": (5.5, 9.0)}[kind]
    assert fit.pve_mm.mean() < mean and fit.pve_mm.max() < worst
    # The two bodies have one shape space.
    assert (fit.betas - first_fit(gender, kind).betas).abs().max() < 1e-4


@pytest.mark.parametrize("gender, kind", CASES)
def test_there_and_back(gender: str, kind: str) -> None:
    """SKEL, SMPL, SKEL: less than 1 mm beyond the error of the first fit."""
    first, fit = first_fit(gender, kind), back(gender, kind)
    again = first_fitter().fit(gender, fit.pose, fit.betas, fit.transl)
    lost = distance_mm(skel_skin(gender, again), skel_skin(gender, first)).mean(1)
    assert (lost - fit.pve_mm).max() < 1
    assert lost.mean() < fit.pve_mm.mean()


class Naive:
    """The objective of one person, by torch in float64: all vertices, correctives at the given rotations, the prior."""

    def __init__(self, gender: str, kind: str, row: int) -> None:
        self.smpl, _ = bodies(gender)
        people = first_fit(gender, kind)
        self.target = skel_skin(gender, people)[row]
        fit = back(gender, kind)
        self.rotations = roma.rotvec_to_rotmat(fit.pose[row].double())
        self.betas, self.transl = fit.betas[row].double(), fit.transl[row].double()

    def residuals(self, x: Tensor) -> Tensor:
        """(3 V,) m, divided by the root of V, at rotation vectors and a translation x (75,) beside the fit's."""
        turned = roma.rotvec_to_rotmat(x[:72].reshape(24, 3)) @ self.rotations
        held = (self.rotations[1:] - torch.eye(3, dtype=torch.float64)).flatten()
        rest = self.smpl.v_template + self.smpl.shapedirs @ self.betas + self.smpl.posedirs @ held
        transforms = self.smpl.transforms(turned[None], self.betas[None])[0]
        blended = torch.einsum("vj,jrc->vrc", self.smpl.weights, transforms)
        skin = (blended[..., :3] @ rest[..., None])[..., 0] + blended[..., 3] + self.transl + x[72:]
        return (skin - self.target).flatten() / len(skin) ** 0.5


@pytest.mark.parametrize("gender, kind", [("male", "everyday"), ("female", "extreme")])
def test_no_step_gains_by_float64_torch(gender: str, kind: str) -> None:
    """Without a prior: Newton's model of the naive objective at the fit promises almost nothing."""
    models, people = open_models(), first_fit(gender, kind)
    without = SmplFitter(models, SmplFitConfig(turn_weight=0.0))
    fit = without.fit(gender, people.poses[:2], people.betas[:2], people.trans[:2])
    for row in range(2):
        naive = Naive(gender, kind, row)
        naive.rotations = roma.rotvec_to_rotmat(fit.pose[row].double())
        naive.transl = fit.transl[row].double()
        zero = torch.zeros(75, dtype=torch.float64)
        r = naive.residuals(zero)
        jacobian = torch.func.jacfwd(naive.residuals)(zero)
        step = torch.linalg.lstsq(jacobian, -r[:, None]).solution[:, 0]
        gain = (r @ r) - ((r + jacobian @ step) @ (r + jacobian @ step))
        assert gain < 2e-4 * (r @ r)
        # Far from the minimum the same model promises much.
        away = zero.clone()
        away[3:72] += 0.05
        far = naive.residuals(away)
        assert far @ far > 1.5 * (r @ r)


@pytest.mark.parametrize("gender", ["male", "female"])
def test_a_prior_holds_joints_to_those_of_skel(gender: str) -> None:
    """Objective with its prior: of fits with less and more weight, each has the lowest value of its own objective."""
    people = first_fit(gender, "extreme")
    args = [x[:8] for x in (people.poses, people.betas, people.trans)]
    fits = {
        w: SmplFitter(open_models(), SmplFitConfig(turn_weight=w)).fit(gender, *args) for w in (0.0, 1e-3)
    }
    free, held = fits[0.0], fits[1e-3]
    few = replace(people, poses=args[0], betas=args[1], trans=args[2])
    target = skel_skin(gender, few)
    error = {w: (smpl_skin(gender, fit) - target).square().sum(-1).mean(1) for w, fit in fits.items()}
    start = naive_start(gender, args[0], args[1])
    turned = {
        w: (3 - (roma.rotvec_to_rotmat(fit.pose.double()) * start).sum((-1, -2)))[:, 1:].sum(1)
        for w, fit in fits.items()
    }
    assert (error[0.0] < error[1e-3]).all() and (turned[1e-3] < 0.8 * turned[0.0]).all()
    assert (error[1e-3] + 1e-3 * turned[1e-3] < error[0.0] + 1e-3 * turned[0.0]).all()
    assert free.converged.all() and held.converged.all()


def naive_start(gender: str, poses: Tensor, betas: Tensor) -> Tensor:
    """SMPL's local rotations (B, 24, 3, 3) where the fit starts, by torch in float64; the root's is the identity."""
    smpl, skel = bodies(gender)
    local = skel.joints(skel.frames(betas.double()), poses.double()).local_rot
    turned = [torch.eye(3, dtype=torch.float64).expand(len(poses), 3, 3)]
    for j in range(1, 24):
        turned.append(turned[SKEL_PARENTS[j]] @ local[:, j])

    def halfway(a: int, b: int) -> Tensor:
        return turned[a] @ roma.rotvec_to_rotmat(0.5 * roma.rotmat_to_rotvec(turned[a].mT @ turned[b]))

    world = [halfway(a, b) for a, b in SOURCES]
    parents = smpl.parents.tolist()
    return torch.stack([world[0], *(world[parents[j]].mT @ world[j] for j in range(1, 24))], 1)


def test_the_t_pose_and_the_root_are_exact() -> None:
    count = 9
    random = torch.Generator().manual_seed(0)
    poses = torch.zeros(count, NUM_DOFS)
    poses[:, :3] = torch.randn(count, 3, generator=random)
    betas = torch.randn(count, 10, generator=random)
    trans = 5 * torch.randn(count, 3, generator=random)
    fit = fitter().fit("male", poses, betas, trans)
    _, skel = bodies("male")
    skin = skel.forward(skel.shape(betas.double()), poses.double(), trans.double()).vertices
    assert distance_mm(smpl_skin("male", fit), skin).mean(1).max() - fit.pve_mm.max() < 1e-3
    still = fitter().fit("male", torch.zeros_like(poses), betas, torch.zeros_like(trans))
    # The root is no part of the fit.
    assert torch.equal(still.pve_mm, fit.pve_mm)
    assert torch.equal(still.pose[:, 1:], fit.pose[:, 1:])


def test_bits_depend_neither_on_batch_nor_order_nor_threads() -> None:
    people = first_fit("male", "extreme")
    arrays = people.poses, people.betas, people.trans
    whole = back("male", "extreme")
    order = torch.randperm(PEOPLE, generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    small = replace(fitter().backend, batch_size=5)
    try:
        torch.set_num_threads(2)
        in_fives = SmplFitter(open_models(), backend=small).fit("male", *arrays)
    finally:
        torch.set_num_threads(threads)
    for other, rows in (
        (fitter().fit("male", *(x[order] for x in arrays)), order),
        (fitter().fit("male", *(x[3:4] for x in arrays)), slice(3, 4)),
        (in_fives, slice(None)),
    ):
        for f in fields(SmplFit):
            assert torch.equal(getattr(other, f.name), getattr(whole, f.name)[rows]), f.name


def test_a_batch_needs_few_launches_and_reads() -> None:
    """A GPU takes a few microseconds per launch, and longer each time the host waits."""
    counted, people = recording(make_backend("cpu")), first_fit("male", "extreme")
    solver = SmplFitter(open_models(), backend=counted)
    solver.prepare("male")
    counted.forget()
    solver.fit("male", people.poses, people.betas, people.trans)
    assert {"start_smpl", "solve_smpl", "posed_moments", "posed_errors"} <= set(counted.launches)
    assert sum(counted.launches.values()) <= LAUNCHES and len(counted.reads) <= READS, counted


def test_a_person_that_is_not_finite_changes_no_other() -> None:
    people, whole = first_fit("male", "everyday"), back("male", "everyday")
    poses, betas, trans = (x.clone() for x in (people.poses, people.betas, people.trans))
    poses[2, 30], betas[5, 1], trans[7, 2] = torch.nan, torch.inf, -torch.inf
    fit = fitter().fit("male", poses, betas, trans)
    lost = torch.isin(torch.arange(PEOPLE), torch.tensor([2, 5, 7]))
    assert torch.equal(fit.finite, ~lost) and not fit.converged[lost].any()
    for f in fields(SmplFit):
        assert torch.equal(getattr(fit, f.name)[~lost], getattr(whole, f.name)[~lost]), f.name


def test_nobody_gives_nothing() -> None:
    fit = fitter().fit("female", torch.zeros(0, NUM_DOFS), torch.zeros(0, 10), torch.zeros(0, 3))
    assert fit.pose.shape == (0, 24, 3) and fit.pve_mm.shape == (0,)


def test_backends_agree(backend: Backend) -> None:
    people, whole = first_fit("female", "everyday"), back("female", "everyday")
    few = [x[:6] for x in (people.poses, people.betas, people.trans)]
    fit = SmplFitter(open_models(), backend=backend).fit("female", *few)
    assert (fit.pve_mm - whole.pve_mm[:6]).abs().max() < NEAR.pve_mm
    assert (fit.pose - whole.pose[:6]).abs().max() < NEAR.angle
