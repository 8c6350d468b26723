"""Bare meshes as labels, from file to shards: SKEL is fitted to them without SMPL's parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from label_files import write

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.cli import main
from skelfit.labels.demo_people import sample_labels
from skelfit.shards.label_vector import unpack
from skelfit.shards.shard_reader import read_json, read_rows, read_samples

MESHES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models: ModelSet) -> Path:
    """A run on SMPL meshes of demo people in centimetres; the fourth has a vertex that is not finite."""
    folder = tmp_path_factory.mktemp("meshes")
    pose, betas, pelvis = (torch.tensor(x) for x in sample_labels(MESHES, 0, 0.0))
    vertices = SmplModel(models.smpl_of("male")).vertices(pose, betas, pelvis).numpy()
    np.save(folder / "truth.npy", vertices)
    vertices = 100 * vertices
    vertices[3, 17, 1] = np.nan
    names = np.array([f"{i}.jpg" for i in range(MESHES)])
    gender = np.array(["male"] * MESHES)
    labels = write(folder / "meshes.h5", {"verts": vertices, "imgname": names, "gender": gender})
    arguments = ["convert", "--labels", labels, "--out", folder / "out", "--workers", "0"]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    assert (
        "6 rows of mesh labels (told by its keys 'verts')\n  coordinates of the labels: unknown\n  'verts': in cm"
        in result.output
    )
    return folder


def test_skel_meets_the_meshes(folder: Path, models: ModelSet) -> None:
    truth = np.load(folder / "truth.npy")
    samples = list(read_samples(folder / "out" / "meshes-000000.tar"))
    assert len(samples) >= MESHES - 2
    label = unpack(np.array([label for _, label, _ in samples]))
    rows = [meta["row"] for _, _, meta in samples]
    model = SkelModel(models.skel_of("male"))
    shape = model.shape(torch.tensor(label["skel_betas"]))
    output = model.forward(shape, torch.tensor(label["skel_poses"]), torch.tensor(label["skel_trans"]))
    distance = 1000 * np.linalg.norm(output.vertices.numpy() - truth[rows], axis=2)
    np.testing.assert_allclose(label["errors"][:, 0], distance.mean(1), rtol=1e-3)
    assert distance.mean() < 7  # labels on the same people leave 4 mm
    assert models.keypoints44 is not None
    points = np.einsum("kv,nvc->nkc", models.keypoints44, output.vertices.numpy())
    np.testing.assert_allclose(label["keypoints3d"][..., :3], points, atol=1e-4)


def test_metadata_say_that_there_is_no_smpl(folder: Path) -> None:
    samples = list(read_samples(folder / "out" / "meshes-000000.tar"))
    label = unpack(np.array([label for _, label, _ in samples]))
    for name in ("smpl_pose", "smpl_betas", "smpl_trans", "cam_int"):
        assert not label[name].any()
    for _, _, meta in samples:
        assert (meta["smpl"], meta["camera"], meta["coordinates"]) == (False, False, "unknown")
        assert (meta["keypoints3d"], meta["smpl_gender"], meta["skel_gender"]) == ("skel", "male", "male")
        assert meta["imgname"] == f"{meta['row']}.jpg" and meta["root"] == "free"


def test_every_mesh_is_accounted_for(folder: Path) -> None:
    rows = list(read_rows(folder / "out" / "meshes-000000.rows.jsonl"))
    assert [row["row"] for row in rows] == list(range(MESHES))
    assert (rows[3]["status"], rows[3]["reason"]) == ("bad_input", "non_finite:verts")
    assert rows[0]["betas_mm"] == {"transferred": None, "refined": None}
    assert rows[0]["stage_pve_mm"] == {"lower_body": None, "upper_body": None, "full": rows[0]["pve_mm"]}
    summary = read_json(folder / "out" / "summary.json")
    assert summary["rows_in"] == MESHES == sum(summary["statuses"].values())
    assert summary["identity"]["labels"][0]["source"] == "mesh"
