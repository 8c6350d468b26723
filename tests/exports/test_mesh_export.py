"""Export of meshes: skin and bones as the model has them, upright, read back by another library's reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from export_fakes import export, make_fields, make_metas, write_run

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.errors import OutputError
from skelfit.exports.exporter import ExportOptions

TO_VIEWER = np.array([1, -1, -1])  # of the camera frame: x right, y up, z towards the camera


@pytest.fixture
def run(tmp_path: Path, models: ModelSet) -> Path:
    fields = make_fields(12)
    return write_run(tmp_path / "run", fields, make_metas(12), models_sha256=models.sha256)


@pytest.mark.parametrize("form", ["obj", "ply"])
def test_skin_and_bones_come_back(tmp_path: Path, run: Path, models: ModelSet, form: str) -> None:
    key = "people-0-00000010"
    assert export(form, run, tmp_path / "out", ExportOptions(models, keys=(key,))).people == 1
    fields = make_fields(12)
    model = SkelModel(models.skel_of("male"))
    betas, q, trans = (torch.tensor(fields[f"skel_{part}"][10])[None] for part in ("betas", "poses", "trans"))
    shape = model.shape(betas)
    skin, bones = model.forward(shape, q, trans).vertices[0], model.bones(shape, q, trans)[0]
    for name, expected, faces in (
        ("skin", skin, model.asset.faces),
        ("bones", bones, model.asset.bone_faces),
    ):
        mesh = trimesh.load_mesh(tmp_path / "out" / f"{key}-{name}.{form}", process=False)
        np.testing.assert_allclose(mesh.vertices, expected.numpy() * TO_VIEWER, atol=1e-5)
        np.testing.assert_array_equal(mesh.faces, faces)
    assert mesh.bounds[1, 1] - mesh.bounds[0, 1] > 0.5


def test_the_first_people_or_those_asked_for(tmp_path: Path, run: Path, models: ModelSet) -> None:
    assert export("ply", run, tmp_path / "two", ExportOptions(models, limit=2)).people == 2
    names = {f"people-0-0000000{i}-{part}.ply" for i in range(2) for part in ("skin", "bones")}
    assert {p.name for p in (tmp_path / "two").iterdir()} == names | {"export.json"}
    with pytest.raises(OutputError, match="expected a person with the key people-0-00000099"):
        export("ply", run, tmp_path / "none", ExportOptions(models, keys=("people-0-00000099",)))
