"""The pictures of a photo with its people: skin and bones beside each other, and the estimates of all layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from skelfit.learning.inference.overlay import OverlayPainter
from skelfit.learning.inference.photo_results import PhotoResult
from skelfit.learning.inference.predictor import Array, PredictedPeople, Predictor

_LINE = 16  # px, the least height of a line of text
_WIDTH_OF_LINE = 24  # of a picture, in heights of its line of text


class PeoplePictures:
    """Draws the people of a predictor."""

    def __init__(self, predictor: Predictor, *, bones: bool) -> None:
        """bones: whether overlays have a panel with the bones."""
        asset = predictor.body.asset
        self._predictor = predictor
        self._skin = OverlayPainter(asset.faces, len(asset.v_template))
        self._bones = OverlayPainter(asset.bone_faces, len(asset.bone_v_template)) if bones else None

    def overlay(self, result: PhotoResult) -> Image.Image:
        """The people over their photo: skin with joints, and bones; with labels, the photo first and the label last."""
        panels = [self._with_skin(result, result.people)]
        if self._bones is not None:
            panels.append(self._with_bones(result, result.people))
        if result.labels is not None:
            assert result.picture is not None
            panels = [Image.fromarray(result.picture), *panels, self._with_skin(result, result.labels)]
        return side_by_side(panels)

    def layers(self, result: PhotoResult) -> Image.Image:
        """The photo, and over it the skin and joints of each estimate from coarse to fine, each under its name."""
        panels = [_plain(result), *(self._with_skin(result, people) for people in result.layers)]
        names = ("photo", *self._predictor.estimate_names(len(result.layers)))
        return side_by_side([_captioned(*pair) for pair in zip(panels, names, strict=True)])

    def _with_skin(self, result: PhotoResult, people: PredictedPeople | None) -> Image.Image:
        if people is None:
            return _plain(result)
        return self._draw(self._skin, result, people, people.skin, list(people.joints))

    def _with_bones(self, result: PhotoResult, people: PredictedPeople | None) -> Image.Image:
        if people is None:
            return _plain(result)
        assert self._bones is not None
        return self._draw(self._bones, result, people, self._predictor.bones(people)[0], ())

    def _draw(
        self,
        painter: OverlayPainter,
        result: PhotoResult,
        people: PredictedPeople,
        meshes: Array,
        joints: Sequence[Array],
    ) -> Image.Image:
        assert result.picture is not None
        cameras = people.cam_int
        if result.affine is not None:
            cameras = np.concatenate([result.affine, [[0, 0, 1]]]).astype(np.float32) @ cameras
        boxes = [result.boxes[i] for i in result.ok_boxes]
        numbers = [i if box.track is None else box.track for i, box in enumerate(boxes)]
        return painter.draw(result.picture, result.size, list(meshes), list(cameras), joints, numbers)


def _plain(result: PhotoResult) -> Image.Image:
    assert result.picture is not None
    return Image.fromarray(result.picture)


def _captioned(panel: Image.Image, text: str) -> Image.Image:
    """A picture below a line of text."""
    line = max(_LINE, panel.width // _WIDTH_OF_LINE)
    whole = Image.new("RGB", (panel.width, panel.height + line), "white")
    whole.paste(panel, (0, line))
    font = ImageFont.load_default(0.75 * line)
    ImageDraw.Draw(whole).text((line // 4, line // 2), text, "black", font, anchor="lm")
    return whole


def side_by_side(panels: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size as one picture."""
    whole = Image.new("RGB", (sum(panel.width for panel in panels), panels[0].height))
    at = 0
    for panel in panels:
        whole.paste(panel, (at, 0))
        at += panel.width
    return whole
