"""The first-order baseline: the solver's objective, its own pipeline, the same kind of result."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from label_tensors import Labels, labels_from
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.fit_settings import FirstOrderConfig, RootMode, RootPrior
from skelfit.config.manifest import LabelSource
from skelfit.config.pipeline import Pipeline, load_pipeline
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.run_fitter import make_fitter
from skelfit.conversion.run_plan import LabelFile, Run, plan_shards
from skelfit.conversion.shard_batch import cut_batches
from skelfit.conversion.shard_outcome import ShardResult
from skelfit.executors.dask_tasks import run_tasks
from skelfit.fitting.baseline import first_order
from skelfit.fitting.baseline.first_order import FirstOrderFitter, judge, minimise
from skelfit.fitting.baseline.naive_objective import NaiveObjective
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import PairFitter
from skelfit.labels.demo_people import sample_labels, write_demo
from skelfit.labels.label_store import build_store, store_info
from skelfit.shards.shard_reader import read_rows

pytestmark = pytest.mark.soak  # half a minute of a core and more, of code that seldom changes

PIPELINES = Path(__file__).parents[2] / "pipelines"


def short(steps: int, **changes: Any) -> Pipeline:
    """The baseline's pipeline with a few iterations per stage."""
    pipeline = load_pipeline(PIPELINES / "first-order.yaml")
    assert pipeline.first_order is not None
    stages = tuple(replace(stage, steps=steps) for stage in pipeline.fit.stages)
    return replace(
        pipeline,
        fit=replace(pipeline.fit, stages=stages),
        first_order=replace(pipeline.first_order, **changes),
    )


def fit(models: ModelSet, pipeline: Pipeline, people: int, gender: str = "male") -> tuple[FitResult, Labels]:
    labels = labels_from(torch.from_numpy(x) for x in sample_labels(people, 5, 0.0))
    assert pipeline.first_order is not None
    fitter = FirstOrderFitter(models, pipeline.fit, pipeline.first_order)
    return fitter.fit(gender, *labels), labels


@pytest.mark.parametrize("root", ["frozen", "turn", "free"])
def test_objective_is_that_of_the_result(
    root: RootMode, models: ModelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all vertices, pose correctives included, with limits, shoulders and betas: the one that `Fitter` reports."""
    seen: list[tuple[NaiveObjective, Tensor]] = []

    def watched(goal: NaiveObjective, x: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((goal, x))
        return judge(goal, x)

    monkeypatch.setattr(first_order, "judge", watched)
    pipeline = short(2)
    pipeline = replace(pipeline, fit=replace(pipeline.fit, root=root, root_prior=RootPrior(0.05, 0.5)))
    result, _ = fit(models, pipeline, 3, "neutral")
    # Stage by stage, two people at a time.
    assert [len(goal.om) for goal, _ in seen[::2]] == sorted({len(goal.om) for goal, _ in seen})
    assert [goal.joints is None for goal, _ in seen[::2]] == [True, False, False]
    value = torch.cat([goal.value(x) for goal, x in seen[-2:]])
    torch.testing.assert_close(value, result.objective, rtol=1e-4, atol=0)
    decrease = torch.cat([judge(goal, x)[1] for goal, x in seen[-2:]])
    torch.testing.assert_close(decrease / value, result.gain)
    # The root is free in the last stage alone, and moves.
    assert [bool((goal.dofs == 0).any()) for goal, _ in seen[::2]] == [False, False, root != "frozen"]
    last, x = seen[-1]
    cost = value[-1:] - replace(last, turn_weight=0.0, move_weight=0.0, free_translation=False).value(x)
    assert (last.translation(x).abs().max() > 1e-4) == (root == "free")
    turned = last.parts(x)[0][:, :3].abs().max()
    assert (turned > 1e-3) == (root != "frozen") and (cost != 0).any() == (root != "frozen")


def test_a_step_gains_what_it_promises(models: ModelSet) -> None:
    """Near a minimum; at the minimum no step promises anything."""
    model = SkelModel(models.skel_of("male"), dtype=torch.float64).with_vertices(torch.arange(0, 6890, 20))
    betas = torch.randn(2, 10, dtype=torch.float64)
    q = 0.3 * torch.randn(2, NUM_DOFS, dtype=torch.float64)
    target, om = model.forward(model.shape(betas), q).vertices, torch.full((345,), 1 / 345).double()
    free = torch.tensor([[-torch.inf, torch.inf]]).double().expand(NUM_DOFS, 2)
    goal = NaiveObjective(model, om, target, torch.arange(3, NUM_DOFS), q, betas, free, 0.0)
    x = goal.start + 1e-3 * torch.randn_like(goal.start)
    value, decrease = judge(goal, x)
    torch.testing.assert_close(decrease, value, rtol=2e-2, atol=0)
    assert (judge(goal, goal.start)[1] < 1e-20).all()


@pytest.mark.parametrize(
    ("config", "iterations", "tolerance"),
    [(FirstOrderConfig("lbfgs"), 30, 1e-6), (FirstOrderConfig("adam", learning_rate=0.05), 400, 1e-4)],
)
def test_both_methods_find_a_known_minimum(
    config: FirstOrderConfig, iterations: int, tolerance: float
) -> None:
    """A quadratic of two variables, as small as squared errors in metres."""
    a, b = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    curvature = torch.tensor([1.0, 3.0, 10.0, 30.0], dtype=torch.float64)

    def goal(x: Tensor, y: Tensor) -> Tensor:
        return 1e-4 * ((curvature * (x - a).square()).sum(1) + (y - b).square().sum(1))

    x, y = minimise(goal, [torch.zeros_like(a), torch.zeros_like(b)], iterations, config)
    assert not x.requires_grad
    assert (x - a).abs().max() < tolerance and (y - b).abs().max() < tolerance


@pytest.mark.parametrize("changes", [{}, {"method": "adam", "learning_rate": 0.02}])
def test_more_iterations_fit_better(models: ModelSet, changes: dict[str, Any]) -> None:
    less, _ = fit(models, short(2, **changes), 2)
    more, _ = fit(models, short(20, **changes), 2)
    assert (more.pve_mm < 0.7 * less.pve_mm).all()
    assert less.stage_pve_mm.shape == (2, 3)
    assert not less.converged.any() and less.finite.all()


def test_the_start_is_the_configured_one(models: ModelSet) -> None:
    zero, _ = fit(models, short(1, start="zero"), 2)
    closed_form, _ = fit(models, short(1, start="closed_form"), 2)
    assert (closed_form.stage_pve_mm[:, 0] < 0.6 * zero.stage_pve_mm[:, 0]).all()


def test_the_result_is_that_of_the_public_models(models: ModelSet) -> None:
    """In the label's frame, betas refined: the root is as exact as the solver's."""
    result, (pose, betas, transl) = fit(models, short(4), 2, "neutral")
    smpl, skel = SmplModel(models.smpl_of("neutral")), SkelModel(models.skel_of("male"))
    skin = skel.forward(skel.shape(result.betas), result.poses, result.trans).vertices
    pve = 1000 * (skin - smpl.vertices(pose, betas, transl)).norm(dim=-1).mean(1)
    assert (pve - result.pve_mm).abs().max() < 0.02


def test_the_pipeline_runs_through_the_job(models: ModelSet, tmp_path: Path) -> None:
    pipeline = short(2)
    fitter = make_fitter(models, pipeline, "cpu")
    assert isinstance(fitter, FirstOrderFitter)
    assert not isinstance(
        make_fitter(models, load_pipeline(PIPELINES / "hmr-skel.yaml"), "cpu"), FirstOrderFitter
    )

    path = write_demo(tmp_path / "demo", 2, images=False, models=models)
    store = build_store(LabelSource(str(path), "camerahmr"), path, tmp_path, 10.0)
    label_file = LabelFile(str(store), path.name, store_info(store).sha256, 2, "camerahmr", "neutral", "none")
    run = Run("demo", str(tmp_path), None, None, models.sha256, pipeline, "cpu", (label_file,))
    (task,) = plan_shards(run)
    (done,) = run_tasks(cut_batches([task], None), work=partial(convert_batch, fitter=fitter))
    assert isinstance(done, ShardResult)
    assert done.rows_in == 2
    for row in read_rows(task.files.sidecar):
        assert list(row["stage_pve_mm"]) == ["lower_body", "upper_body", "full"]
        # Two iterations do not converge, and the job says so.
        assert row["status"] == "not_converged" and row["pve_mm"] > 1


def test_a_batch_of_the_baseline_has_no_person_twice(
    models: ModelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The solver fills its last group with copies. Here they would cost time and change the shared line search."""
    sizes: list[int] = []

    def count(self: PairFitter, pose: Tensor, betas: Tensor, transl: Tensor) -> None:
        sizes.append(len(pose))
        raise InterruptedError

    monkeypatch.setattr(PairFitter, "fit", count)
    pipeline = short(3)
    assert pipeline.first_order is not None
    fitter = FirstOrderFitter(models, replace(pipeline.fit, batch=3), pipeline.first_order)
    with pytest.raises(InterruptedError):
        fitter.fit("neutral", torch.zeros(3, 24, 3), torch.zeros(3, 10), torch.zeros(3, 3))
    assert sizes == [3]
