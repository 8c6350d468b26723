"""A free root: its prior, its result, and all that holds as with a frozen root."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roma
import torch
from backends import assert_same_bits
from golden_fit import hurried
from label_tensors import Labels, labels_from
from torch import Tensor

from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.dofs import dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.fit_settings import FitConfig, RootMode, RootPrior
from skelfit.config.manifest import Gender
from skelfit.config.pipeline import load_pipeline
from skelfit.errors import ConfigError
from skelfit.fitting import schedule
from skelfit.fitting.fit_result import FitResult, map_results
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.passes import VALUE
from skelfit.fitting.sequences.frame_index import FrameIndex
from skelfit.fitting.start.restarts import RetryResult, retry_failed
from skelfit.fitting.terms.spine_coupling import spine_couplings
from tools.studies.motions import make_motion

PIPELINES = Path(__file__).parents[2] / "pipelines"
PEOPLE = 24


@pytest.fixture(scope="module")
def config() -> FitConfig:
    return load_pipeline(PIPELINES / "free-root.yaml").fit


def labels(gender: Gender = "male", count: int = PEOPLE) -> Labels:
    """Pose, betas and transl of everyday and extreme people."""
    made = make_labels(count // 2, gender)
    return labels_from(
        torch.cat([getattr(m, name) for m in made.values()]) for name in ("pose", "betas", "transl")
    )


@pytest.fixture(scope="module")
def by_root(models: ModelSet, config: FitConfig) -> dict[str, FitResult]:
    roots: tuple[RootMode, ...] = ("frozen", "turn", "free")
    return {root: Fitter(models, replace(config, root=root)).fit("male", *labels()) for root in roots}


def root_of(
    models: ModelSet, result: FitResult, people: Labels, gender: str = "male"
) -> tuple[Tensor, Tensor]:
    """The root's rotation (N, 3, 3) and translation (N, 3) m away from the label's, by the public models."""
    pose, betas, transl = people
    smpl, skel = SmplModel(models.smpl_of(gender)), SkelModel(models.skel_of("male"))
    rot, frames = roma.rotvec_to_rotmat(pose[:, 0]), skel.frames(result.betas)
    turned = skel.joints(frames, result.poses).rot[:, 0] @ rot.mT
    # SKEL's root joint at rest, carried along by the rigid motion of SMPL's root.
    at, pivot = frames.joints[:, 0], smpl.root_joint(betas)
    carried = (rot @ (at - pivot)[..., None])[..., 0] + pivot + transl
    return turned, at + result.trans - carried


@pytest.mark.parametrize("gender", ["male", "neutral"])
def test_result_and_objective_are_those_of_the_public_models(
    gender: Gender, models: ModelSet, config: FitConfig
) -> None:
    people = labels(gender)
    fitter = Fitter(models, config)
    result = fitter.fit(gender, *people)
    smpl, skel = SmplModel(models.smpl_of(gender)), SkelModel(models.skel_of("male"))
    body = skel.forward(skel.shape(result.betas), result.poses, result.trans)
    target = smpl.vertices(*people)
    away = body.vertices - target
    assert (1000 * away.norm(dim=-1).mean(1) - result.pve_mm).abs().max() < 0.02
    assert (body.joints - result.joints).abs().max() < 1e-5

    turned, moved = root_of(models, result, people, gender)
    (pair,) = fitter.prepare(gender)
    assert pair.locator is not None
    off = pair.locator(target) - result.joints[:, list(pair.locator.joints)]
    low, high = torch.tensor(dof_limits()).float().unbind(-1)
    excess = torch.relu(result.poses - high) + torch.relu(low - result.poses)
    angle = roma.rotmat_to_rotvec(turned).norm(dim=1)
    assert angle.max() > 0.05 and moved.norm(dim=1).max() > 5e-3
    terms = [
        away.square().sum(-1).mean(1),
        config.limit_weight * excess.square().sum(1),
        config.stages[-1].joint_weight * off.square().sum((1, 2)),
        config.root_prior.turn * 2 * (1 - torch.cos(angle)),
        config.root_prior.move * moved.square().sum(1),
        (result.poses @ torch.tensor(spine_couplings(config.spine)).float().mT).square().sum(1),
    ]
    if gender == "neutral":
        terms.append(config.beta_weight * result.betas.square().sum(1))
    torch.testing.assert_close(result.objective, torch.stack(terms).sum(0), rtol=1e-3, atol=1e-9)


def test_what_is_not_free_stays_as_in_the_label(models: ModelSet, by_root: dict[str, FitResult]) -> None:
    eye = torch.eye(3)
    for root, result in by_root.items():
        turned, moved = root_of(models, result, labels())
        assert result.converged.all()
        assert ((turned - eye).abs().max() < 1e-5) == (root == "frozen")
        assert (moved.abs().max() < 1e-5) == (root != "free")


def test_each_freedom_fits_better(by_root: dict[str, FitResult]) -> None:
    """Person by person, by the objective with its prior."""
    frozen, turn, free = (by_root[root].objective for root in ("frozen", "turn", "free"))
    assert (turn < 1.001 * frozen).all() and (free < 1.001 * turn).all()
    assert free.mean() < 0.97 * turn.mean() < 0.95 * frozen.mean()


def test_a_strong_prior_is_a_frozen_root(
    models: ModelSet, config: FitConfig, by_root: dict[str, FitResult]
) -> None:
    held = replace(config, root_prior=RootPrior(turn=100.0, move=1e4))
    result = Fitter(models, held).fit("male", *labels())
    assert (result.pve_mm - by_root["frozen"].pve_mm).abs().max() < 0.02
    turned, moved = root_of(models, result, labels())
    assert (turned - torch.eye(3)).abs().max() < 2e-4 and moved.abs().max() < 2e-5
    # Each of the two weights holds its own part of the root.
    for prior in (RootPrior(turn=100.0), RootPrior(move=1e4)):
        turned, moved = root_of(
            models, Fitter(models, replace(config, root_prior=prior)).fit("male", *labels()), labels()
        )
        assert (turned - torch.eye(3)).abs().max() > 1e-2 or prior.turn == 100.0
        assert moved.abs().max() > 1e-3 or prior.move == 1e4


def test_a_label_that_is_moved_moves_the_root_and_nothing_else(models: ModelSet, config: FitConfig) -> None:
    fitter, (pose, betas, transl) = Fitter(models, config), labels()
    before = fitter.fit("male", pose, betas, transl)
    turn = roma.random_rotmat(1)[0]
    other = pose.clone()
    other[:, 0] = roma.rotmat_to_rotvec(turn @ roma.rotvec_to_rotmat(pose[:, 0]))
    pivot = SmplModel(models.smpl_of("male")).root_joint(betas)
    away = torch.tensor([1.0, -2.0, 3.0])
    after = fitter.fit("male", other, betas, (pivot + transl) @ turn.mT - pivot + away)
    assert torch.equal(after.poses[:, 3:], before.poses[:, 3:])
    assert (after.joints - (before.joints @ turn.mT + away)).abs().max() < 1e-5


@pytest.mark.parametrize("root", ["turn", "free"])
def test_answers_do_not_depend_on_the_batch(root: RootMode, models: ModelSet, config: FitConfig) -> None:
    """Also of people with restarts: with few steps many need them."""
    short = replace(hurried(config), root=root, batch=16)
    people = labels()
    expected = Fitter(models, short).fit("male", *people)
    assert not Fitter(models, replace(short, retries=0)).fit("male", *people).converged.all()
    for rows in (torch.arange(PEOPLE - 1, -1, -1), torch.tensor([20]), torch.tensor([3, 22, 7])):
        result = Fitter(models, short).fit("male", *labels_from(x[rows] for x in people))
        assert_same_bits(result, map_results(lambda x, rows=rows: x[rows], expected))


def test_a_restart_brings_its_own_translation(
    models: ModelSet, config: FitConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Angles and translation of an answer are of one attempt: its skin is where it says it is."""
    tried: list[RetryResult] = []

    def watched(*arguments: Any) -> RetryResult:
        tried.append(retry_failed(*arguments))
        return tried[-1]

    monkeypatch.setattr(schedule, "retry_failed", watched)
    # A converged answer is taken, another one is not: here some attempts converge.
    narrow = replace(hurried(config), passes=replace(config.passes, converged_gain=1e-5, converged_floor=0.0))
    people = labels()
    result = Fitter(models, narrow).fit("male", *people)
    (second,) = tried
    taken = second.score < second.x[:, -6 + VALUE]
    assert (second.retries > 1).any() and taken.any()
    skel, smpl = SkelModel(models.skel_of("male")), SmplModel(models.smpl_of("male"))
    skin = skel.forward(skel.shape(result.betas), result.poses, result.trans).vertices
    pve = 1000 * (skin - smpl.vertices(*people)).norm(dim=-1).mean(1)
    assert (pve - result.pve_mm).abs().max() < 0.02
    # The last stage's own value is that of angles and translation together.
    once = Fitter(models, replace(narrow, retries=0)).fit("male", *people)
    torch.testing.assert_close(second.x[:, -6 + VALUE], result.objective, rtol=5e-3, atol=0)
    assert (result.objective <= 1.03 * once.objective).all()


def test_a_root_is_free_in_a_stage_of_all_joints_only(tmp_path: Path) -> None:
    text = (PIPELINES / "free-root.yaml").read_text().replace("dofs: all", "dofs: upper_body")
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"fit.root.*frozen.*upper_body"):
        load_pipeline(tmp_path / "p.yaml")


def test_frames_of_a_sequence_share_a_root_that_moves_smoothly(models: ModelSet, config: FitConfig) -> None:
    """The ties between frames tie the root's turn too; the skin is where the result says it is."""
    motion = make_motion("kick", 40)
    people = labels_from(torch.from_numpy(x) for x in (motion.pose, motion.betas, motion.transl))
    alone = Fitter(models, replace(config, temporal=None)).fit("male", *people)
    together = Fitter(models, config).fit("male", *people, FrameIndex(np.zeros(40, np.int64), motion.time))
    assert together.converged.all() and together.pve_mm.mean() < 1.02 * alone.pve_mm.mean()
    skel, smpl = SkelModel(models.skel_of("male")), SmplModel(models.smpl_of("male"))
    skin = skel.forward(skel.shape(together.betas), together.poses, together.trans).vertices
    pve = 1000 * (skin - smpl.vertices(*people)).norm(dim=-1).mean(1)
    assert (pve - together.pve_mm).abs().max() < 0.02
    steps = []
    for result in (alone, together):
        turned, moved = root_of(models, result, people)
        assert roma.rotmat_to_rotvec(turned).norm(dim=1).max() > 5e-3 and moved.norm(dim=1).max() > 1e-3
        between = turned[:-1].mT @ turned[1:]
        steps.append(roma.rotmat_to_rotvec(between).norm(dim=1).square().mean().sqrt())
    assert steps[1] < steps[0]
