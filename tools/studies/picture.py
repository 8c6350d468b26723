"""Targets and fits side by side, as one small picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from skelfit.conversion.fitted_rows import RowFits
from skelfit.errors import OutputError
from skelfit.fitting.fitter import PairFitter
from skelfit.labels.demo_pictures import RenderSurface, draw_person, make_surface
from skelfit.labels.label_batch import LabelBatch

Array = NDArray[np.float32]
_SIZE = 144  # px, of the square that a body is drawn in
_CROP = 28  # px that are cut off at its left and right
_FOCAL, _DISTANCE = 1.75 * _SIZE, 4.0  # px, m
_COLUMNS = 10  # pairs in a line
_TURN = 0.5  # rad, seen from a little aside


def draw_pairs(pairs: Sequence[PairFitter], people: LabelBatch, fits: RowFits, rows: list[int]) -> Array:
    """Lines of pairs, (H, W, 3) of 0..255: SMPL's mesh left, SKEL's right, both turned upright."""
    surface, pictures = make_surface(pairs[0].smpl.asset), []
    by_gender = {pair.skel.gender == "female": pair for pair in pairs}
    for k in rows:
        pair = by_gender.get(bool(fits.female[k]), pairs[0])  # a person without a fit has no gender
        target, fit = _skins(pair, people, fits, k)
        pictures.append(np.concatenate([_draw(surface, skin, k) for skin in (target, fit)], axis=1))
    pictures += [np.full_like(pictures[0], 255)] * (-len(pictures) % _COLUMNS)
    lines = [np.concatenate(pictures[i : i + _COLUMNS], 1) for i in range(0, len(pictures), _COLUMNS)]
    return np.concatenate(lines)


def write_picture(path: Path, picture: Array) -> None:
    """Write a JPEG. Raises OutputError."""
    try:
        Image.fromarray(picture.astype(np.uint8)).save(path, "JPEG", quality=80, optimize=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}") from None


@torch.no_grad()
def _skins(pair: PairFitter, people: LabelBatch, fits: RowFits, k: int) -> tuple[Array, Array]:
    """Target and fit of person k, (V, 3) m each, upright in front of the camera."""

    def row(values: Array) -> torch.Tensor:
        return torch.tensor(values[k : k + 1])

    target = pair.smpl.vertices(row(people.pose), row(people.betas), row(people.transl))
    fit = pair.skel.forward(pair.skel.shape(row(fits.betas)), row(fits.poses), row(fits.trans)).vertices
    # SMPL's y points up and its z forward; the camera's y points down and its z away from it.
    turn = Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec([0, _TURN, 0])
    turn = turn * Rotation.from_rotvec(people.pose[k, 0]).inv()
    centre = (target[0].amin(0) + target[0].amax(0)).cpu().numpy() / 2
    first, second = (
        (turn.apply(skin[0].cpu().numpy() - centre) + [0, 0, _DISTANCE]).astype(np.float32)
        for skin in (target, fit)
    )
    return first, second


def _draw(surface: RenderSurface, skin: Array, k: int) -> Array:
    camera = np.array([[_FOCAL, 0, _SIZE / 2], [0, _FOCAL, _SIZE / 2], [0, 0, 1]], np.float32)
    up, rng = np.array([0, -1, 0], np.float32), np.random.default_rng(k)
    picture = np.asarray(draw_person(surface, skin, camera, up, _SIZE, rng), np.float32)
    return picture[:, _CROP:-_CROP]
