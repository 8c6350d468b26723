"""A root that may turn and move: what it costs, where it ends, and that all else holds as with a frozen one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from backends import assert_same_bits
from golden_fit import hurried
from torch import Tensor

from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.dofs import dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.fit_settings import FitConfig, RootPrior
from skelfit.config.pipeline import load_pipeline
from skelfit.errors import ConfigError
from skelfit.fitting import schedule
from skelfit.fitting.fit_result import FitResult, map_results
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.passes import VALUE
from skelfit.fitting.sequences.frame_index import Frames
from skelfit.fitting.start.retry import Retried, retry_failed
from skelfit.fitting.terms.spine_coupling import spine_couplings
from tools.studies.motions import make_motion

PIPELINES = Path(__file__).parents[2] / "pipelines"
PEOPLE = 24


@pytest.fixture(scope="module")
def config() -> FitConfig:
    return load_pipeline(PIPELINES / "free-root.yaml").fit


def labels(gender: str = "male", count: int = PEOPLE) -> list[Tensor]:
    """Pose, betas and transl of everyday and extreme people."""
    made = make_labels(count // 2, gender)
    return [torch.cat([getattr(m, name) for m in made.values()]) for name in ("pose", "betas", "transl")]


@pytest.fixture(scope="module")
def by_root(models: ModelSet, config: FitConfig) -> dict[str, FitResult]:
    roots = ("frozen", "turn", "free")
    return {root: Fitter(models, replace(config, root=root)).fit("male", *labels()) for root in roots}


def root_of(
    models: ModelSet, found: FitResult, people: list[Tensor], gender: str = "male"
) -> tuple[Tensor, Tensor]:
    """How far the root is turned, (N, 3, 3) in the label's frame, and moved, (N, 3) m, by the public models."""
    pose, betas, transl = people
    smpl, skel = SmplModel(models.smpl_of(gender)), SkelModel(models.skel_of("male"))
    rot, frames = roma.rotvec_to_rotmat(pose[:, 0]), skel.frames(found.betas)
    turned = skel.joints(frames, found.poses).rot[:, 0] @ rot.mT
    # SKEL's root joint at rest, carried along by the rigid motion of SMPL's root.
    at, pivot = frames.joints[:, 0], smpl.root_joint(betas)
    there = (rot @ (at - pivot)[..., None])[..., 0] + pivot + transl
    return turned, at + found.trans - there


@pytest.mark.parametrize("gender", ["male", "neutral"])
def test_result_and_objective_are_what_the_public_models_give(
    gender: str, models: ModelSet, config: FitConfig
) -> None:
    people = labels(gender)
    fitter = Fitter(models, config)
    found = fitter.fit(gender, *people)
    smpl, skel = SmplModel(models.smpl_of(gender)), SkelModel(models.skel_of("male"))
    body = skel.forward(skel.shape(found.betas), found.poses, found.trans)
    target = smpl.vertices(*people)
    away = body.vertices - target
    assert (1000 * away.norm(dim=-1).mean(1) - found.pve_mm).abs().max() < 0.02
    assert (body.joints - found.joints).abs().max() < 1e-5

    turned, moved = root_of(models, found, people, gender)
    (pair,) = fitter.prepare(gender)
    assert pair.locator is not None
    off = pair.locator(target) - found.joints[:, list(pair.locator.joints)]
    low, high = torch.tensor(dof_limits()).float().unbind(-1)
    excess = torch.relu(found.poses - high) + torch.relu(low - found.poses)
    angle = roma.rotmat_to_rotvec(turned).norm(dim=1)
    assert angle.max() > 0.05 and moved.norm(dim=1).max() > 5e-3
    terms = [
        away.square().sum(-1).mean(1),
        config.limit_weight * excess.square().sum(1),
        config.stages[-1].joint_weight * off.square().sum((1, 2)),
        config.root_prior.turn * 2 * (1 - torch.cos(angle)),
        config.root_prior.move * moved.square().sum(1),
        (found.poses @ torch.tensor(spine_couplings(config.spine)).float().mT).square().sum(1),
    ]
    if gender == "neutral":
        terms.append(config.beta_weight * found.betas.square().sum(1))
    torch.testing.assert_close(found.objective, torch.stack(terms).sum(0), rtol=1e-3, atol=1e-9)


def test_what_is_not_free_stays_the_labels(models: ModelSet, by_root: dict[str, FitResult]) -> None:
    eye = torch.eye(3)
    for root, found in by_root.items():
        turned, moved = root_of(models, found, labels())
        assert found.converged.all()
        assert ((turned - eye).abs().max() < 1e-5) == (root == "frozen")
        assert (moved.abs().max() < 1e-5) == (root != "free")


def test_each_freedom_fits_better(by_root: dict[str, FitResult]) -> None:
    """Person by person the objective, its prior included; the extreme people come last."""
    frozen, turn, free = (by_root[root].objective for root in ("frozen", "turn", "free"))
    assert (turn < 1.001 * frozen).all() and (free < 1.001 * turn).all()
    assert free.mean() < 0.97 * turn.mean() < 0.95 * frozen.mean()


def test_a_strong_prior_is_a_frozen_root(
    models: ModelSet, config: FitConfig, by_root: dict[str, FitResult]
) -> None:
    held = replace(config, root_prior=RootPrior(turn=100.0, move=1e4))
    found = Fitter(models, held).fit("male", *labels())
    assert (found.pve_mm - by_root["frozen"].pve_mm).abs().max() < 0.02
    turned, moved = root_of(models, found, labels())
    assert (turned - torch.eye(3)).abs().max() < 2e-4 and moved.abs().max() < 2e-5
    # One of them holds what the other leaves free.
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
def test_answers_do_not_depend_on_company(root: str, models: ModelSet, config: FitConfig) -> None:
    """Also of those who are tried from other starts, which few steps make many need."""
    few = replace(hurried(config), root=root, batch=16)
    people = labels()
    expected = Fitter(models, few).fit("male", *people)
    assert not Fitter(models, replace(few, retries=0)).fit("male", *people).converged.all()
    for rows in (torch.arange(PEOPLE - 1, -1, -1), torch.tensor([20]), torch.tensor([3, 22, 7])):
        found = Fitter(models, few).fit("male", *(x[rows] for x in people))
        assert_same_bits(found, map_results(lambda x, rows=rows: x[rows], expected))


def test_a_second_chance_brings_its_own_translation(
    models: ModelSet, config: FitConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever attempt a person's answer is of, it is whole: its skin is where it says it is."""
    tried: list[Retried] = []

    def watched(*given: object) -> Retried:
        tried.append(retry_failed(*given))
        return tried[-1]

    monkeypatch.setattr(schedule, "retry_failed", watched)
    # What converges is taken, and what does not is worse: so that some attempts are and others are not.
    strict = replace(hurried(config), passes=replace(config.passes, converged_gain=1e-5, converged_floor=0.0))
    people = labels()
    found = Fitter(models, strict).fit("male", *people)
    (second,) = tried
    taken = second.score < second.x[:, -6 + VALUE]
    assert (second.retries > 1).any() and taken.any()
    skel, smpl = SkelModel(models.skel_of("male")), SmplModel(models.smpl_of("male"))
    skin = skel.forward(skel.shape(found.betas), found.poses, found.trans).vertices
    pve = 1000 * (skin - smpl.vertices(*people)).norm(dim=-1).mean(1)
    assert (pve - found.pve_mm).abs().max() < 0.02
    # The last stage's own value is that of angles and translation together.
    once = Fitter(models, replace(strict, retries=0)).fit("male", *people)
    torch.testing.assert_close(second.x[:, -6 + VALUE], found.objective, rtol=5e-3, atol=0)
    assert (found.objective <= 1.03 * once.objective).all()


def test_a_root_is_free_in_a_stage_of_all_joints_only(tmp_path: Path) -> None:
    text = (PIPELINES / "free-root.yaml").read_text().replace("dofs: all", "dofs: upper_body")
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"fit.root.*frozen.*upper_body"):
        load_pipeline(tmp_path / "p.yaml")


def test_frames_of_a_sequence_share_a_root_that_moves_smoothly(models: ModelSet, config: FitConfig) -> None:
    """Fitted as one problem, where what ties the frames ties the root's turn, too; the skin is where it says it is."""
    motion = make_motion("kick", 40)
    people = [torch.from_numpy(x) for x in (motion.pose, motion.betas, motion.transl)]
    alone = Fitter(models, replace(config, temporal=None)).fit("male", *people)
    together = Fitter(models, config).fit("male", *people, Frames(np.zeros(40, np.int64), motion.time))
    assert together.converged.all() and together.pve_mm.mean() < 1.02 * alone.pve_mm.mean()
    skel, smpl = SkelModel(models.skel_of("male")), SmplModel(models.smpl_of("male"))
    skin = skel.forward(skel.shape(together.betas), together.poses, together.trans).vertices
    pve = 1000 * (skin - smpl.vertices(*people)).norm(dim=-1).mean(1)
    assert (pve - together.pve_mm).abs().max() < 0.02
    steps = []
    for found in (alone, together):
        turned, moved = root_of(models, found, people)
        assert roma.rotmat_to_rotvec(turned).norm(dim=1).max() > 5e-3 and moved.norm(dim=1).max() > 1e-3
        between = turned[:-1].mT @ turned[1:]
        steps.append(roma.rotmat_to_rotvec(between).norm(dim=1).square().mean().sqrt())
    assert steps[1] < steps[0]
