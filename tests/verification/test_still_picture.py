"""`skelfit view --picture`: the views of a person, the angles below, and options that do not go together."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from export_fakes import make_fields, make_metas, write_run
from PIL import Image

from skelfit.bodies import shaded_surfaces
from skelfit.bodies.dofs import DOF_NAMES, dof_index
from skelfit.bodies.model_set import ModelSet
from skelfit.cli import main
from skelfit.verification.report import still_picture
from skelfit.verification.report.gallery import PersonDrawer, PosableFigure, StoredPerson, find_person

KEY = "people-0-00000001"
SIDE = 400


def picture_of_places() -> bytes:
    """A PNG whose red tells the column of a pixel, and its green the row: 0 to 255 over SIDE px."""
    at = (np.arange(SIDE) + 0.5) * 255 / SIDE
    pixels = np.stack(np.broadcast_arrays(at[None, :], at[:, None], 128.0), -1)
    stream = io.BytesIO()
    Image.fromarray(np.rint(pixels).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three people: the second with a photo, a quarter of the size of the labels' image."""
    fields = make_fields(3)
    fields["skel_trans"][1] = [0.4, -0.2, 5]
    fields["skel_poses"][:] = 0
    fields["skel_poses"][:, 1] = np.pi  # upright in a camera whose y points down
    fields["skel_betas"][:] = 0
    fields["cam_int"][1] = [[1600, 0, 800], [0, 1600, 800], [0, 0, 1]]
    fields["gtkps"][1, :, 2] = 0
    affine = [[0.25, 0, 0], [0, 0.25, 0]]
    metas = make_metas(3, affine=[None, affine, None], image=[False, True, False])
    run = tmp_path_factory.mktemp("still") / "run"
    return write_run(run, fields, metas, images={1: ("png", picture_of_places())})


@pytest.fixture(autouse=True)
def rough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures without smooth edges, which take a tenth of the time."""
    monkeypatch.setattr(shaded_surfaces, "_FINE", 1)


@pytest.fixture(scope="module")
def person(folder: Path) -> StoredPerson:
    return find_person(folder, KEY)


def view(*words: object) -> Result:
    return CliRunner().invoke(main, ["view", *map(str, words)])


def pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture, int)


def test_a_view_of_the_photo_has_the_camera_of_its_pixels(person: StoredPerson, models: ModelSet) -> None:
    """Where a point of the body is drawn, the photo is what its camera saw there."""
    figure = PosableFigure(PersonDrawer(models), person)
    skin = figure.in_label(figure.pose(figure.stored).skin)
    photo = still_picture._photo(person, skin)
    assert photo is not None and photo.pixels.shape == (600, 480, 3)
    drawn, seen = (
        points[:, :2] / points[:, 2:] for points in (skin @ photo.camera.T, skin @ person.fields["cam_int"].T)
    )
    assert (drawn.min(0) > 0).all() and (drawn.max(0) < (480, 600)).all(), "the whole person"
    assert max(np.ptp(drawn, axis=0) / (480, 600)) == pytest.approx(1 / 1.16, abs=0.01)
    seen = seen * 0.25
    inside = ((seen > 2) & (seen < SIDE - 2)).all(1)
    assert inside.sum() > 3000
    column, row = np.floor(drawn[inside]).astype(int).T
    told = photo.pixels[row, column, :2] * SIDE / 255
    np.testing.assert_allclose(told, seen[inside], atol=2)  # px of the photo; a step of a colour is 1.6


def test_a_person_with_a_photo_is_drawn_in_it(folder: Path, person: StoredPerson, tmp_path: Path) -> None:
    done = view(folder, KEY, "--picture", tmp_path / "one.jpg")
    assert done.exit_code == 0 and done.stdout.splitlines()[-1] == f"{KEY}: {tmp_path / 'one.jpg'}"
    drawn = pixels(tmp_path / "one.jpg")
    assert drawn.shape[1] == 3 * 480, "the label, the fit, and the view from the side"
    corner = drawn[60:70, 490:500].mean((0, 1))
    assert corner[2] == pytest.approx(128, abs=6) and corner[0] < 128, "the photo"
    in_room = drawn[60:70, 1420:1430].mean((0, 1))
    assert in_room.min() > 215, "bright walls"
    again = view(folder, KEY, "--picture", tmp_path / "one.jpg", "--turn", 0)
    assert again.exit_code == 0, "an earlier picture may be replaced"
    turned = pixels(tmp_path / "one.jpg")
    assert np.abs(turned[50:640, :950] - drawn[50:640, :950]).max() < 8
    assert (np.abs(turned[50:640, 970:] - drawn[50:640, 970:]).max(-1) > 30).mean() > 0.03


def test_without_a_photo_people_stand_in_a_room(folder: Path, tmp_path: Path) -> None:
    assert view(folder, "people-0-00000000", "--picture", tmp_path / "none.jpg").exit_code == 0
    drawn = pixels(tmp_path / "none.jpg")
    assert all(drawn[60:70, 480 * k + 5 : 480 * k + 15].min() > 200 for k in range(3))


def test_options_that_do_not_go_together_are_refused(folder: Path, tmp_path: Path) -> None:
    for words, said in (
        (("--picture", "a.jpg", "--port", "0"), "--port and --open are of the browser"),
        (("--picture", "a.jpg", "--no-open"), "--port and --open are of the browser"),
        (("--turn", "3"), "--turn is of a picture"),
        (("--picture", "a.jpg", "--turn", "nan"), "not a finite number"),
    ):
        done = view(folder, KEY, *words)
        assert done.exit_code == 2 and said in done.output, done.output
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    done = view(folder, KEY, "--picture", other)
    assert done.exit_code == 2 and "expected a new file or an earlier picture (JPEG)" in done.output
    assert other.read_text() == "mine"


def test_a_picture_needs_no_viewer(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("skelfit.cli.view.draw_still", lambda *_: b"\xff\xd8\xff")
    assert view(folder, KEY, "--picture", tmp_path / "one.jpg").exit_code == 0


def test_every_angle_has_its_sides() -> None:
    names = [name for column in still_picture._ANGLES for name in column]
    assert len(names) == len(set(names)) == 16
    sides: dict[str, list[str]] = {
        n: [DOF_NAMES[dof] for dof, _ in still_picture._sides_of(n)] for n in names
    }
    assert sides["knee_angle"] == ["knee_angle_r", "knee_angle_l"]
    assert sides["shoulder_x"] == ["shoulder_r_x", "shoulder_l_x"]
    assert sides["thorax_twist"] == ["thorax_twist"]


def test_the_dot_of_an_angle_moves_along_its_range() -> None:
    def right_dots(degrees: float) -> Any:
        angles = np.zeros(46, np.float32)
        angles[dof_index("knee_angle_r")] = np.radians(degrees)
        sheet = np.asarray(still_picture._angles("one", angles, 1440), int)
        row = 3  # of the knee among the angles of the first column
        line = sheet[(row + 1) * 46 + 42, :560]
        return np.flatnonzero(np.abs(line - still_picture._RIGHT).max(-1) < 30)

    at = {degrees: right_dots(degrees).mean() for degrees in (15.0, 70.0, 125.0)}
    assert at[70.0] - at[15.0] == pytest.approx(at[125.0] - at[70.0], abs=3)
    assert at[125.0] - at[15.0] > 200
