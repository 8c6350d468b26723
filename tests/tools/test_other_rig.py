"""The open body on another rig: as official files are, symmetric, and a pair that no fit can make meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.model_set import ModelSet, load_models, open_models
from skelfit.bodies.open_body import SMPL_PARTNER, open_body_models
from skelfit.bodies.skel import SkelModel
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.fitter import Fitter
from tools.open_body_build.skel_rig import PARTNER as SKEL_PARTNER
from tools.other_rig import other_models, other_rig, write_other_rig

PIPELINE = Path(__file__).parents[2] / "pipelines" / "hmr-skel.yaml"
FLIP = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def raw() -> tuple[dict[str, Any], dict[str, Any]]:
    own = open_body_models()
    return own, other_rig(own)


@pytest.fixture(scope="module")
def other() -> ModelSet:
    return other_models()


def parts(model: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Template, weights and joint regressor of a model's own rig."""
    if "v_template" in model:
        return model["v_template"], model["weights"], model["J_regressor"].toarray()
    return model["skin_template_v"], model["skin_weights"].toarray(), model["J_regressor_osim"].toarray()


def test_both_rigs_differ_from_the_open_body(raw: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for name, own in raw[0].items():
        one, two = parts(own), parts(raw[1][name])
        template, weights, regressor = two
        assert own.keys() == raw[1][name].keys()
        assert np.abs(weights.sum(1) - 1).max() < 1e-9 and weights.min() >= 0
        assert (weights > 0).sum(1).max() <= (4 if "smpl" in name else 5)
        assert np.abs(regressor.sum(1) - 1).max() < 1e-9
        # Joints lie elsewhere in the body than a change of proportions alone takes them.
        shift = np.linalg.norm((regressor - one[2]) @ template, axis=1)
        assert 5e-3 < shift.mean() < 2e-2 and shift.max() < 4e-2
        assert np.abs(weights - one[1]).sum(1).mean() > 0.02
        assert np.ptp(template[:, 1]) > np.ptp(one[0][:, 1]) + 0.02  # taller
        assert np.ptp(template[:, 0]) < np.ptp(one[0][:, 0]) - 0.02  # of shorter arms
    smpl, skel = raw[1]["smpl_male"], raw[1]["skel_male"]
    apart = np.linalg.norm(smpl["v_template"] - skel["skin_template_v"], axis=1)
    assert 1e-3 < apart.mean() < 3e-3


def test_it_is_as_symmetric_as_the_open_body(raw: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for name in ("smpl_neutral", "skel_female"):
        template = parts(raw[0][name])[0].astype(np.float64)
        order, mirror = np.lexsort(np.round(template, 5).T), np.lexsort(np.round(template * FLIP, 5).T)
        partner = np.empty(len(template), np.int64)
        partner[order] = mirror
        skin, weights, regressor = parts(raw[1][name])
        joints = np.asarray(SMPL_PARTNER if "smpl" in name else SKEL_PARTNER)
        assert np.abs(skin[partner] * FLIP - skin).max() < 2e-6
        uneven = np.abs(weights[partner][:, joints] - weights).max(1)
        aside = partner != np.arange(len(partner))
        # On the midline a left and a right weight tie, and rounding may say which of them is too many.
        assert uneven[aside].max() < 1e-5 and uneven.max() < 0.05
        places = regressor @ skin
        assert np.abs(places[joints] * FLIP - places).max() < 1e-5


def test_skel_rests_on_its_own_joints(raw: tuple[dict[str, Any], dict[str, Any]], other: ModelSet) -> None:
    """What the file says of the bones is that of its joints: at beta 0 no bone is turned or stretched."""
    model = SkelModel(other.skel_of("male"), dtype=torch.float64)
    asset = other.skel_of("male")
    frames = model.frames(torch.zeros(1, 10, dtype=torch.float64))
    own = SkelModel(open_models().skel_of("male"), dtype=torch.float64)
    same = own.frames(torch.zeros(1, 10, dtype=torch.float64))
    assert (frames.frame - same.frame).abs().max() < 1e-5  # the axes of the joints are the open body's
    joints = torch.tensor(asset.J_regressor_osim, dtype=torch.float64) @ model.v_template
    assert (frames.joints[0] - joints).abs().max() < 1e-6


def test_its_bodies_fit_each_other_about_as_the_open_bodys_do(other: ModelSet) -> None:
    fitter = Fitter(other, load_pipeline(PIPELINE).fit)
    labels = make_labels(16, "male")["everyday"]
    result = fitter.fit("male", labels.pose, labels.betas, labels.transl)
    assert result.converged.all()
    assert 5 < result.pve_mm.mean() < 8 and result.pve_mm.min() > 2


@pytest.mark.soak
def test_the_command_writes_it(other: ModelSet, tmp_path: Path) -> None:
    result = CliRunner().invoke(write_other_rig, ["--out", str(tmp_path / "assets")])
    assert result.exit_code == 0, result.output
    assert load_models(tmp_path / "assets").sha256 == other.sha256 != open_models().sha256
    official = CliRunner().invoke(write_other_rig, ["--out", str(tmp_path / "official"), "--official"])
    assert official.exit_code == 0, official.output
    assert len(list((tmp_path / "official").glob("*.pkl"))) == 5
