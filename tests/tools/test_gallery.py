"""The gallery that opens docs/: its commands run as the page shows them, and its pictures show what they say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from skelfit.bodies import shaded_surfaces
from skelfit.cli import main
from tools.gallery.__main__ import MOST_BYTES, PAGE, run_command, shown_commands, shown_pictures, store
from tools.gallery.page_picture import find_chromium
from tools.gallery.pictures import joined, phase_rows
from tools.gallery.walker import SIZE, walking

TEXT = PAGE.read_text("utf-8")
FRAMES = 8
SMALLER = {
    "tools.gallery.walker": ["--frames", str(FRAMES), "--size", "240"],
    "tools.gallery.osim_picture": ["--phases", "2"],
    "tools.gallery.glb_picture": ["--phases", "2"],
}
FINE = 1  # samples of a pixel along each side: rough pictures
# The picture, and what is in it.
OPENSIM = """
import numpy as np
from pathlib import Path
from skelfit.bodies import shaded_surfaces
from tools.gallery import osim_picture
shaded_surfaces._FINE = {fine}
osim_picture.main({words})
model = osim_picture.OpenSimModel(Path({words}[0]))
posed = [model.pose(row) for row in range(len(model.times))]
bones = [np.concatenate([vertices for vertices, _ in one.bones]) for one in posed]
np.savez("posed.npz", markers=[one.markers for one in posed], bones=bones)
"""
PATHS = os.pathsep.join([str(PAGE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
NEEDS = {"osim_picture": "opensim", "glb_picture": "vtkmodules"}


def commands() -> list[list[str]]:
    """The commands of the page, the walk made shorter and smaller, with fewer phases; nothing else is changed."""
    return [[*words, *SMALLER.get(words[2], [])] for words in shown_commands(TEXT)]


def run_here(words: list[str]) -> None:
    """A command of the page: in this process, which has imported torch; OpenSim in one of its own."""
    if words[0] == ".venv/bin/skelfit":
        result = CliRunner().invoke(main, words[1:])
        assert result.exit_code == 0, result.output
    elif words[2] == "tools.gallery.osim_picture":
        code = OPENSIM.format(fine=FINE, words=words[3:])
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PATHS}, check=True)
    else:
        assert words[:2] == [".venv/bin/python", "-m"]
        import_module(words[2]).main(words[3:])


def can_run(words: list[str]) -> bool:
    module = words[2].rpartition(".")[2]
    if module == "page_picture":
        return find_chromium() is not None and find_spec("playwright") is not None
    return module not in NEEDS or find_spec(NEEDS[module]) is not None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the page's commands have run; those whose programs are not here are left out."""
    folder = tmp_path_factory.mktemp("gallery")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SKELFIT_MODELS", raising=False)
        patch.setattr(shaded_surfaces, "_FINE", FINE)
        for words in commands():
            if can_run(words):
                run_here(words)
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), int)


def test_the_page_shows_the_command_of_every_picture() -> None:
    written = [
        words[words.index(option) + 1]
        for words in shown_commands(TEXT)
        for option in ("--picture", "--out")
        if option in words
    ]
    pictures = shown_pictures(TEXT)
    assert len(pictures) == 5 and set(pictures) <= set(written)
    assert len(re.findall(r"!\[", TEXT)) == len(pictures), "a picture that no command of the page makes"


@pytest.mark.parametrize("name", shown_pictures(TEXT))
def test_a_stored_picture_is_sharp_and_small(name: str) -> None:
    path = PAGE.parent / "gallery" / name
    assert path.stat().st_size <= MOST_BYTES
    assert pixels(path).shape[1] >= 1300


@pytest.mark.soak
def test_the_commands_of_the_page_run(made: Path) -> None:
    for words in commands():
        if can_run(words):
            option = next(o for o in ("--picture", "--html", "--out") if o in words)
            assert (made / words[words.index(option) + 1]).exists(), shlex.join(words)
    assert len(list((made / "walker" / "images" / "walk").glob("*.jpg"))) == FRAMES
    assert pixels(made / "person.jpg").shape == (1100, 1440, 3)


def covered(picture: np.ndarray) -> np.ndarray:
    """Where something stands in a room, whose walls and shadows are grey."""
    return picture.max(-1) - picture.min(-1) > 24


@pytest.mark.soak
@pytest.mark.skipif(find_spec("opensim") is None, reason="OpenSim is not installed")
def test_opensim_says_where_bones_and_markers_are(made: Path) -> None:
    """Markers are those of the .trc, which is another file; bones lie as in the .glb."""
    from glb_player import GlbPlayer

    assert 0.02 < covered(pixels(made / "osim.jpg")).mean() < 0.5
    with np.load(made / "posed.npz") as posed:
        markers, bones = posed["markers"], posed["bones"]
    lines = (made / "walk-opensim" / "walk-0.trc").read_text().splitlines()
    names = [name for name in lines[3].split("\t")[2:] if name]
    points = np.array([line.split("\t")[2:] for line in lines[6:]], float).reshape(FRAMES, -1, 3)
    centers = [k for k, name in enumerate(names) if name.endswith("_jc")]
    assert len(centers) == 24 and markers.shape == (FRAMES, 24 + 17, 3)
    np.testing.assert_allclose(markers[:, :24], points[:, centers], atol=1e-4)
    player = GlbPlayer(made / "walk-glb" / "walk-0.glb")
    for row in (0, FRAMES - 1):
        played = player.vertices("bones", row / 30)[:, [2, 1, 0]] * [1, 1, -1]  # to OpenSim's axes
        for end in (np.min, np.max):
            np.testing.assert_allclose(end(bones[row], 0), end(played, 0), atol=0.02)


@pytest.mark.soak
@pytest.mark.skipif(find_spec("vtkmodules") is None, reason="VTK is not installed")
def test_another_library_plays_the_glb(made: Path) -> None:
    from glb_player import GlbPlayer

    from tools.gallery.glb_picture import GlbReader

    path = made / "walk-glb" / "walk-0.glb"
    reader, player = GlbReader(path), GlbPlayer(path)
    assert reader.seconds == pytest.approx((FRAMES - 1) / 30, abs=1e-6)
    for time in (0.0, 0.1, 0.2):
        (skin, skin_faces, clear), (bones, _, solid) = reader.meshes(time)
        np.testing.assert_allclose(skin, player.vertices("skin", time), atol=1e-5)
        np.testing.assert_allclose(bones, player.vertices("bones", time), atol=1e-5)
        assert skin_faces.shape == (13776, 3) and clear[3] < 1 and solid[3] == 1
    assert np.abs(reader.meshes(0.2)[0][0] - reader.meshes(0.0)[0][0]).max() > 0.2
    assert 0.02 < covered(pixels(made / "glb.jpg")).mean() < 0.6


def test_the_walker_passes_before_the_camera() -> None:
    pose, betas, transl = walking(60)
    assert pose.shape == (60, 24, 3) and betas.shape == (10,) and SIZE >= 640
    assert transl[0, 0] > 1 and transl[-1, 0] < -1, "from right to left"
    assert (np.diff(transl[:, 2]) < 0.02).all() and transl[:, 2].min() > 3
    assert np.linalg.norm(transl[-1] - transl[0]) == pytest.approx(1.35 * 59 / 30, rel=0.02)


def test_phases_and_joined_meshes() -> None:
    assert phase_rows(60, 6) == [0, 12, 24, 35, 47, 59] and phase_rows(3, 6) == [0, 1, 2]
    triangle = (np.eye(3), np.array([[0, 1, 2]], np.int32))
    vertices, faces = joined([triangle, triangle])
    assert vertices.shape == (6, 3) and faces.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_picture_that_is_too_large_is_not_stored(tmp_path: Path) -> None:
    (tmp_path / "person.jpg").write_bytes(bytes(MOST_BYTES + 1))
    with pytest.raises(
        ValueError, match=f"person.jpg: expected at most {MOST_BYTES} bytes, found {MOST_BYTES + 1}"
    ):
        store(tmp_path, ["person.jpg"])


def test_another_program_is_refused() -> None:
    with pytest.raises(ValueError, match="found rm"):
        run_command(["rm", "x"], Path())


@pytest.mark.soak
def test_the_whole_page_runs(tmp_path: Path) -> None:
    """At its full size, each command in a process of its own."""
    for words in shown_commands(TEXT):
        if can_run(words):
            run_command(words, tmp_path)
    assert (tmp_path / "person.jpg").stat().st_size <= MOST_BYTES
