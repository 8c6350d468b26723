"""The bad labels that the study of better labels begins with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageColor
from train_shards import data_config, write_people

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.learning.data.data_loader import each_once
from tools.studies.better_labels import COLORS, VARIANTS, draw_curves, spoil


def test_bad_labels_are_off_as_asked_and_the_rest_stays(tmp_path: Path, models: ModelSet) -> None:
    good, bad = write_people(tmp_path / "good", 4), tmp_path / "bad"
    bad.mkdir()
    angles = np.random.default_rng(0).normal(0, 0.3, 43)
    spoil(next(good.glob("*.tar")), bad, angles, models)
    true, found = (next(iter(each_once(data_config(f, batch_size=4)))) for f in (good, bad))
    assert found.keys == true.keys and found.fitted_points.all() and not true.fitted_points.all()
    for name in ("pixels", "keypoints2d", "cam_int", "center", "box_size", "female"):
        assert torch.equal(getattr(found, name), getattr(true, name)), name
    assert torch.equal(found.poses[:, :3], true.poses[:, :3]) and not found.betas.any()
    off = found.poses[:, 3:] - true.poses[:, 3:]
    torch.testing.assert_close(off, torch.from_numpy(angles).float().expand(4, 43), rtol=0, atol=1e-5)
    for i, female in enumerate(found.female.tolist()):
        points = SkelKeypoints(models, "female" if female else "male")(found.poses[i], found.betas[i])
        given = found.keypoints3d[i, :, :3]
        torch.testing.assert_close(given - given[39], points - points[39], rtol=0, atol=1e-4)


def test_the_picture_has_a_line_of_each_variant(tmp_path: Path) -> None:
    records = [
        {"variant": name, "curve": [{"step": step, "pa_mpjpe_mm": 50.0 + 9 * i} for step in (100, 200)]}
        for i, name in enumerate(VARIANTS)
    ]
    draw_curves(tmp_path / "curves.png", records)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        counts = {color: count for count, color in picture.convert("RGB").getcolors(2**20) or []}
    assert all(counts.get(ImageColor.getrgb(color), 0) > 500 for color in COLORS)
