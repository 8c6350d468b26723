"""Neutral labels read as another body's, as SKEL-CF does: the fit, the rows, what is refused, the study."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from job_fakes import make_run, write_labels
from torch import Tensor

from skelfit.api.run_shards import convert_run
from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.fit_settings import RootPrior, SpineConfig
from skelfit.config.manifest import LabelSource
from skelfit.config.pipeline import Pipeline, load_pipeline
from skelfit.config.pipeline_choice import chosen_pipeline
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.run_fitter import make_fitter, make_mesh_fitter
from skelfit.conversion.run_plan import LabelFile
from skelfit.errors import ConfigError
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.start.betas_transfer import beta_map
from skelfit.labels.label_store import build_store, store_info
from skelfit.shards.finished_run import open_run
from skelfit.shards.shard_files import list_shards
from skelfit.shards.shard_reader import read_rows
from skelfit.verification.gates import parse_gates
from skelfit.verification.integrity.run_folder import open_run_folder
from skelfit.verification.verify_shard import plan_verify, verify_shard
from tools.studies import betas as betas_study
from tools.studies import protocol
from tools.studies.setup import Setup

PIPELINES = Path(__file__).parents[2] / "pipelines"


@pytest.fixture(scope="module")
def theirs() -> Pipeline:
    return load_pipeline(PIPELINES / "skel-cf.yaml")


def fit(models: ModelSet, pipeline: Pipeline, gender: str, people: int = 8) -> FitResult:
    labels = make_labels(people, "neutral")["everyday"]
    return Fitter(models, pipeline.fit).fit(gender, labels.pose, labels.betas, labels.transl)


def skin(models: ModelSet, result: FitResult) -> Tensor:
    skel = SkelModel(models.skel_of("male"))
    return skel.forward(skel.shape(result.betas), result.poses, result.trans).vertices


def test_the_pipeline_differs_from_ours_as_it_says(theirs: Pipeline) -> None:
    ours = load_pipeline(PIPELINES / "hmr-skel.yaml")
    held = tuple(replace(stage, refine_betas=False) for stage in ours.fit.stages)
    loose = SpineConfig(*(replace(tie, weight=0.0) for tie in vars(ours.fit.spine).values()))
    changed = replace(
        ours.fit, neutral_target="gendered", betas="copy", temporal=None, spine=loose, stages=held
    )
    assert theirs == replace(ours, name="skel-cf", fit=changed)
    assert held != ours.fit.stages


def test_neutral_labels_are_fitted_as_those_of_the_male_body(models: ModelSet, theirs: Pipeline) -> None:
    """To the bit; errors are those to the male mesh, and betas are the labels' numbers."""
    labels = make_labels(8, "neutral")["everyday"]
    result, male = fit(models, theirs, "neutral"), fit(models, theirs, "male")
    for field in dataclasses.fields(FitResult):
        one, other = getattr(result, field.name), getattr(male, field.name)
        assert torch.equal(one, other), field.name
    assert torch.equal(result.betas, labels.betas)
    pve = {}
    for gender in ("male", "neutral"):
        mesh = SmplModel(models.smpl_of(gender)).vertices(labels.pose, labels.betas, labels.transl)
        pve[gender] = 1000 * (skin(models, result) - mesh).norm(dim=-1).mean(1)
    torch.testing.assert_close(result.pve_mm, pve["male"], rtol=0, atol=2e-3)
    assert (pve["neutral"] > 2 * pve["male"]).all()


def test_copied_betas_are_the_labels_and_may_be_refined(models: ModelSet, theirs: Pipeline) -> None:
    labels = make_labels(8, "neutral")["everyday"]
    smpl, skel = SmplModel(models.smpl_of("neutral")), SkelModel(models.skel_of("male"))
    offset, matrix = beta_map(smpl, skel, "copy")
    assert torch.equal(offset + labels.betas @ matrix.mT, labels.betas)
    own_mesh = replace(theirs, fit=replace(theirs.fit, neutral_target="neutral"))
    held = fit(models, own_mesh, "neutral")
    assert torch.equal(held.betas, labels.betas)
    stages = load_pipeline(PIPELINES / "hmr-skel.yaml").fit.stages
    refining = replace(own_mesh.fit, stages=stages)
    refined = fit(models, replace(own_mesh, fit=refining), "neutral")
    transferred = fit(models, replace(own_mesh, fit=replace(refining, betas="transfer")), "neutral")
    assert refined.pve_mm.mean() < 0.7 * held.pve_mm.mean()
    # The start of betas does not change their end.
    torch.testing.assert_close(refined.pve_mm, transferred.pve_mm, rtol=0.02, atol=0)


def test_options_without_effect_are_refused(models: ModelSet, tmp_path: Path) -> None:
    text = (PIPELINES / "skel-cf.yaml").read_text()
    for change, key, expected in (
        (
            ("skel_gender: male", "skel_gender: best"),
            "fit.skel_gender",
            "male or female, with neutral_target",
        ),
        (
            ("joint_weight: 0.01}", "refine_betas: true}"),
            "fit.stages[1].refine_betas",
            "false, with neutral_t",
        ),
    ):
        path = tmp_path / "p.yaml"
        path.write_text(text.replace(*change))
        with pytest.raises(ConfigError) as caught:
            load_pipeline(path)
        assert caught.value.key == key and caught.value.expected.startswith(expected)
    with pytest.raises(ConfigError, match="two targets cannot tell"):
        chosen_pipeline(PIPELINES / "skel-cf.yaml", skel_gender="best")
    assert chosen_pipeline(PIPELINES / "skel-cf.yaml", skel_gender="female").fit.skel_gender == "female"


def test_meshes_are_refused(models: ModelSet, theirs: Pipeline) -> None:
    with pytest.raises(ConfigError, match="neutral_target: gendered, found bare meshes"):
        make_mesh_fitter(models, theirs, "cpu")
    copied = replace(theirs, fit=replace(theirs.fit, neutral_target="neutral"))
    with pytest.raises(ConfigError, match=r"labels with SMPL parameters, for betas: copy, found bare meshes"):
        make_mesh_fitter(models, copied, "cpu")


def test_a_root_prior_is_refused_for_meshes(models: ModelSet) -> None:
    free = load_pipeline(PIPELINES / "free-root.yaml")
    turning = replace(free, fit=replace(free.fit, root="turn"))
    with pytest.raises(ConfigError, match=r"labels with SMPL parameters, for root: turn, found bare meshes"):
        make_mesh_fitter(models, turning, "cpu")
    held = replace(free, fit=replace(free.fit, root_prior=RootPrior(turn=1.0)))
    with pytest.raises(
        ConfigError, match=r"parameters, for root_prior: turn 1, move 0.01, found bare meshes"
    ):
        make_mesh_fitter(models, held, "cpu")
    # A free root is what meshes have.
    assert make_mesh_fitter(models, free, "cpu")


def test_shards_say_whose_mesh_was_fitted(
    models: ModelSet, theirs: Pipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In rows, metadata, identity and on the screen; and `verify` measures against that mesh."""
    labels = write_labels(tmp_path / "people.npz", 6)
    store = build_store(LabelSource(labels.name, "camerahmr"), labels, tmp_path / "stores")
    info = store_info(store)
    run = replace(
        make_run(tmp_path / "unused", 1),
        out=str(tmp_path / "out"),
        models_sha256=models.sha256,
        pipeline=theirs,
        labels=(LabelFile(str(store), labels.name, info.sha256, info.rows, "camerahmr", "neutral", "none"),),
    )
    with caplog.at_level("INFO", logger="skelfit"):
        convert_run(run, work=partial(convert_batch, fitter=make_fitter(models, theirs, "cpu")))
    remark = "neutral labels were read as male ones: errors are to those meshes, not to the labels' own"
    assert remark in caplog.text
    people = list(open_run(tmp_path / "out").people())
    assert people and all(p.meta["target_gender"] == "male" for p in people)
    assert all(p.meta["smpl_gender"] == "neutral" for p in people)
    rows = [row for files in list_shards(tmp_path / "out", run.subset) for row in read_rows(files.sidecar)]
    assert {(row["target_gender"], row["status"] in ("ok", "limit_violation")) for row in rows} == {
        ("male", True),
        (None, False),
    }
    assert run.identity()["pipeline"]["fit"]["neutral_target"] == "gendered"
    runs = [open_run_folder(tmp_path / "out")]
    for task in plan_verify(runs, None, models.sha256, None, parse_gates(()), keep=False, ground=False):
        report = verify_shard(task)
        assert report.check.damage == () and report.measured > 0


def test_the_study(models: ModelSet, theirs: Pipeline) -> None:
    """The male target is best by its own mesh, and by far worst by the label's."""
    ours = load_pipeline(PIPELINES / "hmr-skel.yaml")
    records = protocol.run(Setup(models, ours, "cpu", 8, ("neutral",), None, lambda _: None))
    for kind in ("everyday", "extreme"):
        mean = {
            r["way"]: (r["to_target_mm"]["mean"], r["to_label_mm"]["mean"])
            for r in records
            if r["poses"] == kind
        }
        assert list(mean) == [protocol.OURS, protocol.COPIED, protocol.HELD, protocol.THEIRS]
        assert mean[protocol.THEIRS][0] < mean[protocol.OURS][0] < mean[protocol.HELD][0]
        assert mean[protocol.OURS][0] == pytest.approx(mean[protocol.OURS][1], abs=2e-3)
        assert mean[protocol.THEIRS][1] > 1.5 * mean[protocol.OURS][1]
    assert records[0]["turned_deg"] is None and records[3]["turned_deg"]["p95"] > 1
    lines = protocol.text(records)
    assert len(lines) == 9 and "male target" in lines[4]
    for study in (protocol, betas_study):
        with pytest.raises(
            ConfigError, match=r"skel-cf: 'fit.neutral_target': expected neutral, for this study"
        ):
            study.run(Setup(models, theirs, "cpu", 1, ("neutral",), None, lambda _: None))
