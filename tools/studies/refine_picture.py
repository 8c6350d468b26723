"""Refined people beside the truth, from the camera and from their side, as one small picture."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.fitting.refinement.refinement_problem import BodyParameters
from skelfit.labels.demo_pictures import RenderSurface, draw_person, make_surface

Array = NDArray[np.float32]
_SIZE, _FOCAL, _DISTANCE = 128, 1.75 * 128, 4.0  # px, px, m
_SIDE = np.pi / 2  # rad, about the camera's vertical


@torch.no_grad()
def draw_rows(models: ModelSet, people: list[BodyParameters], female: Tensor, rows: list[int]) -> Array:
    """A line for each person of rows, (H, W, 3) of 0..255: of each of `people`, the camera's view, then the side's."""
    surface, lines = make_surface(models.smpl_of("neutral")), []
    for k in rows:
        model = SkelModel(models.skel_of("female" if female[k] else "male"))
        pictures = []
        for one in people:
            out = model.forward(model.shape(one.betas[k]), one.angles[k])
            skin = (out.vertices - out.joints[0]).numpy()
            for turn in (0.0, _SIDE):
                pictures.append(_draw(surface, Rotation.from_rotvec([0, turn, 0]).apply(skin), k))
        lines.append(np.concatenate(pictures, 1))
    return np.concatenate(lines)


def _draw(surface: RenderSurface, skin: Array, k: int) -> Array:
    camera = np.array([[_FOCAL, 0, _SIZE / 2], [0, _FOCAL, _SIZE / 2], [0, 0, 1]], np.float32)
    up, rng = np.array([0, -1, 0], np.float32), np.random.default_rng(k)
    centred = (skin - (skin.min(0) + skin.max(0)) / 2 + [0, 0, _DISTANCE]).astype(np.float32)
    return np.asarray(draw_person(surface, centred, camera, up, _SIZE, rng), np.float32)
