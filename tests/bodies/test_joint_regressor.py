"""Regressors of joints for evaluations: files that users bring, told by their size, and the open body's stand-ins."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import sparse

from skelfit.bodies.joint_regressor import import_joints, joint_regressor
from skelfit.bodies.model_set import ModelSet, load_models, save_models
from skelfit.cli import main
from skelfit.errors import ModelError, OutputError

RNG = np.random.default_rng(0)
H36M = RNG.dirichlet(np.ones(6890), 17)
MALE = RNG.dirichlet(np.ones(6890), 24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models: ModelSet) -> Path:
    path = tmp_path_factory.mktemp("models")
    male_only = replace(models, smpl={"male": models.smpl["male"]}, skel={}, joint_regressors={})
    save_models(male_only, path)
    return path


def test_published_files_by_the_command(folder: Path, tmp_path: Path) -> None:
    """As they are published: an array, and a pickle of a sparse array."""
    np.save(tmp_path / "J_regressor_h36m.npy", H36M)
    (tmp_path / "J_regressor_SMPL_MALE.pkl").write_bytes(pickle.dumps(sparse.csc_matrix(MALE), protocol=2))
    before = load_models(folder)
    with pytest.raises(ModelError, match="models import --joints J_regressor_h36m.npy"):
        joint_regressor(before, "h36m17")
    # Without its file, the regressor of SMPL's male body is that of the male body.
    np.testing.assert_array_equal(joint_regressor(before, "smpl_male24"), before.smpl["male"].J_regressor)
    files = [f"--joints={tmp_path / name}" for name in ("J_regressor_h36m.npy", "J_regressor_SMPL_MALE.pkl")]
    done = CliRunner().invoke(main, ["models", "import", *files, "--out", str(folder)])
    assert done.exit_code == 0 and "joints_h36m17.npz" in done.output, done.output
    after = load_models(folder)
    np.testing.assert_allclose(joint_regressor(after, "h36m17"), H36M, rtol=1e-6)
    np.testing.assert_allclose(joint_regressor(after, "smpl_male24"), MALE, rtol=1e-6)
    assert after.sha256 == before.sha256  # no body is made with them
    with pytest.raises(OutputError, match="exists already"):
        import_joints(tmp_path / "J_regressor_h36m.npy", folder)
    without = replace(before, smpl={}, source="elsewhere")
    with pytest.raises(
        ModelError, match=r"elsewhere: 'joints_smpl_male24.npz': .*--joints J_regressor_SMPL_MALE.pkl"
    ):
        joint_regressor(without, "smpl_male24")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((19, 6890)), r"shape \(17, 6890\) or \(24, 6890\), found shape \(19, 6890\)"),
        (np.full((17, 6890), np.nan), "finite numbers"),
        (np.full((17, 6890), "a"), "found dtype"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    np.save(tmp_path / "file.npy", content)
    with pytest.raises(ModelError, match=message):
        import_joints(tmp_path / "file.npy", tmp_path)


def test_stand_ins_of_the_open_body(models: ModelSet, tmp_path: Path) -> None:
    """Human3.6M's joints lie where SMPL's do, left and right not exchanged; and they are saved with the bodies."""
    table = joint_regressor(models, "h36m17").astype(float)
    body = models.smpl["neutral"]
    joints = table @ body.v_template
    smpl = body.J_regressor.astype(float) @ body.v_template
    for h36m, name in (
        (0, 0),
        (1, 1),
        (2, 4),
        (3, 7),
        (4, 2),
        (5, 5),
        (6, 8),
        (12, 18),
        (13, 20),
        (15, 19),
        (16, 21),
    ):
        assert np.linalg.norm(joints[h36m] - smpl[name]) < 0.08, (h36m, name)
    assert joints[0, 1] < joints[7, 1] < joints[8, 1] < joints[9, 1] < joints[10, 1]
    save_models(models, tmp_path)
    np.testing.assert_array_equal(load_models(tmp_path).joint_regressors["h36m17"], table.astype("f4"))
