"""Sequences that are odd: their names, order, rates and gaps; people who are not there; and the files they become."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_fakes import export, make_fields, make_metas, write_run

from skelfit.bodies.model_set import ModelSet
from skelfit.errors import OutputError
from skelfit.exports.exporter import ExportOptions
from skelfit.exports.motions import unused_name
from skelfit.exports.opensim_files.motion import MARKER_NAMES, MARKERS

FORMATS = ("opensim", "glb", "bvh")


def made_run(folder: Path, models: ModelSet, frames: Sequence[int], **changes: Any) -> Path:
    """A finished run of one sequence of one person, without a rate in its labels."""
    count, fields = len(frames), make_fields(len(frames))
    fields["skel_betas"][:] = fields["skel_betas"][:1]
    for name, value in changes.items():
        fields[name][:] = value
    metas = make_metas(
        count,
        sequence=["walk"] * count,
        frame=frames,
        frame_rate=[None] * count,
        fitted_rate=[30.0] * count,
        skel_gender=["male"] * count,
    )
    return write_run(folder, fields, metas, models_sha256=models.sha256)


def test_file_names() -> None:
    """Any text becomes a short name of plain letters, and no two are the same, in capitals or not."""
    used: set[str] = set()
    wanted = ["../a/b c", "a_b_c", "A_B_C", "été", "走路", "..", "x" * 400, "x" * 400, 'a<b>&"', ""]
    names = [unused_name(text, used) for text in wanted]
    assert names[:6] == ["a_b_c", "a_b_c-2", "A_B_C-3", "ete", "sequence", "sequence-2"]
    assert names[6:8] == ["x" * 100, "x" * 100 + "-2"] and names[8:] == ["a_b", "sequence-3"]
    assert len({name.lower() for name in names}) == len(wanted)


@pytest.mark.parametrize("form", FORMATS)
def test_frames_are_put_in_order(tmp_path: Path, models: ModelSet, form: str) -> None:
    """The same files as of the same frames in order."""
    order = [3, 1, 2, 0]
    run = made_run(tmp_path / "run", models, range(4))
    other = made_run(tmp_path / "other", models, order, **{
        name: values[order] for name, values in make_fields(4).items() if name != "skel_betas"
    })  # fmt: skip
    for folder, source in (("a", run), ("b", other)):
        export(form, source, tmp_path / folder, ExportOptions(models))
    ending = {"opensim": "mot"}.get(form, form)
    one, two = ((tmp_path / folder / f"walk.{ending}").read_bytes() for folder in "ab")
    # Shards name the person of the first frame otherwise.
    assert one == two.replace(b"people-0-00000003", b"people-0-00000000")


@pytest.mark.parametrize("form", FORMATS)
def test_a_frame_that_is_there_twice_is_refused(tmp_path: Path, models: ModelSet, form: str) -> None:
    run = made_run(tmp_path / "run", models, [0, 3, 3])
    with pytest.raises(
        OutputError, match="sequence walk: expected each frame once, found frame 3 as people-0-0"
    ):
        export(form, run, tmp_path / "out", ExportOptions(models))


@pytest.mark.parametrize("form", FORMATS)
def test_keys_are_looked_up_before_anything_is_written(tmp_path: Path, models: ModelSet, form: str) -> None:
    """Neither is an earlier export removed."""
    run, out = made_run(tmp_path / "run", models, range(2)), tmp_path / "out"
    export(form, run, out, ExportOptions(models, keys=("people-0-00000001",)))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for folder, overwrite in ((out, True), (tmp_path / "none", False)):
        keys = ("people-0-00000000", "b", "a")
        options = ExportOptions(models, keys=keys, overwrite=overwrite)
        with pytest.raises(
            OutputError, match=r"expected a person with the key a, found none \(nor for 1 more keys\)$"
        ):
            export(form, run, folder, options)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_rate_that_no_camera_has_is_refused(tmp_path: Path, models: ModelSet, form: str) -> None:
    run = made_run(tmp_path / "run", models, range(2))
    for rate in (1e-9, 1e9):
        with pytest.raises(OutputError, match="--frame-rate: expected 0.1 to 10000 Hz, found"):
            export(form, run, tmp_path / "out", ExportOptions(models, frame_rate=rate))


def test_a_model_of_nobody_in_particular_is_said(tmp_path: Path, models: ModelSet) -> None:
    """Labels without betas, as of SMPL-X, give the mean person's model."""
    said = "warning: the labels of walk have betas of 0"
    mean = export(
        "opensim",
        made_run(tmp_path / "a", models, range(2), smpl_betas=0),
        tmp_path / "x",
        ExportOptions(models),
    )
    own = export("opensim", made_run(tmp_path / "b", models, range(2)), tmp_path / "y", ExportOptions(models))
    assert said in "\n".join(mean.notes) and said not in "\n".join(own.notes)
    assert own.notes[0] == f"2 people in 1 motion in {tmp_path / 'y'}, with a model (.osim)"


def test_names_of_markers_are_unique() -> None:
    assert len({name.lower() for name in MARKER_NAMES}) == len(MARKER_NAMES) == 24 * 3 + len(MARKERS)


def test_numbers_of_odd_people_are_finite(tmp_path: Path, models: ModelSet) -> None:
    """Betas of 5 sigma, angles far outside of their limits, a gap of hundreds of frames."""
    rng = np.random.default_rng(0)
    run = made_run(
        tmp_path / "run",
        models,
        [0, 1, 500],
        skel_betas=5,
        skel_poses=rng.uniform(-7, 7, (3, 46)).astype(np.float32),
    )
    for form in FORMATS:
        export(form, run, tmp_path / form, ExportOptions(models))
    rows = (tmp_path / "opensim" / "walk.mot").read_text().split("endheader\n")[1].splitlines()[1:]
    table = np.array([row.split("\t") for row in rows], float)
    assert np.isfinite(table).all() and table[:, 0] == pytest.approx([0, 1 / 30, 500 / 30], abs=1e-7)
    assert "nan" not in (tmp_path / "opensim" / "walk.osim").read_text().lower()
    lines = (tmp_path / "bvh" / "walk.bvh").read_text().split("MOTION")[1].splitlines()
    assert lines[1] == "Frames: 501" and np.isfinite([float(x) for x in lines[250].split()]).all()


@pytest.mark.parametrize("form", [*FORMATS, "ply"])
def test_people_whose_numbers_are_not_finite_are_left_out(
    tmp_path: Path, models: ModelSet, form: str
) -> None:
    """They are counted; the other frames keep their times. Asked for by key, they are refused."""
    fields = make_fields(3)
    for name, row, value in (("skel_poses", 1, np.nan), ("skel_trans", 2, np.inf)):
        fields[name][row, 0] = value
    run = made_run(
        tmp_path / "run", models, [0, 2, 4], skel_poses=fields["skel_poses"], skel_trans=fields["skel_trans"]
    )
    result = export(form, run, tmp_path / "out", ExportOptions(models))
    assert (result.people, result.left_out) == (1, 2)
    assert "2 people are left out: their numbers are not finite" in result.notes
    said = "expected a person with the key people-0-00000001, found numbers that are not finite"
    with pytest.raises(OutputError, match=said):
        export(form, run, tmp_path / "one", ExportOptions(models, keys=("people-0-00000001",)))
    bare = made_run(tmp_path / "bare", models, [0, 1], skel_betas=np.nan)
    assert export(form, bare, tmp_path / "none", ExportOptions(models)).people == 0
