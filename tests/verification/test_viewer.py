"""`skelfit view`: find a person, pose the meshes by sliders, and the message without viser."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from export_fakes import make_fields, make_metas, write_run

from skelfit.bodies.dofs import dof_index, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.cli import main
from skelfit.shards.shard_files import ShardError
from skelfit.verification.report.gallery import find_person

viser = pytest.importorskip("viser", reason="viser is not installed")
from skelfit.verification.report.viewer import Viewer, slider_range  # noqa: E402

KNEE = dof_index("knee_angle_r")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", make_fields(12), make_metas(12))


@pytest.fixture
def viewer(folder: Path, models: ModelSet) -> Iterator[Viewer]:
    shown = Viewer("people-0-00000010", find_person(folder, "people-0-00000010"), models, 0)
    yield shown
    shown.stop()


def test_a_person_is_found_in_any_shard(folder: Path) -> None:
    assert find_person(folder, "people-0-00000010").meta["row"] == 10
    with pytest.raises(ShardError, match="people-0-00000099.: expected a key of one of the shards"):
        find_person(folder, "people-0-00000099")
    with pytest.raises(ShardError, match="expected a folder with finished shards"):
        find_person(folder / "none", "people-0-00000010")


def test_a_slider_reaches_its_limits_and_the_stored_angle() -> None:
    limits = np.degrees(dof_limits())
    assert slider_range(limits[KNEE], 20.0) == (-30.0, 165.0)
    assert slider_range(limits[KNEE], -70.5) == (-71.0, 165.0)
    assert slider_range(limits[0], 200.2) == (-180.0, 201.0)


def test_sliders_pose_skin_and_bones(viewer: Viewer, folder: Path, models: ModelSet) -> None:
    sample = find_person(folder, "people-0-00000010")
    assert len(viewer.sliders) == 46
    before: Any = viewer.skin.vertices.copy()
    bones: Any = viewer.bones.vertices.copy()
    slider: Any = viewer.sliders[KNEE]  # viser types its value as read-only
    slider.value = 90.0
    viewer.repose()
    model = SkelModel(models.skel_of(sample.meta["skel_gender"]))
    moved = np.linalg.norm(viewer.skin.vertices - before, axis=1)
    shank = model.weights.numpy()[:, 2] > 0.99
    elsewhere = model.weights.numpy()[:, [1, 2, 3, 4, 5]].sum(1) == 0
    # Poses move the skin near a joint a little by themselves; the trunk stays where it was.
    assert moved[shank].min() > 0.01 and np.median(moved[elsewhere]) < 1e-4
    assert np.abs(viewer.bones.vertices - bones).max() > 0.1
    assert "PVE" in viewer.figures.content
    viewer.back()
    np.testing.assert_allclose(viewer.skin.vertices, before, atol=1e-6)


def test_without_viser_the_command_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["view", str(folder), "people-0-00000010"])
    assert result.exit_code == 2 and "pip install 'skelfit[view]'" in result.output


def test_the_command_names_a_key_that_is_not_there(folder: Path) -> None:
    result = CliRunner().invoke(main, ["view", str(folder), "no-such-key", "--no-open"])
    assert result.exit_code == 2 and "no-such-key" in result.output
