"""The filters of 4D-Humans and HSMR: what each rule leaves out, what it says, and how rules are switched."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_fakes import FAR_ROW, NAN_ROW, PIPELINE, FakeFitter, make_run

from skelfit.api.run_shards import convert_run
from skelfit.api.subsets import check_filters
from skelfit.config.manifest import Filters, LabelSource
from skelfit.config.pipeline import GateConfig
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.fitted_rows import RowFits
from skelfit.conversion.row_judgement import Judgement, judge_rows
from skelfit.conversion.run_lock import writing
from skelfit.conversion.run_plan import Run, plan_shards
from skelfit.labels.filters import (
    FILTER_GROUPS,
    PUBLISHED_VALUES,
    active_filters,
    apply_filters,
    switch_filters,
)
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.label_store import build_store, read_rows, store_info
from skelfit.shards.shard_reader import read_json, read_samples
from skelfit.shards.shard_reader import read_rows as sidecar_rows

ALL = Filters(low_confidence=0.3, few_keypoints=4, large_betas=3.0, vertex_error=60.0)


@pytest.fixture
def batch(tmp_path: Path) -> LabelBatch:
    """Twenty people who see six keypoints well."""
    run = make_run(tmp_path)
    people = read_rows(run.labels[0].store, 0, 20)
    keypoints = np.zeros_like(people.gtkps)
    keypoints[:, :6] = [10, 20, 0.9]
    return replace(people, gtkps=keypoints, betas=np.zeros_like(people.betas))


def test_doubtful_keypoints_count_as_unseen(batch: LabelBatch) -> None:
    batch.gtkps[2, :3, 2] = 0.29
    batch.gtkps[3, 0, 2] = np.float32(0.3)
    before = batch.gtkps.copy()
    screened, screening = apply_filters(batch, Filters(low_confidence=0.3))
    assert screening.unseen.tolist() == [0, 0, 3] + [0] * 17
    assert (screened.gtkps[2, :3, 2] == 0).all() and (screened.gtkps[2, :3, :2] == [10, 20]).all()
    assert screened.gtkps[3, 0, 2] == np.float32(0.3)
    np.testing.assert_array_equal(batch.gtkps, before)
    assert screening.reasons == [""] * 20


def test_too_few_keypoints_are_counted_after_the_doubtful_ones(batch: LabelBatch) -> None:
    batch.gtkps[1, 4:6, 2] = 0  # four left
    batch.gtkps[2, 5:6, 2] = 0  # five left
    batch.gtkps[3, :2, 2] = 0.1  # four left of six
    reasons = apply_filters(batch, Filters(few_keypoints=4))[1].reasons
    assert reasons[:4] == ["", "few_keypoints: 4 seen, needs more than 4", "", ""]
    reasons = apply_filters(batch, Filters(few_keypoints=4, low_confidence=0.3))[1].reasons
    assert [i for i, reason in enumerate(reasons) if reason] == [1, 3]


def test_where_nobody_has_keypoints_nobody_has_too_few(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file without any 2D keypoint loses no one, and the run says so; one person without any is left out."""
    run = make_run(tmp_path)
    path = tmp_path / "people.npz"
    with np.load(path) as source:
        columns = dict(source)
    for seen, expected in ((0, 0), (19, 1)):
        columns["gtkps"][:] = 0
        columns["gtkps"][:seen] = [10, 20, 0.9]
        np.savez(path, **columns)
        again = make_run_of(run, path, Filters(few_keypoints=4), GateConfig(), tmp_path)
        again = replace(again, out=f"{again.out}-{seen}")
        check_filters(again, print)
        said = "people.npz: no row has 2D keypoints, so the filter few_keypoints leaves none of them out"
        assert (said in capsys.readouterr().out) == (seen == 0)
        summary = converted(again, FakeFitter())
        assert summary["filters"] == {"few_keypoints": {"value": 4, "rows": expected}}
        assert summary["rejected"].get("filtered: few_keypoints", 0) == expected
        assert summary["rows_out"] == 20 - 1 - expected - summary["statuses"].get("not_converged", 0)


def test_large_betas(batch: LabelBatch) -> None:
    batch.betas[4, 9], batch.betas[5, 0] = -3.25, 3.0
    reasons = apply_filters(batch, Filters(large_betas=3.0))[1].reasons
    assert {i: reason for i, reason in enumerate(reasons) if reason} == {
        4: "large_betas: |beta| max 3.25 > 3"
    }


def test_a_fit_must_stay_below_the_vertex_error(batch: LabelBatch) -> None:
    fits = RowFits.unfitted(2, 2)
    fits.finite[:] = fits.converged[:] = True
    fits.poses[:, [27, 37]] = -0.2  # scapula elevation, whose limits do not hold 0
    fits.max_vertex_mm[:] = 59.99, 60.0
    people, screening = apply_filters(batch.rows(0, 2), ALL)
    screening = replace(screening, reasons=["", ""])
    judged = judge_rows(people, fits, PIPELINE, screening)
    assert judged == [Judgement("ok"), Judgement("filtered", "vertex_error: 60.00 mm, not below 60")]
    assert judge_rows(people, fits, PIPELINE, replace(screening, filters=Filters())) == [Judgement("ok")] * 2


def test_without_rules_nothing_changes(batch: LabelBatch) -> None:
    batch.gtkps[:, :, 2] *= 0.1
    screened, screening = apply_filters(batch, Filters())
    assert screened == batch or np.array_equal(screened.gtkps, batch.gtkps)
    assert screening.reasons == [""] * 20 and not screening.unseen.any()


def test_switching() -> None:
    assert switch_filters(Filters(), [("all", None)], []) == ALL
    assert active_filters(switch_filters(Filters(), [("4dhumans", None)], [])).keys() == set(
        FILTER_GROUPS["4dhumans"]
    )
    assert switch_filters(ALL, [], ["all"]) == Filters()
    # A single rule counts more than a group, and a group more than all.
    assert switch_filters(ALL, [("hsmr", None)], ["all"]) == Filters(vertex_error=60.0)
    assert switch_filters(Filters(), [("all", None)], ["few_keypoints"]) == replace(ALL, few_keypoints=None)
    assert switch_filters(ALL, [("large_betas", 4.0)], ["4dhumans"]) == Filters(
        large_betas=4.0, vertex_error=60.0
    )
    assert set(PUBLISHED_VALUES) == set(Filters.__dataclass_fields__)


def converted(run: Run, fitter: FakeFitter) -> dict[str, Any]:
    with writing(Path(run.out), run.subset):
        return convert_run(run, work=partial(convert_batch, fitter=fitter))


def test_a_filtered_row_is_a_row_with_a_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One row per rule, one that breaks two, and a bad one that stays bad input."""
    caplog.set_level("INFO")
    run = make_run(tmp_path)
    path = tmp_path / "people.npz"
    with np.load(path) as source:
        columns = dict(source)
    columns["gtkps"][:] = [10, 20, 0.9]
    columns["gtkps"][0, :10, 2] = 0.2  # ten doubtful, enough left
    columns["gtkps"][1, 3:, 2] = 0.2
    columns["shape"][[1, NAN_ROW], 7] = 3.5
    columns["shape"][2, 7] = 3.5
    columns["shape"][4, 2] = 1.6  # 21 mm, and 63 mm at the worst vertex
    np.savez(path, **columns)
    filters = replace(ALL, low_confidence=0.25)
    gates = GateConfig(limit_deg=5.0)
    again = make_run_of(run, path, filters, gates, tmp_path)
    fitter = FakeFitter()
    summary = converted(again, fitter)
    rows = [row for task in plan_shards(again) for row in sidecar_rows(task.files.sidecar)]
    filtered = {row["row"]: row["reason"] for row in rows if row["status"] == "filtered"}
    assert filtered == {
        1: "few_keypoints: 3 seen, needs more than 4; large_betas: |beta| max 3.50 > 3",
        2: "large_betas: |beta| max 3.50 > 3",
        4: "vertex_error: 63.00 mm, not below 60",
        FAR_ROW: "vertex_error: 75.00 mm, not below 60",
    }
    assert rows[NAN_ROW]["status"] == "bad_input"
    assert rows[1]["pve_mm"] is None and rows[4]["pve_mm"] == 21.0  # row 1 was left out before the fit
    assert summary["statuses"]["filtered"] == 4 and summary["rows_in"] == sum(summary["statuses"].values())
    assert summary["filters"] == {
        "low_confidence": {"value": 0.25, "rows": 2, "keypoints": 10 + 41},
        "few_keypoints": {"value": 4, "rows": 1},
        "large_betas": {"value": 3.0, "rows": 2},
        "vertex_error": {"value": 60.0, "rows": 2},
    }
    assert summary["rejected"]["filtered: large_betas"] == 1
    assert summary["rejected"]["filtered: few_keypoints"] == 1
    assert [row["unseen_keypoints"] for row in rows[:3]] == [10, 41, 0]
    assert "filter few_keypoints (4): 1 rows" in caplog.text
    assert "filter low_confidence (0.25): 2 rows, 51 keypoints" in caplog.text
    label = next(iter(read_samples(plan_shards(again)[0].files.tar)))[1]
    assert (label[157 : 157 + 132].reshape(44, 3)[:10, 2] == 0).all()
    assert read_json(Path(again.out) / "summary.json")["identity"]["filters"]["low_confidence"] == 0.25
    json.dumps(summary, allow_nan=False)


def make_run_of(run: Run, path: Path, filters: Filters, gates: GateConfig, folder: Path) -> Run:
    """The run of a changed label file."""
    store = build_store(LabelSource("people.npz", "camerahmr"), path, folder / "stores")
    file = replace(run.labels[0], store=str(store), sha256=store_info(store).sha256)
    return replace(
        run, labels=(file,), filters=filters, pipeline=replace(run.pipeline, gates=gates), out=run.out + "2"
    )
