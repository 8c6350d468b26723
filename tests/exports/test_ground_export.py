"""Floor, contacts and gravity from end to end: a planted walk converted, verified, and exported in every format."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import bvhio
import numpy as np
import pytest
from click.testing import CliRunner, Result
from export_fakes import export
from glb_player import GlbPlayer
from planted_runs import RATE, before_a_camera, converted_walk, walk_of

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.sole_vertices import SOLE_PARTS, sole_vertices
from skelfit.bodies.world_axes import up_axis
from skelfit.cli import main
from skelfit.exports.exported_bodies import GROUND_AXES, ExportedBodies
from skelfit.exports.exporter import ExportOptions
from skelfit.exports.mesh_files import VIEWER_AXES
from skelfit.shards.finished_run import open_run
from skelfit.verification.measures.sequence_ground import SUMMARY
from skelfit.verification.report.ground_table import GROUND_COLUMNS
from skelfit.verification.report.terminal import summary_lines


@dataclass(frozen=True)
class Walks:
    """The walk in two worlds, and as if before a camera; and its exports for OpenSim."""

    shards: dict[str, Path]
    exports: dict[str, Path]


@pytest.fixture(scope="module")
def walks(models: ModelSet, tmp_path_factory: pytest.TempPathFactory) -> Walks:
    folder = tmp_path_factory.mktemp("walks")
    shards = {"y": converted_walk(folder / "y", "y"), "z": converted_walk(folder / "z", "z")}
    shards["camera"] = before_a_camera(shards["y"], folder / "camera", models)
    exports = {name: folder / f"{name}-opensim" for name in shards}
    for name, out in exports.items():
        export("opensim", shards[name], out, ExportOptions(models))
    return Walks(shards, exports)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "export.json").read_text("utf-8"))
    return content


def verify(*words: object) -> Result:
    result = CliRunner().invoke(main, ["verify", *map(str, words), "--workers", "0"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("up", ["y", "z"])
def test_events_are_those_of_the_walk(walks: Walks, up: str) -> None:
    walk = walk_of("y")
    events = table(walks.exports[up] / "walk-events.csv")
    for side, letter in (("right", "r"), ("left", "l")):
        for kind, true in (("foot_strike", walk.strikes[letter]), ("foot_off", walk.offs[letter])):
            found = [e for e in events if (e["side"], e["event"]) == (side, kind)]
            times = np.array([float(e["time"]) for e in found])
            assert len(times) == len(true) and abs(times - true).max() < 1.5 / RATE
            assert {e["part"] for e in found} == {"heel" if kind == "foot_strike" else "forefoot"}
            assert all(float(e["time"]) == pytest.approx(int(e["frame"]) / RATE) for e in found)


def test_contacts_are_those_of_the_walk(walks: Walks, models: ModelSet) -> None:
    rows = table(walks.exports["z"] / "walk-contacts.csv")
    walk = walk_of("z")
    assert [int(row["frame"]) for row in rows] == list(range(len(walk.motion)))
    for k, side in enumerate("rl"):
        found = np.array([row[f"foot_{side}"] == "1" for row in rows])
        true = walk.contacts[:, 2 * k : 2 * k + 2].any(1)
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.95
    # Heights are those of the skin in the ground of the other tables.
    run = open_run(walks.shards["z"])
    people = list(run.people())
    soles = sole_vertices(models.skel_of("male"))
    skin = (
        ExportedBodies(models).points(people, soles.vertices.tolist()).markers @ GROUND_AXES["world_z_up"].T
    )
    floor = record(walks.exports["z"])["floors"]["walk"]["floor_mm"]
    assert abs(floor) < 5, "of a fit whose soles are some mm off its label's"
    for name, part in zip(SOLE_PARTS, soles.parts, strict=True):
        heights = np.array([float(row[f"{name}_height_mm"]) for row in rows])
        exact = 1000 * skin[:, part, 1].min(1) - floor
        slow = np.array([row[name] == "1" for row in rows])
        assert abs(heights - exact)[slow].max() < 8 and abs(heights - exact).mean() < 6


def test_both_worlds_give_the_same_ground(walks: Walks) -> None:
    y, z = (walks.exports[up] for up in "yz")
    assert (y / "walk-events.csv").read_text() == (z / "walk-events.csv").read_text()
    one, other = (record(folder)["floors"]["walk"] for folder in (y, z))
    assert one["status"] == other["status"] == "measured" and set(one) == {"status", *SUMMARY}
    for name in SUMMARY:
        assert one[name] == pytest.approx(other[name], abs=0.05)
    assert one["flight_share"] == 0 and one["slip_mm_s"] < 100 and one["penetration_mm"] < 10


def check_contacts_in_glb(player: GlbPlayer, tables: Path) -> None:
    """The extras of a scene hold the same floor and the same events as the tables of the export for OpenSim."""
    ground = player.document["scenes"][0]["extras"]["ground"]
    assert ground["status"] == "measured" and abs(ground["floor_m"]) < 0.005
    for start, stop in ground["contacts_s"]["right"]:
        for time in np.linspace(start, stop, 4):
            assert player.matrices(float(time))["toes_r"][1, 3] < 0.07
    times = [float(event["time"]) for event in table(tables / "walk-events.csv")]
    assert [event["time"] for event in ground["events"]] == pytest.approx(times, abs=1e-5)


@pytest.mark.parametrize("name", ["y", "z", "camera"])
def test_up_is_y_in_every_file(walks: Walks, models: ModelSet, tmp_path: Path, name: str) -> None:
    """A person who walks: where gravity is known, their head is above their feet along y."""
    known = name != "camera"
    coordinates = {"y": "world_y_up", "z": "world_z_up", "camera": "camera"}[name]
    up = up_axis(coordinates)
    assert (up is not None) == known
    if up is not None:
        assert np.allclose(GROUND_AXES[coordinates] @ up, [0, 1, 0])
        assert np.allclose(VIEWER_AXES @ GROUND_AXES[coordinates] @ up, [0, 1, 0])
    gravity = record(walks.exports[name])["gravity"]
    assert gravity == {coordinates: gravity[coordinates]}
    assert gravity[coordinates].startswith("along -y" if known else "not known: taken to be along -y")
    model = ElementTree.parse(next(walks.exports[name].glob("*.osim"))).getroot()
    assert model.findtext("Model/gravity") == "0 -9.80665 0"
    sign = 1 if known else -1  # what stands in a world with y up hangs upside down from a camera's
    trc = np.loadtxt((walks.exports[name] / "walk.trc").read_text().splitlines()[6:])[:, 2:]
    joints = trc.reshape(len(trc), -1, 3)[:, :24]
    assert (sign * (joints[:, 13, 1] - joints[:, 5, 1]) > 1.0).all(), "head above toes"
    forms = ("bvh",) if name == "y" else ("bvh", "glb")  # the slower one of one world is enough
    for form in forms:
        out = tmp_path / form
        export(form, walks.shards[name], out, ExportOptions(models))
        assert record(out)["gravity"] == gravity
        assert record(out)["floors"]["walk"]["status"] == ("measured" if known else "gravity_unknown")
    root = bvhio.readAsHierarchy(str(tmp_path / "bvh" / "walk.bvh"))
    root.loadPose(0)
    height = {joint.Name: float(joint.PositionWorld.y) for joint, _, _ in root.layout()}
    assert sign * (height["head"] - height["toes_r"]) > 1.0
    if "glb" not in forms:
        return
    player = GlbPlayer(tmp_path / "glb" / "walk.glb")
    if known:
        check_contacts_in_glb(player, walks.exports[name])
    posed = player.matrices(0.0)
    assert sign * (posed["head"][1, 3] - posed["toes_r"][1, 3]) > 1.0


def test_the_model_has_the_floor_and_no_forces(walks: Walks) -> None:
    floor = record(walks.exports["y"])["floors"]["walk"]["floor_mm"]
    model = ElementTree.parse(walks.exports["y"] / "walk.osim").getroot()
    (space,) = model.iter("ContactHalfSpace")
    assert [float(x) for x in space.findtext("location", "").split()] == pytest.approx(
        [0, floor / 1000, 0], abs=1e-6
    )
    assert not list(model.iter("ForceSet")) and "External" not in ElementTree.tostring(model, "unicode")
    text = (walks.exports["y"] / "walk.mot").read_text()
    assert f"Floor: y = {floor / 1000:.4f} m (a level floor)." in text and "Gravity: along -y" in text


def test_before_a_camera_nothing_is_guessed(walks: Walks) -> None:
    folder = walks.exports["camera"]
    assert not list(folder.glob("*-contacts.csv")) and not list(folder.glob("*-events.csv"))
    assert (
        "Floor: not known (the labels are not in a world, so gravity is not known)."
        in (folder / "walk.mot").read_text()
    )
    assert not list(ElementTree.parse(folder / "walk.osim").getroot().iter("ContactHalfSpace"))
    page = (folder / "walk-angles.html").read_text()
    assert '"contacts":null' in page and "gravity is not known" in page
    assert '"contacts":{"r":[0' in (walks.exports["y"] / "walk-angles.html").read_text()


def test_verify_reports_and_stores_it(walks: Walks, tmp_path: Path) -> None:
    path, report = tmp_path / "ground.csv", tmp_path / "report.json"
    against = "--against", walks.shards["camera"]
    result = verify(walks.shards["z"], "--ground", path, "--json", report, *against)
    assert result.exit_code == 0, result.output
    assert f"foot contact of each sequence: {path}" in result.stdout
    (row,) = table(path)
    assert tuple(row) == GROUND_COLUMNS
    exported = record(walks.exports["z"])["floors"]["walk"]
    assert (row["status"], row["sequence"], row["coordinates"]) == ("measured", "walk", "world_z_up")
    assert (float(row["frame_rate"]), row["rate_assumed"]) == (RATE, "0")
    for name in SUMMARY:
        assert row[name] == ("" if exported[name] is None else str(exported[name]))
    both = json.loads(report.read_text())
    ground = both["ground"]
    assert ground["statuses"] == {"measured": 1} and ground["slip_mm_s"]["mean"] == exported["slip_mm_s"]
    assert [worst["sequence"] for worst in ground["worst"]] == ["walk"]
    assert both["against"]["ground"]["statuses"] == {"gravity_unknown": 1}
    assert "sequences by what is known of the ground" in result.stdout
    lines = [str(line) for line in summary_lines({k: v for k, v in both.items() if k != "against"})]
    assert any("ground, 1 sequence" in line and "feet slip, mm/s" in line for line in lines)
    assert f"{both['accuracy']['people']} frames" in "".join(lines) and " people" not in "".join(lines)
    # A sample of the frames tells no speeds: the ground is measured in all frames, or not at all.
    few = tmp_path / "few.csv"
    assert verify(walks.shards["z"], "--sample", 1, "--ground", few).exit_code == 0
    assert few.read_bytes() == path.read_bytes()
    assert verify(walks.shards["z"], "--sample", 1, "--json", report).exit_code == 0
    assert "ground" not in json.loads(report.read_text())


def test_what_ground_files_may_not_be(walks: Walks, tmp_path: Path) -> None:
    refused = verify(walks.shards["y"], "--sample", 0, "--ground", tmp_path / "ground.csv")
    assert refused.exit_code == 2 and "expected people who are measured, found sample 0" in refused.output
    mine = tmp_path / "mine.csv"
    mine.write_text("a,b\n1,2\n")
    refused = verify(walks.shards["y"], "--ground", mine)
    assert (
        refused.exit_code == 2 and "expected a new file or an earlier table of the ground" in refused.output
    )
    assert mine.read_text() == "a,b\n1,2\n"
