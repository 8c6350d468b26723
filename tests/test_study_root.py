"""The studies of the root: figures that agree with each other, and that are what they are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import roma
import torch

from skelfit.bench import make_labels, same_objective
from skelfit.body.dofs import NUM_DOFS
from skelfit.body.models import ModelSet
from skelfit.config import Pipeline, RootPrior, load_pipeline
from skelfit.fit.fitter import Fitter
from skelfit.studies import rivals, root
from skelfit.studies.setup import Setup

PIPELINES = Path(__file__).parents[1] / "pipelines"


@pytest.fixture
def setup(models: ModelSet) -> Setup:
    pipeline = load_pipeline(PIPELINES / "free-root.yaml")
    return Setup(models, pipeline, "cpu", 16, ("male",), None, lambda _: None)


def test_root(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "PRIORS", ((0.0, 1.0), (100.0, 100.0)))
    records = root.run(setup)
    for kind in ("everyday", "extreme"):
        frozen, turn, free, loose, tight = (r for r in records if r["poses"] == kind)
        assert [r["root"] for r in (frozen, turn, free, loose, tight)] == ["frozen", "turn", *["free"] * 3]
        assert frozen["turn_deg"]["max"] == frozen["move_mm"]["max"] == 0
        assert turn["move_mm"]["max"] < 0.01 < 0.2 < turn["turn_deg"]["mean"]
        means = [r["pve_mm"]["mean"] for r in (loose, free, turn, frozen)]
        assert means[1] < means[2] < means[3] and means[0] < 1.01 * means[1]
        turns = [r["turn_deg"]["mean"] for r in (tight, free, loose)]
        assert turns == sorted(turns) and turns[0] < 0.5 * turns[1]
        assert tight["move_mm"]["mean"] < 0.5 * free["move_mm"]["mean"]
        # A pixel of such a crop is about 6 mm of a standing person.
        assert all(0.1 < r["picture_px"]["mean"] < r["pve_mm"]["mean"] / 6 for r in (frozen, turn, free))
    lines = root.text(records)
    assert len(lines) == 1 + len(records) and "100.00 %" in lines[1]


def test_how_far_a_root_went(setup: Setup) -> None:
    labels = make_labels(4, "male")["everyday"]
    found = Fitter(setup.models, replace(setup.fit, root="frozen")).fit(
        "male", labels.pose, labels.betas, labels.transl
    )
    still = root.went(found, found)
    assert (still["turn_deg"] < 0.1).all() and (still["move_mm"] == 0).all()
    poses, joints = found.poses.clone(), found.joints.clone()
    poses[1, 2] += 0.2  # the last axis applied: a turn by so much, whatever the others
    joints[2] += torch.tensor([0.0, 0.03, 0.04])
    off = root.went(found, replace(found, poses=poses, joints=joints))
    assert off["turn_deg"][1] == pytest.approx(11.459, abs=0.1) and off["move_mm"][2] == pytest.approx(
        50, abs=0.01
    )
    assert roma.is_rotation_matrix(root.pelvis_turn(torch.randn(3, NUM_DOFS)), epsilon=1e-5).all()


def test_a_picture_moves_by_what_a_person_moves(setup: Setup) -> None:
    """Sideways, in pixels of a crop whose side is 1.2 times the person's extent."""
    labels = make_labels(4, "male")["everyday"]
    fitter = Fitter(setup.models, replace(setup.fit, root="frozen"))
    found = fitter.fit("male", labels.pose, labels.betas, labels.transl)
    near = root.in_the_picture(setup.models, labels, found)
    far = root.in_the_picture(
        setup.models, labels, replace(found, trans=found.trans + torch.tensor([0.5, 0.0, 0.0]))
    )
    assert (near < 3).all()
    # Half a metre, of persons of 0.7 to 2.2 m.
    assert ((far > 256 / 1.2 * 0.5 / 2.4) & (far < 256 / 1.2 * 0.5 / 0.6)).all()


def test_rivals(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few iterations of the baseline lose; both fit the same people, who come from all seeds."""
    hurried = load_pipeline(PIPELINES / "first-order.yaml")
    stages = tuple(replace(s, steps=3) for s in hurried.fit.stages)
    asked: list[tuple[str, RootPrior]] = []

    def shortened(_: object) -> Pipeline:
        return replace(hurried, fit=replace(hurried.fit, stages=stages, batch=2))

    class Watched(rivals.FirstOrderFitter):
        def __init__(self, models: ModelSet, config: object, *rest: object) -> None:
            asked.append((config.root, config.root_prior))
            super().__init__(models, config, *rest)

    monkeypatch.setattr(rivals, "load_pipeline", shortened)
    monkeypatch.setattr(rivals, "FirstOrderFitter", Watched)
    fit = replace(setup.fit, root_prior=RootPrior(turn=3e-4))
    records = rivals.run(replace(setup, people=4, pipeline=replace(setup.pipeline, fit=fit)))
    assert [(r["poses"], r["root"]) for r in records] == [
        ("everyday", "frozen"), ("everyday", "free"), ("extreme", "frozen"), ("extreme", "free"),
    ]  # fmt: skip
    assert [root for root, _ in asked] == ["frozen", "free"] * 2 and {p for _, p in asked} == {fit.root_prior}
    for r in records:
        assert r["people"] == 6  # as many of each seed
        assert r["ahead"] == {"pve_mm": 1.0, "objective": 1.0}
        assert r["ours"]["pve_mm"]["mean"] < r["baseline"]["pve_mm"]["mean"]
        assert r["ours"]["objective_mm2"]["mean"] > r["ours"]["pve_mm"]["mean"] ** 2
    assert len(rivals.text(records)) == 1 + 8 + 4


def test_people_of_rivals_are_the_first_of_each_seed() -> None:
    few, more = rivals.draw(3, "male", "extreme"), rivals.draw(6, "male", "extreme")
    assert len(few) == 3 and len(more) == 6
    assert torch.equal(few.pose, more.pose[::2]) and few.pose.unique(dim=0).shape == few.pose.shape


def test_the_baseline_minimises_what_the_fit_does() -> None:
    ours = load_pipeline(PIPELINES / "free-root.yaml").fit
    theirs = load_pipeline(PIPELINES / "first-order.yaml").fit
    same = same_objective(replace(ours, limit_weight=1e-3, root_prior=RootPrior(move=0.5)), theirs)
    assert same.root == "free" and same.root_prior == RootPrior(move=0.5) and same.limit_weight == 1e-3
    assert [s.steps for s in same.stages] == [s.steps for s in theirs.stages] and same.batch == theirs.batch
