"""Export to HSMR's tars: read as its loader reads them, mirrored poses, crops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from export_fakes import export, make_fields, make_metas, write_run
from job_fakes import picture
from scipy.spatial import cKDTree

from skelfit.bodies.dofs import DOF_NAMES, dof_limits
from skelfit.bodies.mirrored_dofs import mirrored_poses
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.errors import OutputError

# webdataset leaves the tars that it read for the garbage collector to close.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def load(folder: Path) -> list[dict[str, Any]]:
    """One item per person, as HSMR's loader makes them: decoded images and pickles, one person each."""
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    items = []
    for item in webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").rename(jpg="jpg;jpeg;png"):
        for person, data in enumerate(item["data.pyd"]):
            items.append({"name": item["__key__"], "person": person, "img": item["jpg"], **data})
    return items


def usable(item: dict[str, Any], side: str, worst: float) -> bool:
    """Whether HSMR would use the pose of a side, with its filters."""
    bad = np.isnan(item[f"{side}_poses"]).any() or np.isnan(item[f"{side}_betas"]).any()
    too_few = (np.where(item["keypoints_2d"][:, 2] < 0.3, 0, item["keypoints_2d"][:, 2]) > 0).sum() <= 4
    loss = item.get("extra_info", {}).get("fitting_loss", np.array({})).item().get("reprojection_loss")
    return not bad and not too_few and loss is None and item[f"{side}_pve_max"] < worst


def test_hsmrs_loader_reads_all_people_with_an_image(tmp_path: Path) -> None:
    fields = make_fields(20)
    fields["gtkps"][..., 2] = 1
    names = [f"train/{max(i, 1):06d}.jpg" for i in range(20)]  # rows 0 and 1 share an image
    images = {i: ("jpg" if i % 2 else "png", picture(i, form="JPEG" if i % 2 else "PNG")) for i in range(20)}
    images[0] = images[1]
    images[7] = ("webp", picture(7, form="WEBP"))
    del images[9], images[16], images[17], images[18], images[19]
    run = write_run(tmp_path / "run", fields, make_metas(20, imgname=names), images=images)
    result = export("hsmr", run, tmp_path / "out")
    assert (result.people, result.left_out) == (14, 6)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000.tar", "000001.tar", "export.json"]
    items = load(tmp_path / "out")
    kept = [i for i in range(16) if i not in (7, 9)]
    assert [item["extra_info"]["row"] for item in items] == kept
    assert [(item["name"], item["person"]) for item in items[:3]] == [
        ("people-0-00000000", 0),
        ("people-0-00000000", 1),
        ("people-0-00000002", 0),
    ]
    for i, item in zip(kept, items, strict=True):
        assert item["img"].shape == (16, 16, 3)
        for key, name in (("keypoints_2d", "gtkps"), ("keypoints_3d", "keypoints3d")):
            np.testing.assert_array_equal(item[key], fields[name][i])
        for key in ("center", "scale"):
            np.testing.assert_array_equal(item[key], fields[key][i])
        np.testing.assert_array_equal(item["orig_poses"], fields["skel_poses"][i])
        np.testing.assert_array_equal(item["orig_betas"], fields["skel_betas"][i])
        np.testing.assert_array_equal(item["flip_betas"], fields["skel_betas"][i])
        for side in ("orig", "flip"):
            assert item[f"{side}_has_poses"] == item[f"{side}_has_betas"] == 1
            assert usable(item, side, 0.06) == (fields["errors"][i, 1] < 60)
    with pytest.raises(OutputError, match="holds files already"):
        export("hsmr", run, tmp_path / "out")


def test_a_mirrored_pose_has_the_mirrored_skin(models: ModelSet) -> None:
    model = SkelModel(models.skel_of("male"), dtype=torch.float64)
    low, high = np.clip(dof_limits(), -1.0, 1.0).T
    poses = np.random.default_rng(0).uniform(low, high, (8, 46)).astype(np.float32)
    poses[:, [DOF_NAMES.index(f"ankle_angle_{side}") for side in "rl"]] = 0  # SKEL does not mirror its axis
    np.testing.assert_array_equal(mirrored_poses(mirrored_poses(poses)), poses)
    shape = model.shape(torch.randn(8, 10, dtype=torch.float64))
    one, other = (
        model.forward(shape, torch.tensor(q).double()).vertices for q in (poses, mirrored_poses(poses))
    )
    template = model.v_template.numpy()
    away, partner = cKDTree(template).query(template * [-1, 1, 1])
    assert away.max() < 1e-6  # the open body is symmetric
    mirror = torch.tensor([-1.0, 1, 1]).double()
    assert (one * mirror - other[:, partner]).norm(dim=-1).max() < 1e-3


def test_pixels_follow_a_crop(tmp_path: Path) -> None:
    fields = make_fields(2)
    fields["gtkps"] = (fields["gtkps"] * 100 + 300).astype(np.float32)
    affine = [[0.5, 0.0, -30.0], [0.0, 0.5, 12.0]]
    metas = make_metas(2, affine=[affine, None])
    run = write_run(tmp_path / "run", fields, metas, images={i: ("jpg", picture(i)) for i in range(2)})
    export("hsmr", run, tmp_path / "out")
    crop, whole = load(tmp_path / "out")
    np.testing.assert_allclose(crop["keypoints_2d"][:, 0], fields["gtkps"][0, :, 0] * 0.5 - 30, rtol=1e-6)
    np.testing.assert_allclose(crop["keypoints_2d"][:, 1], fields["gtkps"][0, :, 1] * 0.5 + 12, rtol=1e-6)
    np.testing.assert_array_equal(crop["keypoints_2d"][:, 2], fields["gtkps"][0, :, 2])
    np.testing.assert_allclose(crop["center"], fields["center"][0] * 0.5 + [-30, 12], rtol=1e-6)
    np.testing.assert_allclose(crop["scale"], fields["scale"][0] / 2)
    np.testing.assert_array_equal(whole["keypoints_2d"], fields["gtkps"][1])


def test_shards_without_images_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_fields(2), make_metas(2))
    with pytest.raises(OutputError, match="no person has an image"):
        export("hsmr", run, tmp_path / "out")
