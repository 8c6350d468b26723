"""The studies of joint limits, betas and shoulder targets, and the slow reference that they lean on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.dofs import DOF_NAMES, NUM_DOFS, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.config.manifest import Gender
from skelfit.config.pipeline import load_pipeline
from skelfit.errors import ConfigError
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.terms.shoulder_targets import make_locator
from tools.studies import betas, limits, neutral, shoulders
from tools.studies.reference import Priors, converge, lower, skin
from tools.studies.setup import Setup

PIPELINE = Path(__file__).parents[2] / "pipelines" / "hmr-skel.yaml"


def setup(models: ModelSet, people: int, gender: Gender) -> Setup:
    return Setup(models, load_pipeline(PIPELINE), "cpu", people, (gender,), None, lambda _: None)


@pytest.mark.soak
def test_limits(models: ModelSet) -> None:
    """More weight: less beyond the limits, more error; the pipeline's own weight is among them."""
    records = limits.run(setup(models, 24, "male"))
    assert [r["limit_weight"] for r in records[: len(limits.WEIGHTS)]] == sorted(limits.WEIGHTS)
    for kind in ("everyday", "extreme"):
        group = [r for r in records if r["poses"] == kind]
        beyond = [r["beyond_deg"]["5"] for r in group]
        assert beyond == sorted(beyond, reverse=True) and beyond[0] > beyond[-1]
        assert group[0]["pve_cost"] == 0 and group[-1]["pve_cost"] > 0.01
        assert sum(r["of_the_pipeline"] for r in group) == 1
        for r in group:
            shares = list(r["beyond_deg"].values())
            assert shares == sorted(shares, reverse=True)
            mean = np.mean([d["5"] for d in r["beyond_deg_by_dof"].values()])
            assert len(r["beyond_deg_by_dof"]) == 43 and mean == pytest.approx(shares[0])
    lines = "\n".join(limits.text(records))
    assert "then with 0.00015" in lines


def test_violations_are_counted_by_dof() -> None:
    middle = np.where(np.isfinite(dof_limits()), dof_limits(), 0).mean(1)
    poses = np.tile(middle, (4, 1))
    poses[:, :3] = 50  # the root has no limits
    knee = DOF_NAMES.index("knee_angle_r")
    poses[:, knee] = np.radians([-4, -7, -12, 166])
    result = limits.violations(poses, dof_limits())
    assert result["beyond_deg_by_dof"]["knee_angle_r"] == {"5": 0.75, "10": 0.5, "20": 0.25, "30": 0.25}
    assert result["beyond_deg"]["10"] == pytest.approx(0.5 / 43)
    assert limits.violations(poses, dof_limits({"knee_angle_r": (-1, 3)}))["beyond_deg"]["5"] == 0


@pytest.mark.soak
def test_betas(models: ModelSet) -> None:
    """The reference has the lowest objective; the fit is near it; the prior costs little and keeps betas small."""
    records = betas.run(setup(models, 3, "female"))
    assert {r["skel_gender"] for r in records} == {"female"}
    for kind in ("everyday", "extreme"):
        pve = {r["method"]: r["pve_mm"]["mean"] for r in records if r["poses"] == kind}
        assert pve[betas.FREE] < pve[betas.SLOW] < pve[betas.CLOSED]
        assert pve[betas.PRODUCT] < 1.1 * pve[betas.SLOW]
        largest = {r["method"]: r["largest_beta"]["p50"] for r in records if r["poses"] == kind}
        assert largest[betas.SLOW] < largest[betas.FREE]
    assert betas.SLOW in "\n".join(betas.text(records))


def test_the_reference_of_betas_has_a_frozen_root(models: ModelSet) -> None:
    given = setup(models, 3, "female")
    free = replace(given.pipeline, fit=replace(given.fit, root="free"))
    with pytest.raises(ConfigError, match="fit.root.*frozen, for this study, found free"):
        betas.run(replace(given, pipeline=free))


def test_the_distance_of_shape_spaces(models: ModelSet) -> None:
    """More betas are no further away; where a neutral body is SKEL's own, nothing is missing with all of them."""
    neutral_betas = make_labels(8, "neutral")["everyday"].betas
    records = list(neutral.floor(setup(models, 8, "neutral"), neutral_betas))
    mean = {(r["skel_gender"], r["betas"]): r["at_rest_mm"]["mean"] for r in records}
    for body in ("male", "female"):
        curve = [mean[body, k] for k in range(1, 11)]
        assert curve == sorted(curve, reverse=True) and 5 < curve[-1] < 0.8 * curve[0]
        assert mean["best", 10] < curve[-1]
    male = models.smpl_of("male")
    alike = replace(models, smpl=dict(models.smpl) | {"neutral": male})
    records = list(neutral.floor(setup(alike, 8, "neutral"), neutral_betas))
    assert records[9]["at_rest_mm"]["max"] < 1e-3 < records[8]["at_rest_mm"]["mean"]


@pytest.mark.soak
def test_neutral(models: ModelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What must hold of each question's figures: the better of both, more betas, shared betas, a heavier prior."""
    monkeypatch.setattr(neutral, "WEIGHTS", (0.0, 1e-5))
    records = neutral.run(setup(models, 16, "neutral"))

    def of(what: str, kind: str) -> list[dict[str, Any]]:
        return [r for r in records if r["what"] == what and r.get("poses", kind) == kind]

    for kind in ("everyday", "extreme"):
        bodies = {(r["labels"], r["skel_gender"]): r for r in of("bodies", kind)}
        pve = {key: r["pve_mm"]["mean"] for key, r in bodies.items()}
        rest = {key: r["rest_pve_mm"]["mean"] for key, r in bodies.items()}
        assert pve["neutral", "best"] < min(pve["neutral", "male"], pve["neutral", "female"])
        assert 0 < bodies["neutral", "best"]["female"] < 1 and bodies["neutral", "female"]["female"] == 1
        assert (
            rest["male", "male"]
            < 2
            < rest["neutral", "best"]
            < rest["neutral", "male"]
            < pve["neutral", "male"]
        )
        shared = {r["betas"]: (r["pve_mm"]["mean"], r["spread"]) for r in of("rows", kind)}
        own, most, closed = (shared[k] for k in ("each row's own", "mean of 16 rows", "closed form"))
        assert own[0] < most[0] < closed[0] and own[1] > shared["mean of 4 rows"][1] > most[1] == 0
        prior = of("prior", kind)
        assert [r["beta_weight"] for r in prior] == [0.0, 1e-6, 1e-5]
        assert sum(r["of_the_pipeline"] for r in prior) == 1
        for what, name in (("pve_mm", "mean"), ("largest_beta", "p50")):
            values = [r[what][name] for r in prior]
            assert values == sorted(values, reverse=what == "largest_beta")
    lines = neutral.text(records)
    assert sum("is the floor of the shapes" in line for line in lines) == 6
    with pytest.raises(ConfigError, match="neutral, for this study"):
        neutral.run(setup(models, 16, "male"))


@pytest.mark.soak
def test_the_reference_recovers_known_people(models: ModelSet) -> None:
    """SKEL's own meshes: pose and betas together, to far below what float32 resolves."""
    model = SkelModel(models.skel_of("male"), dtype=torch.float64)
    true_q, true_betas = (
        0.2 * torch.randn(2, NUM_DOFS, dtype=torch.float64),
        torch.randn(2, 10, dtype=torch.float64),
    )
    true_q[:, :3] = 0
    target, _ = skin(model, torch.cat((true_q, true_betas), 1))
    whole = model.forward(model.shape(true_betas), true_q).vertices
    assert (target - whole).abs().max() < 1e-12  # the same body as the product's
    free = Priors(torch.tensor(dof_limits()), 0.0, 0.0)
    start = true_q + 0.05 * torch.randn_like(true_q)
    result = converge(model, target, start, torch.zeros_like(true_betas), free)
    assert (result.pve < 1e-6).all() and (result.betas - true_betas).abs().max() < 1e-3
    # Joints that the mesh has elsewhere draw the answer away from it.
    locator = make_locator(model, free.limits)
    drawn = converge(model, target, start, true_betas, replace(free, locator=locator, joint_weight=0.3))
    shoulders = locator(target)
    off = [
        (skin(model, torch.cat((r.q, r.betas), 1))[1][:, list(locator.joints)] - shoulders)
        .norm(dim=-1)
        .mean()
        for r in (result, drawn)
    ]
    assert (drawn.pve > result.pve).all() and off[1] < off[0]
    worse = converge(model, target, start, torch.zeros_like(true_betas), Priors(free.limits, 0.0, 1e-3))
    assert (worse.objective > result.objective).all()
    assert torch.equal(lower(worse, result).q, result.q) and torch.equal(lower(result, worse).q, result.q)


@pytest.mark.soak
def test_shoulders(models: ModelSet) -> None:
    """Known people are found again; a heavy weight costs accuracy, as the located joints are a few millimetres off."""
    records = shoulders.run(setup(models, 12, "male"))
    assert [r["joint_weight"] for r in records] == [*shoulders.WEIGHTS] * 2
    everyday = [r for r in records if r["poses"] == "everyday"]
    assert all(0.2 < r["known"]["humerus_mm"] < 8 and r["known"]["scapula_deg"] < 8 for r in everyday)
    assert everyday[-1]["pve_mm"]["mean"] > everyday[0]["pve_mm"]["mean"]
    assert everyday[-1]["known"] != everyday[0]["known"]
    assert len(shoulders.text(records)) == 2 + len(records)


def test_known_meshes_have_the_residuals_of_fits(models: ModelSet) -> None:
    config = load_pipeline(PIPELINE).fit
    labels = make_labels(6, "male")["everyday"]
    fitter = Fitter(models, config)
    result = fitter.fit("male", labels.pose, labels.betas, labels.transl)
    (pair,) = fitter.prepare("male")
    known = shoulders.make_known(pair, labels, result)
    skin = pair.skel.forward(pair.skel.shape(known.betas), known.q).vertices
    off = 1000 * (skin - known.meshes).norm(dim=-1).mean(1)
    assert (off - result.pve_mm.roll(1, 0)).abs().max() < 0.05  # carried over, turned, not stretched
    low, high = pair.limits.unbind(-1)
    assert ((known.q >= low) & (known.q <= high)).all() and (known.q[:, :3] == 0).all()
