"""The example of a detector, with a small random network in place of a trained one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prediction_runs import rows_of, run_predict

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from transformers import YolosConfig, YolosForObjectDetection

    labels = {0: "person", 1: "dog"}
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[64, 64],
        num_detection_tokens=6,
        id2label=labels,
        label2id={name: number for number, name in labels.items()},
    )
    network: Any = YolosForObjectDetection(config)
    network.class_labels_classifier.layers[-1].bias.data[:] = network.bbox_predictor.layers[-1].bias.data[
        0
    ] = 0
    network.class_labels_classifier.layers[-1].bias.data[0] = 3  # people everywhere
    network.save_pretrained(tmp_path / "model")
    (tmp_path / "model/preprocessor_config.json").write_text(
        json.dumps(
            {"image_processor_type": "YolosImageProcessor", "size": {"shortest_edge": 64, "longest_edge": 64}}
        )
    )
    return tmp_path / "model"


@pytest.mark.filterwarnings("ignore")  # of transformers
def test_people_of_an_object_detector(
    model: Path, trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKELFIT_DETECTOR", str(model))
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    monkeypatch.delitem(sys.modules, "transformers_detector", raising=False)
    wide = tmp_path / "wide.png"
    Image.open(photos / "000000000000.jpg").convert("RGB").resize((160, 80)).save(wide)
    plain = ("--meshes", "none", "--overlays", "none", "--min-score", 0.2)
    result = run_predict(
        trained, wide, "--detector", "transformers_detector:people", *plain, "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path / "out")
    boxes = np.array([row["box"] for row in rows])
    assert len(rows) == 6 and {row["status"] for row in rows} <= {"ok", "bad_box"}
    centres = boxes[:, :2] + boxes[:, 2:] / 2  # in px of the photo, not of what the network saw
    assert (centres > 0).all() and (centres < (160, 80)).all() and centres[:, 0].max() > 70
