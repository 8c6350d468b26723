"""The report's page: its packed arrays, the people it shows, and its behaviour in a real browser."""

from __future__ import annotations

import base64
import copy
import io
import json
import re
import shutil
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_fakes import make_fields, make_metas, write_run
from page_browser import OpenedPage, changed, embedded
from PIL import Image
from verify_reports import make_report

from skelfit.bodies.model_set import ModelSet, open_models
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.shards.shard_files import ShardFiles
from skelfit.verification.report.array_packing import UNIT_M, ArrayPack, to_units
from skelfit.verification.report.gallery import PersonDrawer, crop_photo, read_people, thin_bones
from skelfit.verification.report.html_page import FAULTS_SHOWN, SHOWN, make_page, worst_in_turn
from skelfit.verification.report.report_comparison import compare_reports

PEOPLE, SIDE = 5, 400
RED = (230, 20, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of people before a camera; in the last one's picture only their pelvis is red."""
    return write_people(tmp_path_factory.mktemp("people"))


def write_people(folder: Path) -> Path:
    fields = make_fields(PEOPLE)
    fields["skel_betas"][:], fields["smpl_betas"][:] = 0, 0
    fields["skel_poses"][:, :3] = [0.1, 0.2, 0.3]
    fields["smpl_pose"] *= 0.2
    fields["skel_trans"][:], fields["smpl_trans"][:] = [0, 0, 5], [0.02, 0, 5]
    fields["cam_int"][:] = np.array([[500, 0, SIDE / 2], [0, 500, SIDE / 2], [0, 0, 1]])
    fields["gtkps"][..., :2] = 180
    images: dict[int, tuple[str, bytes]] = {}
    for i in range(PEOPLE):
        picture = Image.new("RGB", (SIDE, SIDE), (90, 110 + 20 * i, 130))
        if i == PEOPLE - 1:
            # The pelvis lies at the middle of the body model, at the translation: see the test that uses it.
            picture.paste(RED, (190, 150, 215, 260))
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        images[i] = ("png", stream.getvalue())
    del images[1]
    has_image = [i in images for i in range(PEOPLE)]
    metas = make_metas(
        PEOPLE,
        image=has_image,
        image_size=[[SIDE, SIDE] if present else None for present in has_image],
        affine=[[[1, 0, 0], [0, 1, 0]] if present else None for present in has_image],
        smpl=[i != 2 for i in range(PEOPLE)],
    )
    return write_run(folder, fields, metas, images=images)


def keys() -> list[str]:
    return [f"people-0-{i:08d}" for i in range(PEOPLE)]


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    """A report with all people of the folder among the worst."""
    return make_report(folder, open_models(), keys())


def worst_of(report: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The same report with these keys as the worst people."""
    person = report["worst"][0]
    return report | {"worst": [person | {"key": key} for key in keys]}


def unpack(content: bytes, location: dict[str, int], like: np.ndarray | None = None) -> np.ndarray:
    """A reference decoder for packed arrays."""
    size = location["rows"] * location["columns"]
    part = np.frombuffer(content, np.uint8)[location["at"] : location["at"] + 2 * size].astype(np.uint16)
    steps = (part[:size] + 256 * part[size:]).reshape(location["columns"], location["rows"])
    numbers = np.cumsum(steps, axis=1, dtype=np.uint16).T
    return numbers if like is None else (numbers + like).astype(np.uint16)


def test_packed_arrays_are_unpacked() -> None:
    rng = np.random.default_rng(0)
    points, faces = rng.normal(0, 0.7, (500, 3)), rng.integers(0, 60_000, (40, 3))
    near = points + rng.normal(0, 0.01, points.shape)
    pack = ArrayPack()
    locations = [pack.add(faces), pack.add_points(points), pack.add_points(near, points)]
    content = zlib.decompress(base64.b64decode(pack.text()))
    assert (unpack(content, locations[0]) == faces).all()
    first = unpack(content, locations[1])
    assert np.abs(first.astype(np.int16) * UNIT_M - points).max() <= 0.51 * UNIT_M
    assert (
        np.abs(unpack(content, locations[2], first).astype(np.int16) * UNIT_M - near).max() <= 0.51 * UNIT_M
    )


def test_points_out_of_range_are_clipped() -> None:
    far = to_units(np.array([[9.0, -9.0, np.inf], [np.nan, 0.1, 0]]))
    assert far.tolist() == [[32767, -32767, 32767], [0, 1000, 0]]


def test_thin_bones_are_near_the_bones(models: ModelSet) -> None:
    asset = models.skel_of("male")
    thin = thin_bones(asset)
    assert len(thin.vertices) < 0.5 * len(asset.bone_v_template)
    assert thin.faces.max() == len(thin.vertices) - 1 and thin.faces.min() == 0
    bone = asset.bone_weights_rigid.argmax(1)[thin.vertices]
    assert (bone[thin.faces] == bone[thin.faces[:, :1]]).all()  # no face from one bone to another
    assert set(bone) == set(asset.bone_weights_rigid.argmax(1))


def test_meshes_are_those_of_the_parameters(folder: Path, models: ModelSet) -> None:
    sample = read_people(folder / "people-000000.tar", keys())[keys()[1]]
    drawn = PersonDrawer(models).draw("k", sample)
    part = {name: torch.tensor(value)[None] for name, value in sample.fields.items()}
    skel = SkelModel(models.skel_of("male"))
    skin = (
        skel.forward(skel.shape(part["skel_betas"]), part["skel_poses"], part["skel_trans"])
        .vertices[0]
        .numpy()
    )
    target = SmplModel(models.smpl_of("neutral")).vertices(
        part["smpl_pose"], part["smpl_betas"], part["smpl_trans"]
    )
    assert drawn.target is not None and drawn.photo is None
    # A camera's y is down and its z is forward: both are turned round.
    middle = (skin.max(0) + skin.min(0)) / 2
    np.testing.assert_allclose(drawn.skin, (skin - middle) * [1, -1, -1], atol=1e-5)
    np.testing.assert_allclose(drawn.target, (target[0].numpy() - middle) * [1, -1, -1], atol=1e-5)
    inside = (drawn.bones.min(0) > drawn.skin.min(0) - 0.02) & (drawn.bones.max(0) < drawn.skin.max(0) + 0.02)
    assert inside.all()


def test_the_skeleton_is_drawn_where_the_person_is(folder: Path, models: ModelSet) -> None:
    sample = read_people(folder / "people-000000.tar", keys())[keys()[-1]]
    model = SkelModel(models.skel_of(sample.meta["skel_gender"]))
    posed = model.forward(
        model.shape(torch.zeros(10)),
        torch.tensor(sample.fields["skel_poses"]),
        torch.tensor(sample.fields["skel_trans"]),
    )
    photo = crop_photo(sample, posed.joints.double().numpy())
    assert photo is not None
    x, y = photo.joints[0].round().astype(int)
    assert np.abs(np.array(Image.open(io.BytesIO(photo.jpeg)).getpixel((int(x), int(y)))) - RED).max() < 40
    # The picture may be a part of the source image: the affine says which.
    shifted = replace(sample, meta={**sample.meta, "affine": [[1, 0, -150], [0, 1, 0]]})
    moved = crop_photo(shifted, posed.joints.double().numpy())
    assert moved is not None and moved.joints[0, 0] != photo.joints[0, 0]


@pytest.mark.parametrize("change", [{"camera": False}, {"coordinates": "world_z_up"}, {"affine": None}])
def test_no_photo_without_a_camera(folder: Path, change: dict[str, Any]) -> None:
    sample = read_people(folder / "people-000000.tar", keys())[keys()[0]]
    changed = replace(sample, meta={**sample.meta, **change})
    assert crop_photo(changed, np.full((24, 3), 5.0)) is None


def test_the_page_stands_alone(folder: Path, models: ModelSet, report: dict[str, Any]) -> None:
    report = copy.deepcopy(report)
    report["integrity"]["damage"][0]["message"] = "</script><script>alert(1)</script>"
    page = make_page(report, [folder], models)
    shown = json.loads(embedded(page, "report"))
    assert shown["integrity"].pop("name") == str(folder) == report["integrity"].pop("folders")[0]["folder"]
    assert shown == {k: v for k, v in report.items() if k != "worst"}
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#|\$)", page)
    assert "alert(1)</script>" not in page
    people = json.loads(embedded(page, "people"))
    assert [p["key"] for p in people["people"]] == keys() and people["skipped"] == []
    assert [p["target"] is None for p in people["people"]] == [False, False, True, False, False]
    assert [p["photo"] is None for p in people["people"]] == [False, True, False, False, False]


def test_the_page_does_not_grow_with_the_dataset(
    tmp_path: Path, models: ModelSet, report: dict[str, Any]
) -> None:
    people = 30
    fields = make_fields(people)
    fields["smpl_betas"] *= 0.3
    run = write_run(tmp_path / "run", fields, make_metas(people), shard_size=people)
    page = make_page(worst_of(report, *(f"people-0-{i:08d}" for i in range(people))), [run], models)
    assert len(json.loads(embedded(page, "people"))["people"]) == SHOWN
    assert len(page) < 7_000_000


def test_the_page_does_not_grow_with_the_damage(
    folder: Path, models: ModelSet, report: dict[str, Any]
) -> None:
    report = copy.deepcopy(report)
    (fault,) = report["integrity"]["damage"]
    many = 100_000
    report["integrity"] |= {"faults": many, "damaged": {"tar": many}, "damage": [fault] * many}
    page = make_page(report | {"worst": []}, [folder], models)
    shown = json.loads(embedded(page, "report"))["integrity"]
    assert len(shown["damage"]) == FAULTS_SHOWN and shown["faults"] == many
    assert len(page) < 1_000_000


def test_every_measure_is_represented() -> None:
    worst = [{"key": f"a{i}", "worst_by": ["a", "b"] if i == 0 else ["a"]} for i in range(9)]
    worst += [{"key": f"b{i}", "worst_by": ["b"]} for i in range(2)] + [{"key": "c", "worst_by": ["c"]}]
    assert [person["key"] for person in worst_in_turn(worst, 6)] == ["a0", "c", "a1", "b0", "a2", "b1"]
    assert len(worst_in_turn(worst, 100)) == len(worst)


def test_people_who_cannot_be_drawn_are_named(
    folder: Path, models: ModelSet, report: dict[str, Any], tmp_path: Path
) -> None:
    lost = "people-0-99999999"
    people = json.loads(embedded(make_page(worst_of(report, lost, keys()[0]), [folder], models), "people"))
    assert [person["key"] for person in people["people"]] == keys()[:1]
    assert [person["key"] for person in people["skipped"]] == [lost]
    assert "no such sample" in people["skipped"][0]["reason"]
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    tar = ShardFiles(damaged, "people-000000").tar
    tar.write_bytes(tar.read_bytes()[:300])
    people = json.loads(embedded(make_page(report, [damaged], models), "people"))
    assert people["people"] == [] and len(people["skipped"]) == PEOPLE


@pytest.fixture(scope="module")
def path(
    folder: Path, models: ModelSet, report: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The page, as a file."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    report = copy.deepcopy(report)
    many = 1000
    report["integrity"] |= {
        "faults": many, "damaged": {"tar": many}, "damage": report["integrity"]["damage"] * many,
    }  # fmt: skip
    report = report | {"against": report, "comparison": compare_reports(report, report)}
    path.write_text(make_page(report, [folder], models), "utf-8")
    return path


def test_meshes_turn_when_they_are_dragged(browser: Any, path: Path) -> None:
    opened = OpenedPage(browser, path, 1280, 900)
    for canvas in ("#person", "#body"):
        opened.page.locator(canvas).scroll_into_view_if_needed()
        still = opened.picture(canvas)
        assert changed(still, opened.picture(canvas)) == 0
        for drag in ((90, 0), (0, 60)):
            opened.drag(canvas, *drag)
            still = opened.picture_other_than(still, canvas, 0.02)
    # Another person, and another part of what is shown, are other pictures.
    before = opened.picture("#person")
    opened.page.locator(".thumb").nth(3).click()
    other = opened.picture_other_than(before, "#person", 0.02)
    assert keys()[3] in opened.page.locator(".figures").inner_text()
    opened.page.locator("label.skin").click()
    opened.picture_other_than(other, "#person", 0.005)
    assert opened.faults == []


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_page_fits_its_window_and_asks_for_nothing(
    browser: Any, path: Path, width: int, height: int
) -> None:
    opened = OpenedPage(browser, path, width, height)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    titles = opened.page.locator("nav a").all_inner_texts()
    assert titles[0] == "Side by side" and len(titles) == opened.page.locator("section").count() == 9
    text = opened.page.locator("main").inner_text()
    for bad in ("NaN", "undefined", "[object", "Infinity"):
        assert bad not in text
    assert "The first 200 of 1,000" in text and "1,000 faults were found in 1 shard." in text
    # Both datasets are the same, so that nothing differs.
    assert set(opened.page.locator("td.difference").all_text_contents()) == {"=", "–"}
    # The person without SMPL parameters has no target mesh; the person without an image has no photo.
    opened.page.locator(".thumb").nth(2).click()
    assert not opened.page.locator("label.target").is_visible()
    opened.page.locator(".thumb").nth(1).click()
    assert opened.page.locator("label.target").is_visible()
    assert "No photo" in opened.page.locator(".photo").inner_text()
    assert opened.faults == []


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_whole_bodies_are_in_view(browser: Any, path: Path, width: int, height: int) -> None:
    """No part of a person is cut off at the edges, from any side."""
    opened = OpenedPage(browser, path, width, height)
    opened.page.add_style_tag(content="nav { display: none }")  # it may lie over the person
    opened.page.locator("#person").scroll_into_view_if_needed()
    shown = []
    for turned in range(2):
        if turned:
            opened.drag("#person", 90, 20)
        shown.append(opened.picture("#person"))
    for kind in ("target", "skin", "bones"):
        opened.page.locator(f"label.{kind}").click()
    empty = opened.picture("#person")
    for picture in shown:
        drawn = np.abs(picture - empty).max(-1) > 12
        assert drawn.mean() > 0.03, "the picture is empty"
        edge = 4
        drawn[edge:-edge, edge:-edge] = False
        assert not drawn.any()
    assert opened.faults == []


def test_a_page_without_measured_people(browser: Any, folder: Path, models: ModelSet, tmp_path: Path) -> None:
    report = make_report(folder, models, [])
    left = {
        name: part for name, part in report.items() if name in ("version", "verdict", "people", "integrity")
    }
    path = tmp_path / "report.html"
    path.write_text(make_page(left | {"keep": None}, [folder], models), "utf-8")
    opened = OpenedPage(browser, path, 1280, 900)
    assert opened.page.locator("nav a").all_inner_texts() == ["Integrity"]
    assert (
        "<b>flipped</b>" in opened.page.locator("#integrity").inner_text()
    )  # text of others is never markup
    assert opened.faults == []
