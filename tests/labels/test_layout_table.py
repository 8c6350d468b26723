"""The table of layouts in docs/labels.md: every row is run by the command that it shows, from a file to shards."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
import torch
import track_files as tracks
from camerahmr_file import camerahmr_arrays
from label_files import LAYOUTS, N, write
from track_files import TRACK_FILES

from skelfit.bodies.model_set import open_models
from skelfit.bodies.smpl import SmplModel
from skelfit.labels.demo_people import sample_labels
from skelfit.shards.shard_reader import read_samples

DOCS = (Path(__file__).parents[2] / "docs" / "labels.md").read_text()
ROWS = 3  # of the files whose size the tests choose: a fit of everyone takes minutes
SECONDS = 900.0  # that a command may take: the first one compiles the fit


def columns_file(layout: str, make: Callable[[], dict[str, Any]]) -> Callable[[Path], Path]:
    """What writes an npz of ROWS people in a layout of one row per person."""

    def file(folder: Path) -> Path:
        columns = {
            key: value[:ROWS] if getattr(value, "shape", ())[:1] == (N,) else value
            for key, value in make().items()
        }
        return write(folder / f"{layout}.npz", columns)

    return file


def meshes() -> dict[str, Any]:
    """Meshes of demo people, in centimetres."""
    pose, betas, pelvis = (torch.tensor(x) for x in sample_labels(ROWS, 0, 0.0))
    model = SmplModel(open_models().smpl_of("male"))
    return {"vertices": 100 * model.vertices(pose, betas, pelvis).numpy(), "gender": np.array("male")}


MAKERS: dict[str, Callable[[Path], Path]] = {
    "camerahmr": columns_file("camerahmr", lambda: camerahmr_arrays(N)),
    **{layout: columns_file(layout, LAYOUTS[layout]) for layout in ("4dhumans", "spin", "amass", "hmr2")},
    "mesh": columns_file("mesh", meshes),
    "bedlam": tracks.bedlam,
    "smplifyx": tracks.smplifyx,
    **{str(layout): file for layout, file in TRACK_FILES.items()},
    "pare_image": tracks.pare_image,
    "romp_image": tracks.romp_image,
}
NAMES = {"smplifyx": "SMPLify-X", "pare_image": "PARE, of an image", "romp_image": "ROMP, of an image"}


def convert(layout: str, folder: Path) -> str:
    """Run the command on a file of the layout; its row in the table of the docs."""
    words = ["convert", "--labels", MAKERS[layout](folder).name, "--out", "out"]
    program = programs.start("-m", "skelfit", *words, folder=folder)
    said, errors = program.communicate(SECONDS)
    assert program.returncode == 0, said + errors
    summary = json.loads((folder / "out" / "summary.json").read_text())
    metas = [meta for tar in sorted((folder / "out").glob("*.tar")) for _, _, meta in read_samples(tar)]
    (coordinates,) = {meta["coordinates"] for meta in metas}
    assert summary["rows_in"] == sum(summary["statuses"].values())
    sequences = len({meta["sequence"] for meta in metas} - {None})
    statuses = ", ".join(
        f"{count} {status}" for status, count in sorted(summary["statuses"].items()) if count
    )
    command = f"`skelfit {shlex.join(words)}`"
    name = NAMES.get(layout, f"`{layout}`")
    return f"| {name} | {command} | {statuses} | {sequences or '-'} | `{coordinates}` |"


@pytest.mark.soak
@pytest.mark.parametrize("layout", MAKERS)
def test_the_docs_say_what_comes_out(tmp_path: Path, layout: str) -> None:
    row = convert(layout, tmp_path)
    assert f"\n{row}\n" in DOCS, row


def test_the_table_has_every_layout_once() -> None:
    """A row for each file that is run, and for nothing else."""
    table = DOCS.split("### Layouts, end to end\n", 1)[1].split("\n#", 1)[0]
    names = [line.split(" | ")[0] for line in table.splitlines() if "`skelfit convert" in line]
    assert names == [f"| {NAMES.get(layout, f'`{layout}`')}" for layout in MAKERS]
    assert len(names) >= 16
