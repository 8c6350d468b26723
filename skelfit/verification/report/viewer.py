"""One person in an interactive viewer (viser) in the browser: meshes, photo, and a slider for each DoF."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray
from PIL import Image

from skelfit.bodies.dofs import DOF_JOINT, DOF_NAMES, NUM_DOFS, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.verification.report.gallery import (
    PersonDrawer,
    PosableFigure,
    StoredPerson,
    crop_photo,
)

HOST = "127.0.0.1"
_TARGET, _SKIN, _BONES = (107, 135, 168), (222, 143, 107), (236, 226, 198)
# Title, joints whose DoFs are in the group, and whether its sliders are unfolded at first.
_GROUPS: tuple[tuple[str, Sequence[int], bool], ...] = (
    ("Pelvis", range(1), False),
    ("Right leg", range(1, 6), True),
    ("Left leg", range(6, 11), True),
    ("Spine and head", range(11, 14), False),
    ("Right arm", range(14, 19), False),
    ("Left arm", range(19, 24), False),
)


def slider_range(limits_deg: NDArray[np.float64], stored_deg: float) -> tuple[float, float]:
    """The ends of a slider in degrees: the limits with a margin, or a whole turn, and the stored angle."""
    low, high = limits_deg if np.isfinite(limits_deg).all() else (-180.0, 180.0)
    margin = 30.0 if np.isfinite(limits_deg).all() else 0.0
    return float(min(low - margin, np.floor(stored_deg))), float(max(high + margin, np.ceil(stored_deg)))


class Viewer:
    """The viewer of one person; it serves from a thread of its own until `stop`."""

    def __init__(self, key: str, sample: StoredPerson, models: ModelSet, port: int) -> None:
        artist = PersonDrawer(models)
        self._figure = PosableFigure(artist, sample)
        self.server = viser.ViserServer(host=HOST, port=port, label=f"skelfit: {key}", verbose=False)
        self.server.scene.set_up_direction("+y")
        self.server.initial_camera.position = (0.62, 0.2, 1.65)
        self.server.initial_camera.look_at = (0.0, 0.0, 0.0)
        self._add_meshes()
        self._add_switches(key, sample)
        self.sliders = self._add_sliders()

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server.get_port()}"

    def stop(self) -> None:
        """Stop serving."""
        self.server.stop()

    def _add_meshes(self) -> None:
        scene, figure = self.server.scene, self._figure
        faces, bone_faces = figure.model.asset.faces, figure.model.asset.bone_faces
        posed = figure.pose(figure.stored)
        self.bones = scene.add_mesh_simple(
            "/skeleton", _f4(posed.bones), bone_faces, color=_BONES, side="double"
        )
        self.skin = scene.add_mesh_simple("/skin", _f4(posed.skin), faces, color=_SKIN, opacity=0.4)
        self._target = None
        if figure.target is not None:
            self._target = scene.add_mesh_simple(
                "/target", _f4(figure.target), faces, color=_TARGET, opacity=0.25, visible=False
            )

    def _add_switches(self, key: str, sample: StoredPerson) -> None:
        gui = self.server.gui
        gui.add_markdown(f"**{key}**")
        self.figures = gui.add_markdown("")
        skin = gui.add_slider("skin, %", 0, 100, 5, 40)
        skin.on_update(lambda _: self._fade(skin.value / 100))
        bones = gui.add_checkbox("skeleton", True)
        bones.on_update(lambda _: setattr(self.bones, "visible", bones.value))
        if (target := self._target) is not None:
            box = gui.add_checkbox("target mesh", False)
            box.on_update(lambda _: setattr(target, "visible", box.value))
        photo = crop_photo(sample, self._figure.pose(self._figure.stored).joints_m)
        if photo is not None:
            with gui.add_folder("Photo", expand_by_default=False):
                gui.add_image(np.asarray(Image.open(io.BytesIO(photo.jpeg))))

    def _fade(self, opacity: float) -> None:
        self.skin.visible = opacity > 0
        self.skin.opacity = None if opacity >= 1 else opacity

    def _add_sliders(self) -> list[viser.GuiSliderHandle[float]]:
        gui, stored = self.server.gui, np.degrees(self._figure.stored.astype(np.float64))
        gui.add_button("Stored pose").on_click(lambda _: self.back())
        limits, sliders = np.degrees(dof_limits()), dict[int, Any]()
        for name, joints, expanded in _GROUPS:
            with gui.add_folder(name, expand_by_default=expanded):
                for i in (i for i in range(NUM_DOFS) if DOF_JOINT[i] in joints):
                    low, high = slider_range(limits[i], stored[i])
                    hint = (
                        f"limits {limits[i, 0]:.0f} to {limits[i, 1]:.0f}°"
                        if np.isfinite(limits[i]).all()
                        else None
                    )
                    label = DOF_NAMES[i].replace("_", " ")
                    sliders[i] = gui.add_slider(label, low, high, 0.1, round(float(stored[i]), 1), hint=hint)
                    sliders[i].on_update(lambda _: self.repose())
        in_order = [sliders[i] for i in range(NUM_DOFS)]
        self._shown_deg = [slider.value for slider in in_order]
        self._show_figures(self._figure.stored)
        return in_order

    def back(self) -> None:
        """Go back to the stored pose."""
        handles: list[Any] = list(self.sliders)  # viser types their value as read-only
        for slider, value in zip(handles, self._shown_deg, strict=True):
            slider.value = value
        self.repose()

    def repose(self) -> None:
        """Pose the meshes by the sliders. Sliders that were not moved give the stored angle exactly."""
        stored = self._figure.stored.astype(np.float64)
        moved = [
            np.radians(s.value) if s.value != at else q
            for s, at, q in zip(self.sliders, self._shown_deg, stored, strict=True)
        ]
        posed = self._figure.pose(np.array(moved))
        self.skin.vertices, self.bones.vertices = _f4(posed.skin), _f4(posed.bones)
        self._show_figures(np.array(moved))

    def _show_figures(self, angles: NDArray[Any]) -> None:
        """Show the distance to the target mesh, and the angles beyond their limits."""
        figure, limits = self._figure, dof_limits()
        lines = [f"{figure.gender} SKEL"]
        if figure.target is not None:
            distance_mm = 1000 * np.linalg.norm(figure.pose(angles).skin - figure.target, axis=1)
            lines.append(f"PVE {distance_mm.mean():.2f} mm, largest {distance_mm.max():.1f} mm")
        beyond = np.degrees(np.maximum(limits[:, 0] - angles, angles - limits[:, 1]))
        violations = [f"{DOF_NAMES[i]} {beyond[i]:.1f}°" for i in np.argsort(-beyond) if beyond[i] > 0.05]
        lines.append("beyond limits: " + (", ".join(violations[:4]) or "none"))
        self.figures.content = "\n\n".join(lines)


def _f4(points: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(points, np.float32)
