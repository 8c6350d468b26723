"""`skelfit refine` of labels without a camera: who gets one, what the row says of it, and what stays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_fakes import hashes
from refine_fakes import (
    BEHIND_ROW,
    NAN_ROW,
    NEAR_ROW,
    PEOPLE,
    SWAPPED_ROW,
    THREE_ROW,
    UNSEEN_ROW,
    make_source,
    planned,
    refine,
)

import skelfit
from skelfit.api.conversion_lines import summary_lines_of
from skelfit.bodies.model_set import ModelSet
from skelfit.conversion.stopwatch import Stopwatch
from skelfit.refining.shard_refinement import RefinementStages
from skelfit.refining.source_shard import read_source
from skelfit.shards.label_vector import unpack
from skelfit.shards.shard_files import list_shards
from skelfit.shards.shard_reader import read_json, read_rows, read_samples


@pytest.fixture(scope="module")
def source(models: ModelSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("source") / "run", models, camera=False)


@pytest.fixture(scope="module")
def refined(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("refined") / "out"
    skelfit.refine_shards(source, out, workers=0)
    return out


def people_of(folder: Path) -> dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """Labels and metadata by key."""
    found = {}
    for files in list_shards(folder, "seen"):
        for key, label, meta in read_samples(files.tar):
            found[key] = {name: x.astype(float) for name, x in unpack(label).items()}, dict(meta)
    return found


def test_people_get_a_camera_and_the_row_says_so(source: Path, refined: Path) -> None:
    rows = [row for files in list_shards(refined, "seen") for row in read_rows(files.sidecar)]
    status = {row["row"]: row["refinement"]["status"] for row in rows}
    assert status[NAN_ROW] == "no_person" and status[SWAPPED_ROW] == "swapped"
    assert status[UNSEEN_ROW] == status[THREE_ROW] == "few_keypoints"
    assert status[NEAR_ROW] == "refined", "a label that agrees with its picture needs a camera, too"
    assert status[BEHIND_ROW] == "behind_camera", "its picture is upside down: no place agrees"
    assert list(status.values()).count("refined") >= 8
    old, new = people_of(source), people_of(refined)
    assert len(rows) == PEOPLE and new.keys() == old.keys()
    for row in rows:
        one = row["refinement"]
        if one["before"] is None:
            continue
        (was, was_meta), (now, meta) = old[row["key"]], new[row["key"]]
        assert not was_meta["camera"] and one["before"]["focal_px"] is None
        assert one["before"]["depth_m"] == pytest.approx(was["skel_trans"][2], abs=1e-4)
        if one["status"] != "refined":
            assert one["camera"] is None and one["after"] == one["before"] and not meta["camera"]
            assert all(np.array_equal(was[name], now[name]) for name in was)
            continue
        focal = now["cam_int"][0, 0]
        assert one["camera"] == "estimated" and one["after"]["focal_px"] == pytest.approx(focal, abs=1e-4)
        assert one["after"]["depth_m"] == pytest.approx(now["skel_trans"][2], abs=1e-4)
        assert (meta["camera"], meta["coordinates"]) == (True, "camera")
        assert np.array_equal(now["cam_int"], [[focal, 0, 128], [0, focal, 128], [0, 0, 1]])
        diagonal = np.hypot(256, 256)
        assert diagonal / 4 < focal < 4 * diagonal
        # Depth goes with the focal length: the pictures are from 300 px.
        assert now["skel_trans"][2] / was["skel_trans"][2] == pytest.approx(focal / 300, rel=0.2)
        assert one["after"]["px"] < one["before"]["px"] and 0 <= one["shift"] < 0.25
        # SMPL's body stays beside SKEL's, so the distance of the skins is that of poses and betas.
        way = now["skel_trans"] - was["skel_trans"]
        np.testing.assert_allclose(now["smpl_trans"] - was["smpl_trans"], way, atol=1e-5)
        assert row["pve_mm"] < 150


def test_the_summary_has_depths_and_focal_lengths(refined: Path) -> None:
    summary = read_json(refined / "summary.json")
    found = summary["refinement"]
    assert found["cameras"] == {"estimated": found["statuses"]["refined"]}
    assert found["focal_px"]["before"]["mean"] is None and found["focal_px"]["after"]["p50"] > 90
    assert found["depth_m"]["before"]["p50"] > 1 and found["depth_m"]["after"]["p50"] > 1
    lines = [line for line in summary_lines_of(summary) if isinstance(line, str)]
    assert any(line.startswith("cameras estimated: of ") for line in lines)
    assert any(line.startswith("focal length in px: before unknown; after mean ") for line in lines)


def test_verify_finds_nothing_wrong(source: Path, refined: Path) -> None:
    report = skelfit.verify(refined, against=source, workers=0).report
    assert report["verdict"] == "good", report["integrity"]["damage"]


def test_the_bytes_do_not_depend_on_the_batch(source: Path, refined: Path, tmp_path: Path) -> None:
    assert refine(source, tmp_path / "out", fit_batch=1) == hashes(refined)


def test_whose_camera_cannot_be_estimated(source: Path, tmp_path: Path) -> None:
    """No size of the image; coordinates of a world; a camera that is known, with a place that is not."""
    task: Any = planned(source, tmp_path / "out").tasks[2]
    shard = read_source(task)
    metas = [dict(meta) for meta in shard.metas]
    metas[0] |= {"image_size": None}
    metas[1] |= {"coordinates": "world_y_up"}
    metas[2] |= {"coordinates": "camera_axes", "camera": True}
    metas[3] |= {"coordinates": "camera_axes"}
    (done,) = RefinementStages().fit([replace(shard, metas=tuple(metas))], Stopwatch())
    assert [one.status for one in done.refinements] == [*["no_camera"] * 3, "refined"]
    assert json.loads(json.dumps(done.refinements[3].to_json()))["before"]["depth_m"] is None
