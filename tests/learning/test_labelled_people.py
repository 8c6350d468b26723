"""Predictions of people of shards, beside their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prediction_runs import rows_of, run_predict
from train_shards import write_people

from skelfit.learning.data.data_loader import DataConfig, each_once
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.learning.inference.labelled_people import people_of_shards, prepare_sample
from skelfit.shards.label_vector import unpack


@pytest.mark.parametrize("crops", [False, True], ids=["images", "crops"])
def test_crops_of_shards_are_those_of_validation(crops: bool, tmp_path: Path) -> None:
    tars = sorted(write_people(tmp_path, 6, crops=crops).glob("*.tar"))
    config = DataConfig((SubsetConfig(f"{tmp_path}/*.tar"),), batch_size=6, workers=0)
    batch = next(iter(each_once(config)))
    people = list(people_of_shards(tars, None))
    assert tuple(person.key for person in people) == batch.keys and len(people) == 6
    for i, person in enumerate(people):
        prepared = prepare_sample(person, unpack(person.label))
        (crop,) = prepared.inputs
        np.testing.assert_array_equal(crop.pixels.transpose(2, 0, 1), batch.pixels[i].numpy())
        np.testing.assert_allclose(crop.square, [*batch.center[i].tolist(), batch.box_size[i]], rtol=1e-6)
        (fx, _, cx), (_, fy, cy), _ = batch.cam_int[i].tolist()
        assert crop.camera == pytest.approx((fx, fy, cx, cy))


def test_pictures_of_shards_show_prediction_and_label(trained: Path, tmp_path: Path) -> None:
    tars = sorted(write_people(tmp_path / "shards", 12, crops=True).glob("*.tar"))
    result = run_predict(trained, *tars, "--out", tmp_path / "out", "--meshes", "none")
    assert result.exit_code == 0, result.output
    everyone = [row["photo"] for row in rows_of(tmp_path / "out")]
    assert len(everyone) == 12 and f"{len(everyone)} people out" in result.output
    with Image.open(tmp_path / "out" / "overlays" / f"{everyone[0]}.jpg") as picture:
        assert picture.width in (
            2 * picture.height,
            4 * picture.height,
        )  # without a label of the other gender
    run_predict(
        trained, *tars, "--out", tmp_path / "held", "--meshes", "none", "--overlays", "none", "--held-out"
    )
    held = [row["photo"] for row in rows_of(tmp_path / "held")]
    config = DataConfig((SubsetConfig(f"{tmp_path}/shards/*.tar"),), batch_size=99, workers=0, held_out=0.5)
    assert held == [key for batch in each_once(config, held_out=True) for key in batch.keys]
    assert 0 < len(held) < 12
