"""The studies: that each ends with figures that agree with each other, and that they measure what they say."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from scipy.spatial.transform import Rotation

import tools.studies.__main__
import tools.studies.loader
import tools.studies.loader_speed
from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.fitter import Fitter
from skelfit.labels.demo_people import extreme_labels
from tools.studies import STUDIES, bones
from tools.studies.__main__ import study_command
from tools.studies.mesh import make_meshes
from tools.studies.sensitivity import MovedFitter, fit_from, moved

Records = list[dict[str, Any]]
StudyCommand = Callable[..., tuple[Result, Records]]
PIPELINE = Path(__file__).parents[2] / "pipelines" / "hmr-skel.yaml"


@pytest.fixture
def study(models: ModelSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyCommand:
    """The command, and the records that it writes."""
    monkeypatch.setattr(tools.studies.__main__, "find_models", lambda _: models)

    def run(*args: object) -> tuple[Result, Records]:
        path = tmp_path / "study.json"
        given = ["--device", "cpu", "--json", path, *args]
        result = CliRunner().invoke(study_command, [str(a) for a in given])
        if result.exit_code:
            return result, []
        report = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert report["study"] in args and report["pipeline"] == "hmr-skel"
        return result, report["records"]

    return run


@pytest.mark.soak
def test_to_smpl(study: StudyCommand) -> None:
    result, records = study("to-smpl", "--people", 6)
    assert result.exit_code == 0, result.output
    assert [(r["gender"], r["poses"]) for r in records[::3]] == [("male", "everyday"), ("female", "extreme")]
    for r in records:
        assert r["converged"] == 1 and r["cpu_ms_per_person"] > 0
        # The way back follows SKEL's skin more closely than SKEL follows the label's.
        assert r["skel_2_from_skel_1_mm"]["mean"] < r["to_smpl_mm"]["mean"] < r["first_fit_mm"]["mean"]
        sides = r["first_fit_mm"]["mean"] + r["skel_2_from_skel_1_mm"]["mean"]
        assert abs(r["skel_2_from_label_mm"]["mean"] - r["first_fit_mm"]["mean"]) < sides


@pytest.mark.soak
def test_extreme(study: StudyCommand, tmp_path: Path) -> None:
    result, records = study("extreme", "--people", 24, "--picture", tmp_path / "worst.jpg")
    assert result.exit_code == 0, result.output
    assert [r["gender"] for r in records] == ["male", "neutral"]
    for r in records:
        assert r["people"] == 24 == sum(r["statuses"].values())
        assert r["not_finite"] == 0 and r["converged"] == 1 - r["not_converged"] / 24
        assert 3 < r["pve_mm"]["mean"] < r["pve_mm"]["p95"] < r["pve_mm"]["max"] < 60
        worst = [w["pve_mm"] for w in r["worst"] if w["status"] == "ok"]
        assert worst == sorted(worst, reverse=True) and len({w["person"] for w in r["worst"]}) == 20
        if r["converged"] == 1:
            assert worst[0] == pytest.approx(r["pve_mm"]["max"], abs=0.01)
    assert "not_converged" in result.output or "ok 24" in result.output
    with Image.open(tmp_path / "worst.jpg") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape[0] == 4 * 144 and pixels.std() > 20  # two lines of ten pairs for each gender


def test_sensitivity(study: StudyCommand) -> None:
    result, records = study("sensitivity", "--people", 12, "--gender", "male")
    assert result.exit_code == 0, result.output
    assert [(r["gender"], r["poses"]) for r in records] == [("male", "everyday"), ("male", "extreme")]
    for r in records:
        shares = list(r["share_below_rad"].values())
        assert shares == sorted(shares) and 0 < shares[-1] <= 1
        assert 0 < r["move_rad"]["p50"] <= r["move_rad"]["p99"] <= r["move_rad"]["max"]
        assert r["pve_change_mm"]["max"] < 1
        assert r["worst_dofs"][0]["p99_rad"] >= r["worst_dofs"][-1]["p99_rad"] > 0


@pytest.mark.soak
def test_bones(study: StudyCommand) -> None:
    """A body in its T-pose, in its mean shape, has its bones inside; right and left do not differ at rest."""
    result, records = study("bones", "--people", 4, "--gender", "male")
    assert result.exit_code == 0, result.output
    assert [(r["poses"], r["people"]) for r in records] == [
        (k, n) for k in ("everyday", "extreme") for n in (1, 4, 4, 4)
    ]
    for mean, shaped, bent, posed in (records[:4], records[4:]):
        assert mean["share"] < 1e-3 and shaped["share"] < posed["share"] < 0.1
        assert 0 < bent["share"] < 0.1 and mean["deepest_mm"]["max"] < 1 < posed["deepest_mm"]["max"]
        for name, share in shaped["joint_share"].items():
            other = name[:-2] + {"_r": "_l", "_l": "_r"}.get(name[-2:], name[-2:])
            assert share == pytest.approx(shaped["joint_share"][other], abs=0.003)
    assert "mean shape, at rest" in result.output


def test_bones_outside_are_counted(models: ModelSet) -> None:
    """One bone moved out of the skin: its share, no other bone's, and how far."""
    skel = copy(SkelModel(models.skel_of("male"), dtype=torch.float64))
    ribs = skel.asset.bone_weights_rigid.argmax(1) == 12
    skel.bone_v_template = skel.bone_v_template.clone()
    skel.bone_v_template[ribs] += torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    result = bones.figures(skel, torch.zeros(2, 10).double(), torch.zeros(2, 46).double())
    assert result["joint_share"]["thorax"] == 1 and result["share"] == pytest.approx(ribs.mean(), abs=1e-3)
    assert sum(result["joint_share"].values()) < 1.01 and 600 < result["deepest_mm"]["mean"] < 1000


def test_mesh(study: StudyCommand) -> None:
    result, records = study("mesh", "--people", 8)
    assert result.exit_code == 0, result.output
    assert [r["betas"] for r in records] == ["known", "unknown"]
    for r in records:
        assert r["meshes"] == 8 and r["finite"] == 1
        assert r["share_below_mm"]["0.1"] >= 0.75 and r["pve_mm"]["p50"] < 0.1


def test_images(study: StudyCommand) -> None:
    result, records = study("images", "--people", 12)
    assert result.exit_code == 0, result.output
    assert [(r["mode"], r["source"]) for r in records] == [
        ("bytes", "folder"),
        ("bytes", "tars"),
        ("crop", "folder"),
        ("crop", "tars"),
    ]
    assert all((r["images"], r["lost"], r["same_from_folder_and_tars"]) == (12, 0, True) for r in records)
    assert [r.get("differing") for r in records] == [0, 0, None, None]
    assert records[0]["bytes_out"] == records[1]["bytes_out"] != records[2]["bytes_out"]
    assert "folder and tars give the same bytes: yes" in result.output


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_loader(study: StudyCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.studies.loader, "_WORKERS", (0,))
    monkeypatch.setattr(tools.studies.loader, "_DRAWN", 5)
    result, records = study("loader", "--people", 130)
    assert result.exit_code == 0, result.output
    assert [(r["images"], r["workers"], r["samples"]) for r in records] == [(False, 0, 520), (True, 0, 130)]
    assert all(value > 0 for r in records for name, value in r.items() if name.endswith(("_second", "_ms")))
    assert "labels and photographs" in result.output
    gc.collect()  # webdataset leaves its files to the garbage collector, which warns


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_loader_speed(study: StudyCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.studies.loader, "_DRAWN", 5)
    for name, value in {"_WORKERS": 0, "_ROUNDS": 1, "_STEPPED": 16, "_RECIPES": ("train-hsmr",)}.items():
        monkeypatch.setattr(tools.studies.loader_speed, name, value)
    result, (record,) = study("loader-speed", "--people", 130)
    assert result.exit_code == 0, result.output
    assert record["recipe"] == "train-hsmr" and record["per_second"] > 0 < record["cpu_ms"]
    steps = record["steps_ms"]
    assert set(steps) == {"read", "decode", "cut", "colours", "batch"}
    assert sum(steps.values()) == pytest.approx(record["cpu_ms"]) and min(steps["read"], steps["decode"]) > 0
    gc.collect()


def test_invalid_options_are_refused(study: StudyCommand, tmp_path: Path) -> None:
    assert study("nothing")[0].exit_code == 2
    result, _ = study("mesh", "--picture", tmp_path / "a.jpg")
    assert result.exit_code == 2 and "draws nothing" in result.output
    result, _ = study("mesh", "--json", tmp_path / "no" / "such.json")
    assert result.exit_code == 2 and "such.json: cannot be written" in result.output


def test_help_names_the_studies() -> None:
    result = CliRunner().invoke(study_command, ["--help"])
    assert result.exit_code == 0 and all(f"{n}: {s.help}" in result.output for n, s in STUDIES.items())


def test_starts_are_moved_by_the_offset(models: ModelSet) -> None:
    """No offset is the fitter itself; an offset starts elsewhere and ends near; half a turn is the longest move."""
    config = load_pipeline(PIPELINE).fit
    labels = make_labels(6, "male")["everyday"]
    plain = Fitter(models, config).fit("male", labels.pose, labels.betas, labels.transl)
    fitter = MovedFitter(models, config)
    still = fit_from(fitter, labels, torch.zeros(6, 46))
    assert torch.equal(still.poses, plain.poses)
    offset = torch.zeros(6, 46)
    offset[3:, 9] = 0.1  # knees of the last three
    change = moved(still, fit_from(fitter, labels, offset)).angles
    assert (change[:3] < 1e-4).all() and (change[3:].amax(1) > 0).all() and change.max() < 0.05
    around = plain.poses.clone()
    around[:, 5] += 2 * torch.pi - 0.25
    assert moved(plain, replace(plain, poses=around)).angles[:, 5] == pytest.approx(0.25, abs=1e-5)


def test_ranges_of_extreme_people() -> None:
    """The same for any number, in ranges that are wider by what is asked, turned anyhow."""
    few, more = extreme_labels(3, 1, 0.1), extreme_labels(200, 1, 0.1)
    assert all(np.array_equal(a, b[:3]) for a, b in zip(few, more, strict=True))
    knee = {beyond: extreme_labels(200, 1, beyond)[0][:, 4, 0] for beyond in (0.0, 0.1)}
    assert knee[0.0].min() > -0.2 and knee[0.1].min() < -0.1 and knee[0.1].max() > 2.3
    turned = Rotation.from_rotvec(more[0][:, 0]).apply([0.0, 1.0, 0.0])
    assert (np.abs(turned.mean(0)) < 0.2).all() and (turned.std(0) > 0.5).all()


def test_meshes_are_those_of_skel(models: ModelSet) -> None:
    model = SkelModel(models.skel_of("male"))
    betas, mesh = make_meshes(model, 4, 0)
    again, same = make_meshes(model, 4, 0)
    assert torch.equal(mesh, same) and torch.equal(betas, again)
    tall = mesh.amax(1) - mesh.amin(1)
    assert mesh.shape == (4, 6890, 3) and (tall.norm(dim=-1) > 0.8).all() and (tall.norm(dim=-1) < 3.5).all()


@pytest.mark.soak
def test_topologies(study: StudyCommand) -> None:
    """A map adds to the fit at most what the map itself is off, and 10 percent."""
    result, records = study("topologies", "--people", 3)
    assert result.exit_code == 0, result.output
    assert [(r["vertices"], r["meshes"]) for r in records] == [(20664, 3), (13776, 3)]
    for r in records:
        assert 0.5 < r["templates_mm"] < 2 and 0.5 < r["map_mm"] < 2 and 2 < r["fit_mm"] < 6
        assert r["fit_mm"] - 0.1 < r["both_mm"] <= r["fit_mm"] + 1.1 * r["map_mm"]
