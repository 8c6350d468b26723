"""`skelfit refine`: what becomes of each row, the same bytes however it is done, and what the shards say of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from job_fakes import hashes
from refine_fakes import (
    BEHIND_ROW,
    HOSTILE,
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
from skelfit.bodies.model_set import ModelSet
from skelfit.config.identity import mapping_hash
from skelfit.config.refine_job import AcceptConfig
from skelfit.conversion.rank import Rank
from skelfit.conversion.stopwatch import Stopwatch
from skelfit.errors import ArgumentError, ConfigError, OutputError
from skelfit.refining.acceptance import RefinementMeasures, judge_refinements
from skelfit.refining.frame_times import frames_of
from skelfit.refining.refine_run import source_identity
from skelfit.refining.shard_refinement import RefinementStages
from skelfit.refining.source_shard import read_source
from skelfit.shards.finished_run import open_run
from skelfit.shards.label_vector import FIELDS, unpack
from skelfit.shards.row_status import REFINEMENTS
from skelfit.shards.shard_files import ShardError, list_shards
from skelfit.shards.shard_reader import read_json, read_members, read_rows
from skelfit.verification.integrity.run_folder import open_run_folder

_NEW = ("skel_poses", "skel_betas", "skel_trans", "errors", "keypoints3d")


@pytest.fixture(scope="module")
def source(models: ModelSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("source") / "run", models)


@pytest.fixture(scope="module")
def refined(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards of the real refiner."""
    out = tmp_path_factory.mktemp("refined") / "out"
    skelfit.refine_shards(source, out, workers=0)
    return out


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for files in list_shards(folder, "seen") for row in read_rows(files.sidecar)]


def samples_of(folder: Path) -> dict[str, dict[str, bytes]]:
    return {key: members for files in list_shards(folder, "seen") for key, members in read_members(files.tar)}


def test_every_row_has_a_refinement_or_the_reason_why_not(source: Path, refined: Path) -> None:
    rows, old = rows_of(refined), rows_of(source)
    assert [row["key"] for row in rows] == [row["key"] for row in old] and len(rows) == PEOPLE
    status = {row["row"]: row["refinement"]["status"] for row in rows}
    assert {row: status[row] for row in HOSTILE} == {
        NAN_ROW: "no_person",
        UNSEEN_ROW: "few_keypoints",
        BEHIND_ROW: "behind_camera",
        THREE_ROW: "few_keypoints",
        SWAPPED_ROW: "swapped",
        NEAR_ROW: "not_closer",
    }
    assert [rows[row]["refinement"]["seen"] for row in (UNSEEN_ROW, THREE_ROW, SWAPPED_ROW)] == [0, 3, 42]
    others = [status[row] for row in range(PEOPLE) if row not in HOSTILE]
    assert others.count("refined") >= 5
    summary = read_json(refined / "summary.json")
    assert sum(summary["refinement"]["statuses"].values()) == PEOPLE == summary["rows_in"]
    before = read_json(source / "summary.json")
    for key in ("rows_in", "rows_out", "statuses", "rejected", "filters", "origins", "subset", "shards"):
        assert summary[key] == before[key], key


def test_refined_people_are_nearer_to_their_keypoints(refined: Path) -> None:
    for row in rows_of(refined):
        one = row["refinement"]
        if one["status"] == "refined":
            before, after = one["before"], one["after"]
            assert after["px"] < 0.5 * before["px"] and after["reprojection"] < before["reprojection"]
            assert after["limit_deg"] <= before["limit_deg"]
            assert after["max_abs_beta"] <= max(2.0, before["max_abs_beta"])
            assert 0 < one["moved_mm"] < 250 and one["reason"] == ""
        elif one["before"] is not None:
            assert one["before"] == one["after"] and one["moved_mm"] is None


def test_a_row_that_is_not_refined_keeps_its_bytes(source: Path, refined: Path) -> None:
    old, new = samples_of(source), samples_of(refined)
    assert old.keys() == new.keys()
    old_rows = {row["key"]: row for row in rows_of(source)}
    for row in rows_of(refined):
        if row["key"] not in new:
            continue
        was, now = old[row["key"]], new[row["key"]]
        meta = json.loads(now["meta.json"])
        assert meta.pop("refinement") == row["refinement"]
        assert meta == json.loads(was["meta.json"])
        assert now.get("jpg") == was.get("jpg")
        if row["refinement"]["status"] != "refined":
            assert now["label.npy"] == was["label.npy"]
            same = {key: value for key, value in row.items() if key not in ("refinement", "digest")}
            assert same == {key: value for key, value in old_rows[row["key"]].items() if key != "digest"}
        else:
            parts = [unpack(np.frombuffer(m["label.npy"][128:], "<f4")) for m in (was, now)]
            changed = {f.name for f in FIELDS if not np.array_equal(parts[0][f.name], parts[1][f.name])}
            assert {"skel_poses", "errors"} <= changed <= set(_NEW)


def test_the_source_is_named_by_its_identity_and_stays(source: Path, refined: Path, tmp_path: Path) -> None:
    was = hashes(source)
    identity = open_run(refined).identity
    assert identity["refined"]["accept"]["max_abs_beta"] == 2.0
    found = source_identity(identity)
    assert found is not None and mapping_hash(found) == read_json(source / "summary.json")["identity_sha256"]
    refine(source, tmp_path / "out", stand_in=True)
    assert hashes(source) == was


def test_verify_finds_nothing_wrong_and_sees_both(source: Path, refined: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    report = skelfit.verify(refined, against=source, html=page, workers=0).report
    assert report["verdict"] == "good", report["integrity"]["damage"]
    worst = {name: p for p in report["worst"] for name in p["worst_by"]}
    gained = worst["refined_gain"]["metrics"]["refinement"]
    assert gained["status"] == "refined" and "refined_moved_mm" in worst
    table = next(t for t in report["comparison"] if t["title"] == "2D keypoints")
    fit = next(row for row in table["rows"] if row["name"] == "SKEL fit")
    assert fit["this"][0] < fit["against"][0]
    text = page.read_text()
    people = json.loads(text.split('id="people">', 1)[1].split("</script>", 1)[0])["people"]
    shown = [p for p in people if p["before"] is not None]
    assert {p["metrics"]["refinement"]["status"] for p in shown} == {"refined"}
    assert all(p["photo"]["before"] != p["photo"]["lines"] for p in shown if p["photo"])
    assert any(p["photo"] for p in shown)
    assert all(p["before"]["skel_px"] > p["metrics"]["skel_px"] for p in shown)


def test_a_changed_refinement_is_found(refined: Path, tmp_path: Path) -> None:
    from shutil import copytree

    copy = Path(copytree(refined, tmp_path / "copy"))
    files = list_shards(copy, "seen")[1]
    text = files.sidecar.read_text()
    files.sidecar.write_text(text.replace('"status": "swapped"', '"status": "mirrored"', 1))
    damage = skelfit.verify(copy, sample=0, workers=0).report["integrity"]["damage"]
    assert any("with a status that there is" in one["message"] for one in damage)


@pytest.mark.parametrize("rows", [100, 1])
def test_the_bytes_do_not_depend_on_the_batch(source: Path, refined: Path, tmp_path: Path, rows: int) -> None:
    assert refine(source, tmp_path / "out", fit_batch=rows) == hashes(refined)


def test_ranks_make_the_same_bytes(source: Path, tmp_path: Path) -> None:
    expected = refine(source, tmp_path / "one", stand_in=True)
    for number in (1, 0):
        found = refine(source, tmp_path / "two", stand_in=True, rank=Rank(number, 2))
    assert found == expected
    kept = read_json(tmp_path / "one" / "summary.json")["refinement"]["statuses"]
    assert kept["refined"] and kept["unchanged"]  # both are in the shards, so that the test sees both


def test_workers_and_the_command_make_the_same_bytes(source: Path, refined: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, errors = programs.run(
        "-m", "skelfit", "refine", source, "--out", out, "--workers", "2", "--quiet"
    )
    assert code == 0, errors
    assert hashes(out) == hashes(refined)
    assert said.startswith(f"seen: {PEOPLE} rows, {PEOPLE - 1} people,")
    code, said, _ = programs.run("-m", "skelfit", "status", out, "--json")
    assert code == 0 and json.loads(said)["state"] == "finished"
    code, said, errors = programs.run("-m", "skelfit", "refine", source, "--out", out, "--workers", "0")
    assert code == 0 and "3 shards are finished already" in said, errors


def test_only_what_is_missing_is_made_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    expected = refine(source, out, stand_in=True)
    list_shards(out, "seen")[1].marker.unlink()
    files = list_shards(out, "seen")[2]
    before = files.tar.stat().st_mtime_ns
    assert refine(source, out, stand_in=True) == expected
    assert files.tar.stat().st_mtime_ns == before


def test_shards_of_other_settings_are_not_mixed(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refine(source, out, stand_in=True)
    settings = tmp_path / "settings.yaml"
    settings.write_text("accept: {max_moved_mm: 100}\n")
    with pytest.raises(OutputError, match=r"refined.accept.max_moved_mm: 250 against 100"):
        skelfit.refine_shards(source, out, settings=settings, workers=0)


def test_what_cannot_be_refined_is_refused(source: Path, refined: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="not refined yet"):
        skelfit.refine_shards(refined, tmp_path / "twice", workers=0)
    with pytest.raises(ArgumentError, match="another folder"):
        skelfit.refine_shards(source, source, workers=0)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("accept: {max_beta: 3}\n")
    with pytest.raises(ConfigError, match="max_beta"):
        skelfit.refine_shards(source, tmp_path / "out", settings=wrong, workers=0)
    assert not (tmp_path / "out").exists()


def test_damage_of_the_source_ends_the_shard_alone(source: Path, tmp_path: Path) -> None:
    from shutil import copytree

    from skelfit.api.run_shards import ShardsFailedError

    copy = Path(copytree(source, tmp_path / "copy"))
    tar = list_shards(copy, "seen")[1].tar
    content = bytearray(tar.read_bytes())
    content[600] ^= 1
    tar.write_bytes(bytes(content))
    with pytest.raises(ShardsFailedError, match="1 of 3 shards failed"):
        refine(copy, tmp_path / "out", stand_in=True)
    assert [f.marker.exists() for f in list_shards(tmp_path / "out", "seen")] == [True, True]
    unfinished = open_run_folder(tmp_path / "out").unfinished
    assert unfinished is not None and unfinished.command == "skelfit refine"


def test_numbers_that_no_label_has_are_statuses(source: Path, tmp_path: Path) -> None:
    """NaN keypoints, and cameras that are not there: what readers keep out, shards of others may hold."""
    task: Any = planned(source, tmp_path / "out").tasks[2]
    shard = read_source(task)
    labels, metas = shard.labels.copy(), [dict(meta) for meta in shard.metas]
    parts = unpack(labels)
    parts["gtkps"][0, 5, 0] = np.nan
    parts["gtkps"][1, 5] = (np.nan, np.nan, 0.0)  # not seen: it does not count
    metas[2] |= {"camera": False, "image_size": None}
    metas[3] |= {"smpl": False}
    (done,) = RefinementStages().fit([replace(shard, labels=labels, metas=tuple(metas))], Stopwatch())
    assert [one.status for one in done.refinements] == ["not_finite", "refined", "no_camera", "no_smpl"]
    for i in (0, 2, 3):
        assert done.labels[i].tobytes() == labels[i].tobytes()
    parts["gtkps"][0, 5, 0] = 100
    (other,) = RefinementStages().fit([replace(shard, labels=labels)], Stopwatch())
    assert other.labels[1].tobytes() == done.labels[1].tobytes()  # the others change nothing


def test_keypoints_that_are_nonsense_are_statuses(source: Path, tmp_path: Path) -> None:
    """One that is infinitely far off, negative confidences, all in one place; those beside them stay the same."""
    task: Any = planned(source, tmp_path / "out").tasks[2]
    shard = read_source(task)
    (usual,) = RefinementStages().fit([shard], Stopwatch())
    labels = shard.labels.copy()
    points = unpack(labels)["gtkps"]
    points[0, 5] = (1e30, -1e30, 1.0)
    points[1, :, 2] = -1
    points[2, :, :2] = 128
    (done,) = RefinementStages().fit([replace(shard, labels=labels)], Stopwatch())
    found = [one.status for one in done.refinements]
    assert found[:2] == ["not_closer", "few_keypoints"] and found[2] != "refined"
    assert found[3] == usual.refinements[3].status == "refined"
    assert all(one.status in REFINEMENTS for one in done.refinements)
    for i in range(3):
        assert done.labels[i].tobytes() == labels[i].tobytes()
    assert done.labels[3].tobytes() == usual.labels[3].tobytes()


def test_each_rule_refuses_by_itself() -> None:
    good: dict[str, Any] = {
        "reprojection": [0.2, 0.1], "px": [20, 10], "limit_deg": [3, 3], "max_abs_beta": [2.5, 2.5],
        "moved_mm": 50.0, "shift": 0.1, "depth_m": [4, 5], "focal_px": [300, 300], "estimated": False,
    }  # fmt: skip
    bad: list[dict[str, Any]] = [
        {},
        {"reprojection": [0.1, 0.1]},
        {"reprojection": [0.1, 0.099]},  # nearer, but by less than keypoints tell
        {"limit_deg": [3, 3.01]},
        {"max_abs_beta": [1, 2.01]},
        {"max_abs_beta": [2.5, 2.51]},
        {"max_abs_beta": [1, 1.99]},
        {"moved_mm": 251.0},
        {"shift": 0.26},
        {"shift": np.nan},
        {"reprojection": [0.1, 0.1], "estimated": True},
        {"reprojection": [0.1, 0.101], "estimated": True},
    ]
    people = [good | one for one in bad]
    columns: dict[str, Any] = {name: np.array([p[name] for p in people], float) for name in good}
    columns["estimated"] = columns["estimated"] > 0
    alone = np.full(len(people), -1)
    measures = RefinementMeasures(seen=np.full(len(people), 20), chain=alone, **columns)
    found = [r.status for r in judge_refinements(["refined"] * len(people), measures, AcceptConfig())]
    far = "far_from_label"
    assert found == [
        "refined", "not_closer", "not_closer", "more_violation", "larger_betas", "larger_betas", "refined",
        far, far, far, "refined", "not_closer",
    ]  # fmt: skip
    assert set(found) <= set(REFINEMENTS)
    kept = judge_refinements(["swapped"] * len(people), measures, AcceptConfig())
    assert {r.status for r in kept} == {"swapped"}


def test_frames_of_a_sequence_are_judged_nearer_together() -> None:
    """Ties keep the noise of single frames out, so a frame may be further off; other rules are of each row."""
    pairs = np.array([[0.2, 0.1], [0.1, 0.11], [0.1, 0.11], [0.1, 0.1], [0.2, 0.18]])
    count = len(pairs)
    measures = RefinementMeasures(
        seen=np.full(count, 20), px=100 * pairs, reprojection=pairs, limit_deg=np.full((count, 2), 3.0),
        max_abs_beta=np.ones((count, 2)), moved_mm=np.array([50.0, 50.0, 251.0, 50.0, 50.0]),
        shift=np.full(count, 0.1), depth_m=np.full((count, 2), 4.0), focal_px=np.full((count, 2), 300.0),
        estimated=np.zeros(count, bool), chain=np.array([7, 7, 7, -1, -1]),
    )  # fmt: skip

    def verdicts(chain: list[int]) -> list[str]:
        judged = replace(measures, chain=np.array(chain))
        return [r.status for r in judge_refinements(["refined"] * count, judged, AcceptConfig())]

    assert verdicts([7, 7, 7, -1, -1]) == ["refined", "refined", "far_from_label", "not_closer", "refined"]
    assert verdicts([-1] * 5) == ["refined", "not_closer", "not_closer", "not_closer", "refined"]
    # The mean of the first three is nearer by 0.027, that of the last two by 0.01.
    assert verdicts([7, 7, 7, 8, 8]) == ["refined", "refined", "far_from_label", "refined", "refined"]
    worse = replace(measures, reprojection=np.tile([0.1, 0.099], (count, 1)))
    (first, *_) = judge_refinements(["refined"] * count, worse, AcceptConfig())
    assert (first.status, first.reason) == (
        "not_closer", "reprojection of the sequence 0.1000 before, 0.0990 after",
    )  # fmt: skip


def test_frames_of_a_sequence_are_refined_together(source: Path, tmp_path: Path) -> None:
    tasks: Any = planned(source, tmp_path / "out").tasks
    shards = []
    for task in (tasks[0], tasks[2]):
        shard = read_source(task)
        metas = [
            {**meta, "sequence": "one", "frame": 3 * i, "frame_rate": None}
            for i, meta in enumerate(shard.metas)
        ]
        shards.append(replace(shard, metas=tuple(metas)))
    together = RefinementStages().fit(shards, Stopwatch())
    for shard, done in zip(shards, together, strict=True):
        (alone,) = RefinementStages().fit([shard], Stopwatch())
        assert alone.labels.tobytes() == done.labels.tobytes()
        betas = unpack(done.labels)["skel_betas"][[one.accepted for one in done.refinements]]
        assert len(betas) > 1 and (betas == betas[0]).all()
    names = [one.status for one in together[0].refinements]
    (single,) = RefinementStages().fit([read_source(tasks[0])], Stopwatch())
    assert (unpack(single.labels)["skel_betas"] != unpack(together[0].labels)["skel_betas"]).any()
    assert {"few_keypoints", "refined"} <= set(names) | {one.status for one in together[1].refinements}


def test_sequences_without_an_order_are_refined_frame_by_frame(source: Path, tmp_path: Path) -> None:
    task: Any = planned(source, tmp_path / "out").tasks[0]
    shard = read_source(task)

    def numbers(frames: list[int], rates: list[float | None]) -> list[int]:
        metas = tuple(
            {**meta, "sequence": "one", "frame": frame, "frame_rate": rate}
            for meta, frame, rate in zip(shard.metas, frames, rates, strict=False)
        )
        index = frames_of([replace(shard, metas=metas), shard, replace(shard, metas=metas)], 10.0)
        assert len(index.time) == 2 * len(metas) + len(shard.metas)
        assert (index.sequence[len(metas) : len(metas) + len(shard.metas)] == -1).all()
        assert (index.sequence[-len(metas) :] == np.where(index.sequence[: len(metas)] < 0, -1, 1)).all()
        assert index.time[1] == frames[1] / (rates[1] or 10.0)
        return index.sequence[: len(metas)].tolist()

    assert numbers([0, 1, 4], [None, None, None]) == [0, 0, 0]
    assert numbers([0, 2, 1], [30.0, 30.0, 30.0]) == [-1, -1, -1]
    assert numbers([1, 1, 2], [30.0, 30.0, 30.0]) == [-1, -1, -1]
    assert numbers([0, 1, 2], [30.0, 30.0, float("nan")]) == [-1, -1, -1]
