"""Export to SMPL: a label file that our readers read, of runs and of predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_fakes import export, make_fields, make_metas, write_run

from skelfit.bodies.assets import write_npz
from skelfit.bodies.model_set import ModelSet, open_models
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.errors import ArgumentError, ModelError, OutputError
from skelfit.exports.export_run import export as export_run
from skelfit.exports.exporter import ExportOptions
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.readers.registry import detect_layout, read_label_file

PEOPLE = 11
_SHARED = {"imgname", "center", "scale", "gtkps", "keypoints3d", "row", "coordinates", "gender", "pve_mm"}


@pytest.fixture(scope="module")
def models() -> ModelSet:
    return open_models()


def fields_of_people(seed: int = 0) -> dict[str, Any]:
    """Poses half as far as the limits allow, before the camera, with usable boxes and intrinsics."""
    fields = make_fields(PEOPLE, seed)
    fields["skel_poses"] *= 0.5
    fields["center"] = np.abs(fields["center"]) * 100
    fields["cam_int"][:] = [[900, 0, 320], [0, 900, 240], [0, 0, 1]]
    fields["gtkps"] = np.abs(fields["gtkps"])
    fields["gtkps"][..., 2] = 1
    return fields


def distances_mm(
    models: ModelSet, fields: dict[str, Any], genders: list[str], batch: LabelBatch
) -> np.ndarray:
    """Mean distance (N,) of the SMPL bodies of a label file to the SKEL bodies, float64."""
    errors = []
    for i, gender in enumerate(genders):
        smpl = SmplModel(models.smpl_of(gender), dtype=torch.float64)
        skel = SkelModel(models.skel_of(gender), dtype=torch.float64)
        q, betas, trans = (
            torch.tensor(fields[k][i]).double() for k in ("skel_poses", "skel_betas", "skel_trans")
        )
        mine = (torch.tensor(x[i]).double() for x in (batch.pose, batch.betas, batch.transl))
        distance = smpl.vertices(*mine) - skel.forward(skel.shape(betas), q, trans).vertices
        errors.append(1000 * float(distance.norm(dim=-1).mean()))
    return np.array(errors)


def test_a_label_file_in_the_camera(tmp_path: Path, models: ModelSet) -> None:
    fields, metas = fields_of_people(), make_metas(PEOPLE)
    run, out = tmp_path / "run", tmp_path / "new" / "smpl.npz"
    write_run(run, fields, metas, models_sha256=models.sha256)
    result = export("smpl", run, out, ExportOptions(models))
    assert result.people == PEOPLE and result.files == ("smpl.npz",) and result.left_out == 0
    with np.load(out) as file:
        arrays = dict(file)
    assert set(arrays) == _SHARED | {"pose_cam", "shape", "trans_cam", "cam_int"}
    assert f"{arrays['pve_mm'].mean():.2f} mm" in result.notes[0]
    assert detect_layout(out)[0] == "camerahmr"
    batch = read_label_file(out)
    genders = [meta["skel_gender"] for meta in metas]
    assert batch.bad == [""] * PEOPLE and batch.gender == genders
    assert batch.about.coordinates == "camera"
    for key in ("center", "scale", "cam_int", "gtkps", "keypoints3d"):
        np.testing.assert_array_equal(getattr(batch, key), fields[key])
    np.testing.assert_allclose(distances_mm(models, fields, genders, batch), arrays["pve_mm"], atol=1e-3)
    assert arrays["pve_mm"].max() < 12


def test_a_label_file_in_a_room(tmp_path: Path, models: ModelSet) -> None:
    """Without a camera, the names of smplx; who is a frame of what is said."""
    fields = fields_of_people(1)
    metas = make_metas(
        PEOPLE,
        imgname=[""] * PEOPLE,
        coordinates=["world_y_up"] * PEOPLE,
        camera=[False] * PEOPLE,
        sequence=["walk"] * PEOPLE,
        frame=list(range(PEOPLE)),
        subject=["s1"] * PEOPLE,
    )
    write_run(tmp_path / "run", fields, metas, models_sha256=models.sha256)
    export("smpl", tmp_path / "run", tmp_path / "smpl.npz", ExportOptions(models))
    with np.load(tmp_path / "smpl.npz") as file:
        arrays = dict(file)
    extra = {"label_file", "sequence", "subject", "frame"}
    body = {"global_orient", "body_pose", "betas", "transl"}
    assert set(arrays) == _SHARED - {"center", "scale", "gtkps"} | extra | body
    assert arrays["frame"].tolist() == list(range(PEOPLE)) and set(arrays["sequence"]) == {"walk"}
    assert detect_layout(tmp_path / "smpl.npz")[0] == "hmr2"
    batch = read_label_file(tmp_path / "smpl.npz")
    genders = [meta["skel_gender"] for meta in metas]
    np.testing.assert_allclose(distances_mm(models, fields, genders, batch), arrays["pve_mm"], atol=1e-3)


def test_a_label_file_of_crops(tmp_path: Path, models: ModelSet) -> None:
    """With images but without their camera, boxes under the names that HMR2 has."""
    fields = fields_of_people(3)
    metas = make_metas(PEOPLE, coordinates=["crop_camera"] * PEOPLE, camera=[False] * PEOPLE)
    write_run(tmp_path / "run", fields, metas, models_sha256=models.sha256)
    export("smpl", tmp_path / "run", tmp_path / "smpl.npz", ExportOptions(models))
    batch = read_label_file(tmp_path / "smpl.npz")
    assert batch.bad == [""] * PEOPLE and batch.imgname[1] == "train/000001.jpg"
    np.testing.assert_array_equal(batch.center, fields["center"])
    np.testing.assert_allclose(batch.scale, fields["scale"], rtol=1e-6)
    np.testing.assert_array_equal(batch.gtkps, fields["gtkps"])


def write_prediction(folder: Path, models: ModelSet, **changes: Any) -> dict[str, Any]:
    """A folder as `skelfit predict` writes it, of fields_of_people."""
    fields = fields_of_people(2)
    folder.mkdir()
    box = np.tile(np.array([10, 20, 100, 300], np.float32), (PEOPLE, 1))
    columns = {k: fields[k] for k in ("skel_poses", "skel_betas", "skel_trans", "cam_int")} | {"box": box}
    photos = np.array([f"photo{i}.jpg" for i in range(PEOPLE)])
    write_npz(folder / "people.npz", {"photo": photos, "sequence": np.full(PEOPLE, ""), **columns, **changes})
    record = {"skel_gender": "female", "models": {"sha256": models.sha256}, "people": PEOPLE}
    (folder / "predict.json").write_text(json.dumps(record))
    return fields


def test_a_prediction(tmp_path: Path, models: ModelSet) -> None:
    fields = write_prediction(tmp_path / "seen", models)
    counted: list[int] = []
    result = export_run(
        tmp_path / "seen",
        format="smpl",
        out=tmp_path / "smpl.npz",
        progress=lambda done, total: counted.extend((done, total)),
    )
    assert result.people == PEOPLE and counted[-2:] == [PEOPLE, PEOPLE]
    batch = read_label_file(tmp_path / "smpl.npz")
    assert batch.bad == [""] * PEOPLE and batch.about.coordinates == "camera"
    assert batch.imgname[3] == "photo3.jpg" and batch.gender == ["female"] * PEOPLE
    assert batch.center[0].tolist() == [60, 170] and batch.scale[0].tolist() == [0.5, 1.5]
    np.testing.assert_array_equal(batch.cam_int, fields["cam_int"])
    assert distances_mm(models, fields, batch.gender, batch).max() < 12


def test_people_that_are_not_finite_are_left_out_and_said(tmp_path: Path, models: ModelSet) -> None:
    fields = write_prediction(tmp_path / "seen", models)
    fields["skel_poses"][4, 5] = np.nan
    write_prediction(tmp_path / "damaged", models, skel_poses=fields["skel_poses"])
    result = export_run(tmp_path / "damaged", format="smpl", out=tmp_path / "smpl.npz")
    assert result.people == PEOPLE - 1 and result.left_out == 1
    assert "1 people are left out: their numbers are not finite" in result.notes
    with np.load(tmp_path / "smpl.npz") as file:
        assert "photo4.jpg" not in file["imgname"] and len(file["pose_cam"]) == PEOPLE - 1


def test_what_a_prediction_cannot_be_exported_to(tmp_path: Path, models: ModelSet) -> None:
    write_prediction(tmp_path / "seen", models)
    with pytest.raises(ArgumentError, match="format: expected smpl, for a folder of skelfit predict, found"):
        export_run(tmp_path / "seen", format="skel-cf", out=tmp_path / "x.npz")
    (tmp_path / "keep.csv").write_text("")
    with pytest.raises(ArgumentError, match="keep: expected none, for a folder of skelfit predict"):
        export_run(tmp_path / "seen", format="smpl", out=tmp_path / "x.npz", keep=tmp_path / "keep.csv")
    record = json.loads((tmp_path / "seen" / "predict.json").read_text())
    record["models"]["sha256"] = "0" * 64
    (tmp_path / "seen" / "predict.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="expected the models of the prediction, 0000"):
        export_run(tmp_path / "seen", format="smpl", out=tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


def test_files_are_not_replaced(tmp_path: Path, models: ModelSet) -> None:
    write_run(tmp_path / "run", fields_of_people(), make_metas(PEOPLE), models_sha256=models.sha256)
    with pytest.raises(OutputError, match="expected a file name that ends in .npz"):
        export("smpl", tmp_path / "run", tmp_path / "smpl.pkl", ExportOptions(models))
    (tmp_path / "smpl.npz").write_text("mine")
    with pytest.raises(OutputError, match="exists already; choose another name or --overwrite"):
        export("smpl", tmp_path / "run", tmp_path / "smpl.npz", ExportOptions(models))
    assert (tmp_path / "smpl.npz").read_text() == "mine"
    export("smpl", tmp_path / "run", tmp_path / "smpl.npz", ExportOptions(models, overwrite=True))
    assert len(read_label_file(tmp_path / "smpl.npz")) == PEOPLE
    write_run(tmp_path / "other", fields_of_people(), make_metas(PEOPLE))
    with pytest.raises(ModelError, match="expected the models of the run, 0000"):
        export("smpl", tmp_path / "other", tmp_path / "x.npz", ExportOptions(models))
