"""The studies of the root: figures that agree with each other, and that are what they are called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from skelfit.benchmark.fit_speed import Labels, make_labels, same_objective
from skelfit.bodies.model_set import ModelSet
from skelfit.config.fit_settings import FitConfig, RootPrior
from skelfit.config.manifest import Gender
from skelfit.config.pipeline import Pipeline, load_pipeline
from skelfit.fitting.baseline.first_order import FirstOrderFitter
from skelfit.fitting.fit_result import map_results
from skelfit.fitting.fitter import Fitter
from tools.studies import rivals, root
from tools.studies.setup import Setup

PIPELINES = Path(__file__).parents[2] / "pipelines"


@pytest.fixture
def setup(models: ModelSet) -> Setup:
    pipeline = load_pipeline(PIPELINES / "free-root.yaml")
    return Setup(models, pipeline, "cpu", 16, ("male",), None, lambda _: None)


@pytest.mark.soak
def test_root(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "PRIORS", ((0.0, 1.0), (100.0, 100.0)))
    records = root.run(setup)
    for kind in ("everyday", "extreme"):
        frozen, turn, free, loose, tight = (r for r in records if r["poses"] == kind)
        assert [r["root"] for r in (frozen, turn, free, loose, tight)] == ["frozen", "turn", *["free"] * 3]
        assert frozen["turn_deg"]["max"] < 0.1 and frozen["move_mm"]["max"] < 0.01
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


def only(labels: Labels, k: int) -> Labels:
    """The k-th of them alone."""
    return Labels(labels.gender, *(x[k : k + 1] for x in (labels.pose, labels.betas, labels.transl)))


@pytest.mark.parametrize("gender", ["male", "neutral"])
def test_changes_of_a_root(gender: Gender, setup: Setup) -> None:
    """From where the label has it, whatever the betas: they move its joint, and that is no move."""
    labels, config = make_labels(4, gender)["everyday"], replace(setup.fit, root="frozen")
    result = Fitter(setup.models, config).fit(gender, labels.pose, labels.betas, labels.transl)
    still = root.measure(setup.models, config, labels, result)
    assert (still["turn_deg"] < 0.1).all() and (still["move_mm"] < 0.01).all()
    poses, trans = result.poses.clone(), result.trans.clone()
    poses[1, 2] += 0.2  # the last axis applied: a turn by so much, whatever the others
    trans[2] += torch.tensor([0.0, 0.03, 0.04])
    off = root.measure(setup.models, config, labels, replace(result, poses=poses, trans=trans))
    assert off["turn_deg"][1] == pytest.approx(11.459, abs=0.1)
    assert off["move_mm"][2] == pytest.approx(50, abs=0.01)


def test_pairs_have_the_bodies_of_the_fit(setup: Setup) -> None:
    labels, config = make_labels(6, "neutral")["everyday"], replace(setup.fit, skel_gender="best")
    result = Fitter(setup.models, config).fit("neutral", labels.pose, labels.betas, labels.transl)
    assert result.female.any() and not result.female.all()
    measured = root.measure(setup.models, config, labels, result)
    for k, female in enumerate(result.female.tolist()):  # each is told of themselves
        one = map_results(lambda x, k=k: x[k : k + 1], result)
        alone = root.measure(setup.models, config, only(labels, k), one)
        assert alone["turn_deg"] == pytest.approx(float(measured["turn_deg"][k]), abs=1e-3), female
    assert (measured["turn_deg"] < 15).all() and (measured["picture_px"] < 3).all()
    gendered = replace(config, neutral_target="gendered")
    genders = [(p.smpl.gender, p.skel.gender) for p in root.pairs(setup.models, gendered, labels, result)]
    assert genders == [("male", "male"), ("female", "female")]


def test_distances_in_the_picture(setup: Setup) -> None:
    """Sideways, in pixels of a crop whose side is 1.2 times the person's extent."""
    labels, config = make_labels(4, "male")["everyday"], replace(setup.fit, root="frozen")
    result = Fitter(setup.models, config).fit("male", labels.pose, labels.betas, labels.transl)
    aside = replace(result, trans=result.trans + torch.tensor([0.5, 0.0, 0.0]))
    near, far = (root.measure(setup.models, config, labels, x)["picture_px"] for x in (result, aside))
    assert (near < 3).all()
    # Half a metre, of persons of 0.7 to 2.2 m.
    assert ((far > 256 / 1.2 * 0.5 / 2.4) & (far < 256 / 1.2 * 0.5 / 0.6)).all()


@pytest.mark.soak
def test_rivals(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few iterations of the baseline lose; both fit the same people, from all seeds."""
    hurried = load_pipeline(PIPELINES / "first-order.yaml")
    stages = tuple(replace(s, steps=3) for s in hurried.fit.stages)
    asked: list[tuple[str, RootPrior]] = []

    def shortened(_: object) -> Pipeline:
        return replace(hurried, fit=replace(hurried.fit, stages=stages, batch=2))

    class Watched(FirstOrderFitter):
        def __init__(self, models: ModelSet, config: FitConfig, *rest: Any) -> None:
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


def test_people_of_rivals_are_from_all_seeds() -> None:
    few, more = rivals.draw(3, "male", "extreme"), rivals.draw(6, "male", "extreme")
    assert len(few) == 3 and len(more) == 6
    assert torch.equal(few.pose, more.pose[::2]) and few.pose.unique(dim=0).shape == few.pose.shape


def test_the_baseline_minimises_what_the_fit_does() -> None:
    ours = load_pipeline(PIPELINES / "free-root.yaml").fit
    theirs = load_pipeline(PIPELINES / "first-order.yaml").fit
    same = same_objective(replace(ours, limit_weight=1e-3, root_prior=RootPrior(move=0.5)), theirs)
    assert same.root == "free" and same.root_prior == RootPrior(move=0.5) and same.limit_weight == 1e-3
    assert [s.steps for s in same.stages] == [s.steps for s in theirs.stages] and same.batch == theirs.batch
