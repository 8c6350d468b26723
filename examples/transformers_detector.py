"""A detector of people for `skelfit predict --detector transformers_detector:people`, by Hugging Face transformers.

SKELFIT_DETECTOR names a model for object detection: of the Hub, or a folder. RT-DETR and YOLOS have free licences.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection

MODEL = os.environ.get("SKELFIT_DETECTOR", "PekingU/rtdetr_v2_r18vd")
LEAST_SCORE = 0.05  # skelfit's --min-score decides


@lru_cache(maxsize=1)
def load() -> tuple[Any, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return AutoImageProcessor.from_pretrained(MODEL), AutoModelForObjectDetection.from_pretrained(MODEL).to(
        device
    )


@torch.inference_mode()
def people(photo: Image.Image) -> list[list[float]]:
    """x, y, width, height in px and the score of each person."""
    processor, model = load()
    inputs = processor(images=photo, return_tensors="pt").to(model.device)
    sizes = torch.tensor([(photo.height, photo.width)])
    (found,) = processor.post_process_object_detection(model(**inputs), LEAST_SCORE, sizes)
    boxes = []
    for score, label, (left, top, right, bottom) in zip(
        found["scores"].tolist(), found["labels"].tolist(), found["boxes"].tolist(), strict=True
    ):
        if model.config.id2label[label] == "person":
            boxes.append([left, top, right - left, bottom - top, score])
    return boxes
