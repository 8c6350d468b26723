"""Pictures of bodies: bones in a skin that one sees through, lit pixel by pixel, over a photo or in a bright room.

Camera frame throughout: OpenCV (x right, y down, z away); pixel centres at half-integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from skelfit.bodies.rasterizer import faces_of_vertices, rasterise, vertex_normals

Array = NDArray[np.float32]
Colour = tuple[int, int, int]
BONE, SKIN, LABEL = (250, 238, 212), (104, 144, 170), (64, 122, 212)
_FINE = 3  # samples of a pixel along each side, for smooth edges
_NEAREST = 0.1  # m; faces that reach nearer to the camera, or behind it, are left out
_RIM = 0.9  # opacity of a surface that one sees through, at its outline
_SHADOW = 0.3  # how dark the shadow on the floor is


def _unit(*vector: float) -> Array:
    return np.asarray(vector, np.float32) / np.float32(np.linalg.norm(vector))


_KEY, _FILL, _BACK = _unit(-0.55, -0.7, -0.6), _unit(0.9, -0.15, -0.5), _unit(0.35, -0.6, 0.7)
_SHINE = _unit(*(_KEY + _unit(0, 0, -1)))  # half-way between the light and the viewer


@dataclass(frozen=True, eq=False)
class Surface:
    """A closed surface in the camera frame."""

    vertices: Array  # (V,3) m
    faces: NDArray[np.int32]  # (F,3), counter-clockwise from outside
    colour: Colour
    opacity: float = 1.0  # where it faces the viewer; below 1 one sees through it, at the outline less


@dataclass(frozen=True)
class ShadowPlane:
    """The plane of points p with up @ p = height."""

    up: Array  # (3,) unit vector
    height: float  # m


def draw_surfaces(
    surfaces: Sequence[Surface], camera: Array, background: Array, floor: ShadowPlane | None = None
) -> Array:
    """Surfaces over a background (H,W,3) of 0..255, seen by a camera (3,3) px; the same size.

    Solid surfaces hide each other. Those that one sees through lie over them one after the other, in the given order,
    each where it is nearer than what is solid. All of them cast a shadow on the floor.
    """
    canvas = background.astype(np.float32, copy=True)
    shadows = [] if floor is None else [_on_floor(surface, floor) for surface in surfaces]
    box = _box([_pixels(s.vertices, camera) for s in (*surfaces, *shadows)], canvas.shape[:2])
    if box is None:
        return canvas
    left, top, right, bottom = box
    view = camera.astype(np.float32, copy=True)
    view[:2, 2] -= (left, top)
    coarse = view.copy()
    view[:2] *= _FINE
    part = canvas[top:bottom, left:right]
    if shadows:
        part *= 1 - _SHADOW * _halftone(shadows, coarse, part.shape[:2])[..., None]
    part[:] = _shrunk(_composed(surfaces, view, np.repeat(np.repeat(part, _FINE, 0), _FINE, 1)))
    return canvas


def _composed(surfaces: Sequence[Surface], view: Array, pixels: Array) -> Array:
    """Surfaces over pixels (h,w,3), which are changed."""
    height, width = pixels.shape[:2]
    solid = np.full((height, width), np.inf, np.float32)
    for surface in (s for s in surfaces if s.opacity >= 1):
        normals, depth = _seen(surface, view, (height, width))
        nearer = depth < solid
        solid[nearer] = depth[nearer]
        pixels[nearer] = _lit(normals[nearer], surface.colour)
    covered = np.isfinite(solid)
    if covered.any():
        pixels[covered] *= (1 - _crevices(solid))[covered, None]
    for surface in (s for s in surfaces if s.opacity < 1):
        normals, depth = _seen(surface, view, (height, width))
        front = depth < solid
        facing = np.abs(normals[front][:, 2:])
        opacity = surface.opacity + (_RIM - surface.opacity) * (1 - facing) ** np.float32(2.2)
        pixels[front] += opacity * (_lit(normals[front], surface.colour) - pixels[front])
    return pixels


def _seen(surface: Surface, view: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Unit normals (*shape,3) and depth (*shape) m of a surface; inf where there is none."""
    faces_of = faces_of_vertices(surface.faces, len(surface.vertices))
    normals = vertex_normals(surface.vertices, surface.faces, faces_of)
    ahead = surface.faces[(surface.vertices[:, 2] > _NEAREST)[surface.faces].all(1)]
    drawn, depth = rasterise(_pixels(surface.vertices, view), surface.vertices[:, 2], ahead, normals, shape)
    seen = np.isfinite(depth)
    drawn[seen] /= np.linalg.norm(drawn[seen], axis=-1, keepdims=True) + np.float32(1e-6)
    return drawn, depth


def _lit(normals: Array, colour: Colour) -> Array:
    """Colours (N,3) of a surface with unit normals (N,3): a soft light from the upper left, two more, and a shine."""
    key = (normals @ _KEY * np.float32(0.5) + np.float32(0.5)) ** np.float32(1.6)
    bright = 0.34 + 0.72 * key + 0.16 * (normals @ _FILL).clip(0) + 0.22 * (normals @ _BACK).clip(0)
    shine = 70 * (normals @ _SHINE).clip(0) ** np.float32(28)
    return np.asarray(bright[:, None] * np.array(colour, np.float32) + shine[:, None], np.float32)


def _crevices(depth: Array) -> Array:
    """How much darker (H,W) each pixel is because what is around it lies nearer to the viewer."""
    rough = depth[_FINE // 2 :: _FINE, _FINE // 2 :: _FINE]  # means over many pixels need no fine ones
    known = np.isfinite(rough)
    far, weights = np.where(known, rough, 0), known.astype(np.float32)
    size = float(known.any(1).sum())  # px, height of what is drawn
    dark = np.zeros_like(depth)
    for share, reach in ((0.006, 0.012), (0.02, 0.12)):  # of the height; m
        weight, mean = (gaussian_filter(x, share * size, truncate=2.5) for x in (weights, far))
        around = np.where(weight > 1e-3, mean / np.maximum(weight, 1e-3), np.inf)
        around = np.repeat(np.repeat(around, _FINE, 0), _FINE, 1)
        with np.errstate(invalid="ignore"):  # where nothing is, or nothing around
            dark += 0.3 * np.nan_to_num(((depth - around) / np.float32(reach)).clip(0, 1))
    return dark


def _on_floor(surface: Surface, floor: ShadowPlane) -> Surface:
    """The shadow of a surface under a light that stands high, a little to the left of the viewer."""
    down = _unit(*(-floor.up + np.array([0.22, 0, 0.2], np.float32)))
    way = (floor.height - surface.vertices @ floor.up) / (down @ floor.up)
    shadow = np.asarray(surface.vertices + way[:, None] * down, np.float32)
    return Surface(shadow, surface.faces, surface.colour)


def _halftone(shadows: Sequence[Surface], view: Array, shape: tuple[int, int]) -> Array:
    """How much of a shadow (h,w) each pixel has, 0 to 1, with soft edges."""
    mask = np.zeros(shape, np.float32)
    for shadow in shadows:
        faces = np.concatenate([shadow.faces, shadow.faces[:, ::-1]])  # it is flat: half of them face away
        points, white = _pixels(shadow.vertices, view), np.ones_like(shadow.vertices)
        mask = np.maximum(mask, np.isfinite(rasterise(points, shadow.vertices[:, 2], faces, white, shape)[1]))
    return np.asarray(gaussian_filter(mask, 0.011 * max(shape)), np.float32)


def _pixels(points: Array, camera: Array) -> Array:
    """Pixels (N,2) of points (N,3) m; those behind the camera as if they were just before it."""
    ahead = np.maximum(points, (-np.inf, -np.inf, _NEAREST), dtype=np.float32) @ camera.astype(np.float32).T
    return np.asarray(ahead[:, :2] / ahead[:, 2:], np.float32)


def _box(points: Sequence[Array], shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom px of what is drawn, with a margin for soft edges; None where all is outside."""
    if not points:
        return None
    every, margin = np.concatenate(points), 0.03 * max(shape)
    low, high = every.min(0) - margin, every.max(0) + margin
    left, top = np.floor(low).clip(0, shape[::-1]).astype(int).tolist()
    right, bottom = np.ceil(high).clip(0, shape[::-1]).astype(int).tolist()
    return (left, top, right, bottom) if right > left and bottom > top else None


def _shrunk(pixels: Array) -> Array:
    """Means of _FINE x _FINE pixels."""
    rows = sum(pixels[k::_FINE] for k in range(_FINE))
    columns = sum(np.asarray(rows)[:, k::_FINE] for k in range(_FINE))
    return np.asarray(columns, np.float32) / np.float32(_FINE**2)


@dataclass(frozen=True, eq=False)
class Room:
    """A bright room, and a camera that looks at what stands in it."""

    camera: Array  # (3,3) px
    turn: Array  # (3,3) from x right, y up, z towards the viewer to the camera frame
    shift: Array  # (3,) m
    size: tuple[int, int]  # width and height, px
    floor: ShadowPlane

    def placed(self, points: NDArray[np.floating]) -> Array:
        """Points (...,3) m, x right, y up, z towards the viewer, in the camera frame."""
        return np.asarray(points @ self.turn.T + self.shift, np.float32)

    def draw(self, surfaces: Sequence[Surface]) -> Array:
        """Surfaces in the camera frame, in the room: (H,W,3) of 0..255."""
        return draw_surfaces(surfaces, self.camera, _walls(*self.size), self.floor)


def make_room(
    points: NDArray[np.floating], size: tuple[int, int], turn_deg: float = 0.0, margin: float = 0.06
) -> Room:
    """The room in which points (N,3) m, x right, y up, z towards the viewer, just fit.

    turn_deg: how far they are turned to their right about the vertical; margin: free at each side, of the size.
    """
    yaw, pitch = np.radians(turn_deg), np.radians(7)
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    turn = np.diag([1.0, -1, -1]) @ about_x @ about_y
    middle = (points.max(0) + points.min(0)) / 2
    turned = (points - middle) @ turn.T
    away = 3.2 * float(np.ptp(turned, axis=0)[:2].max()) + float(np.ptp(turned[:, 2])) / 2
    flat = turned[:, :2] / (turned[:, 2:] + away)
    low, high = flat.min(0), flat.max(0)
    free = (1 - 2 * margin) * np.array(size)
    focal = float((free / np.maximum(high - low, 1e-6)).min())
    center = np.array(size) / 2 - focal * (low + high) / 2
    camera = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], np.float32)
    shift = np.array([0, 0, away]) - turn @ middle
    up = turn[:, 1]
    height = float(points[:, 1].min() + up @ shift)
    return Room(
        camera,
        turn.astype(np.float32),
        shift.astype(np.float32),
        size,
        ShadowPlane(up.astype(np.float32), height),
    )


def _walls(width: int, height: int) -> Array:
    """The background (H,W,3) of a room: nearly white, darker towards the edges."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    dark = (0.5 * x**2 + 0.7 * (y - 0.1) ** 2).clip(0, 1)
    return np.asarray(np.array([250, 251, 252], np.float32) - dark * np.array([26, 22, 18], np.float32))
