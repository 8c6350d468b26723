"""Angles over time on the report's page: choice of sequences and frames, and the drawing in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_fakes import make_fields, make_metas, write_run
from page_browser import OpenedPage, embedded
from scipy.spatial.transform import Rotation
from verify_reports import make_report

from skelfit.bodies.dofs import dof_index
from skelfit.bodies.model_set import ModelSet, open_models
from skelfit.shards.shard_files import ShardError
from skelfit.verification.measures.posed_bodies import BodyModels
from skelfit.verification.report.html_page import make_page
from skelfit.verification.report.motion_plots import (
    ANGLE_UNIT_DEG,
    DOFS,
    MAX_FRAMES,
    largest_of_each,
    read_motion,
)

ELBOW = dof_index("elbow_flexion_l")
KNEE = dof_index("knee_angle_r")


def write_walk(folder: Path, frames: list[int], jump_at: int, shard_size: int) -> Path:
    """Frames of one sequence: a knee that swings, and an elbow that jumps by 50 degrees at frame `jump_at`."""
    n = len(frames)
    fields = make_fields(n)
    for name in ("skel_poses", "smpl_pose", "skel_betas", "smpl_betas", "skel_trans", "smpl_trans"):
        fields[name][:] = fields[name][:1] * (0.2 if name != "skel_poses" else 1)
    time = np.array(frames)
    fields["skel_poses"][:, KNEE] = 0.2 + 0.5 * np.sin(time / 5)
    fields["skel_poses"][:, ELBOW] = np.where(time < jump_at, 0.1, 0.1 + np.radians(50))
    swing = Rotation.from_euler("x", 0.5 * np.sin(time[:, None] / 10))
    fields["smpl_pose"][:, 5] = swing.as_rotvec()
    fields["skel_poses"][:, 0] += 4 * np.pi
    metas = make_metas(
        n, sequence=["made/walk <b>"] * n, frame=frames, frame_rate=[60.0] * n, angles=["continuous"] * n,
        skel_gender=["male"] * n, coordinates=["world_y_up"] * n,
    )  # fmt: skip
    return write_run(folder, fields, metas, shard_size=shard_size)


def jump(frame: int, **changes: Any) -> dict[str, Any]:
    return {
        "subset": "people", "label_file": "people.npz", "sequence": "made/walk <b>", "key": f"k{frame}",
        "frame": frame, "shard": "people-000000", "joint": "ulna_l", "turn_deg": 50.0,
        "label_turn_deg": 0.0, "added_mm": 30.0,
    } | changes  # fmt: skip


def test_one_jump_of_each_sequence_the_largest_first() -> None:
    jumps = [jump(3), jump(9), *(jump(i, sequence=f"s{i}") for i in range(9)), jump(1, subset="other")]
    largest = largest_of_each(jumps, 3)
    assert [(j["sequence"], j["frame"]) for j in largest] == [("made/walk <b>", 3), ("s0", 0), ("s1", 1)]
    assert len(largest_of_each(jumps, 99)) == 11


def test_a_motion_is_read_from_its_shard(tmp_path: Path) -> None:
    frames = [f for f in range(20) if f != 5]
    folder = write_walk(tmp_path, frames, jump_at=9, shard_size=16)
    tar, bodies = folder / "people-000000.tar", BodyModels(open_models())
    motion = read_motion(tar, jump(9), bodies)
    assert motion.frames == tuple(frames[:16]) and motion.frame_rate == 60
    names = list(DOFS)
    knee = 0.2 + 0.5 * np.sin(np.array(frames[:16]) / 5)
    np.testing.assert_allclose(motion.angles_deg[:, names.index("knee_angle_r")], np.degrees(knee), atol=1e-4)
    fit, label = motion.turns_deg.T
    # Nothing comes before the first frame, nor right before the one after the gap.
    assert np.flatnonzero(np.isnan(fit)).tolist() == [0, 5] == np.flatnonzero(np.isnan(label)).tolist()
    assert fit[8] == pytest.approx(50, abs=1e-3) and np.nanmax(np.delete(fit, 8)) < 1e-3
    assert np.nanmax(label) < 1e-3 and abs(motion.angles_deg[:, 0]).max() < 180
    # The right leg swings, and the left foot stands still below it.
    assert motion.ground == "a level floor" and motion.feet is not None
    assert motion.feet[:, 1].all() and not motion.feet[:, 0].any()
    with pytest.raises(ShardError, match="expected the frames of a sequence, found none of them"):
        read_motion(tar, jump(9, sequence="another"), bodies)


def test_a_long_sequence_is_shown_about_its_jump(tmp_path: Path) -> None:
    folder = write_walk(tmp_path, list(range(1500)), jump_at=1000, shard_size=1500)
    motion = read_motion(folder / "people-000000.tar", jump(1000), BodyModels(open_models()))
    assert len(motion.frames) == MAX_FRAMES and motion.frames[0] == 700
    assert motion.turns_deg[300, 0] == pytest.approx(50, abs=1e-3)


def page_of(folder: Path, models: ModelSet) -> str:
    return make_page(make_report(folder, models, []), [folder], models)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_walk(tmp_path_factory.mktemp("walk"), [f for f in range(40) if f != 20], 9, shard_size=40)
    return page_of(folder, open_models())


def test_the_page_holds_the_sequence(page: str) -> None:
    people = json.loads(embedded(page, "people"))
    (motion,) = people["motions"]
    assert (motion["jump"]["frame"], motion["jump"]["joint"], motion["first"]) == (9, "ulna_l", 0)
    assert motion["angles"]["rows"] == 39 and motion["angles"]["columns"] == len(DOFS)
    assert people["motion_dofs"] == list(DOFS)
    assert people["motion_units_deg"]["angles"] == ANGLE_UNIT_DEG


def test_unreadable_sequences_are_named(tmp_path: Path, models: ModelSet) -> None:
    folder = write_walk(tmp_path, list(range(12)), 9, shard_size=12)
    report = make_report(folder, models, [])
    (folder / "people-000000.tar").write_bytes(b"cut")
    people = json.loads(embedded(make_page(report, [folder], models), "people"))
    assert people["motions"] == []
    assert [person["key"] for person in people["skipped"]] == ["people-0-00000009"]


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_browser_draws_it(browser: Any, page: str, tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "report.html"
    path.write_text(page, "utf-8")
    opened = OpenedPage(browser, path, width, height)
    section = opened.page.locator("#motions")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert "made/walk <b>" in section.locator("summary").inner_text()
    text = section.inner_text()
    assert "At frame 9 (people-0-00000009) ulna l turns by 50.0°, 0.0° in the label." in text
    assert "39 frames from 0 on, 60 Hz" in text
    for bad in ("NaN", "undefined", "Infinity"):
        assert bad not in section.inner_html()
    # Right and left share a panel; the turn has one of its own, with the label's line beside the fit's.
    assert section.locator("svg").count() == 1 + 9 + 3 + 5
    assert section.locator("path.line").count() == 2 + 9 + 2 * 8
    assert section.locator("line.mark").count() == section.locator("svg").count()

    def panel(title: str) -> Any:
        return section.locator(f".times > div:has(h3:text-is('{title}'))")

    knee = panel("knee angle").locator("path.two").get_attribute("d")
    assert len(re.findall("M", knee)) == 2, "a line is broken where a frame is missing"
    elbow = panel("elbow flexion").locator("path.one").get_attribute("d")
    heights = [float(y) for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", elbow)]
    assert len(heights) == 39 and len(set(heights)) == 2, "one step, where the elbow jumps"
    assert heights.index(min(heights)) == 9
    # The knee swings past straight: below 0 is shaded. The elbow stays within its limits, the pelvis has none.
    assert panel("knee angle").locator("rect.beyond").count() == 1
    assert panel("elbow flexion").locator("rect.beyond").count() == 0
    assert panel("pelvis tilt").locator("rect.beyond").count() == 0
    # The left foot stands, before and after the missing frame; the right one hangs.
    assert panel("knee angle").locator("rect.contact.one").count() == 2
    assert section.locator("rect.contact.two").count() == 0 and "The ground: a level floor." in text
    assert opened.faults == []
