"""Shaded pictures: what hides what, what one sees through, the shadow, and a room that people just fit in."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from skelfit.bodies.shaded_surfaces import Array, ShadowPlane, Surface, draw_surfaces, make_room

SIDE = 80
CAMERA = np.array([[80, 0, 40], [0, 80, 40], [0, 0, 1]], np.float32)
GREY = np.full((SIDE, SIDE, 3), 200, np.float32)
RED, GREEN, BLUE = (200, 20, 20), (20, 200, 20), (20, 20, 200)


def ball(
    radius: float, x: float, y: float, z: float, colour: tuple[int, int, int], opacity: float = 1.0
) -> Surface:
    mesh = trimesh.creation.icosphere(3, radius)
    vertices = (np.asarray(mesh.vertices) + [x, y, z]).astype(np.float32)
    return Surface(vertices, np.asarray(mesh.faces, np.int32), colour, opacity)


def strongest(pixel: Array) -> int:
    return int(np.argmax(pixel))


@pytest.mark.parametrize("order", [1, -1])
def test_the_nearer_surface_hides_the_other(order: int) -> None:
    near, far = ball(0.3, 0, 0, 4, GREEN), ball(1, 0, 0, 6, RED)
    drawn = draw_surfaces([near, far][::order], CAMERA, GREY)
    assert strongest(drawn[40, 40]) == 1 and strongest(drawn[40, 50]) == 0
    np.testing.assert_array_equal(drawn[2, 2], GREY[0, 0])
    assert (GREY == 200).all(), "the background is not changed"


def test_one_sees_through_a_skin_more_in_its_middle_than_at_its_outline() -> None:
    skin = ball(1.5, 0, 0, 5, BLUE, 0.2)
    empty, full = (draw_surfaces(s, CAMERA, GREY) for s in ([skin], [ball(0.5, 0, 0, 5, RED), skin]))
    assert strongest(full[40, 40]) == 0, "the bone inside"
    assert 0.05 < (full[40, 40, 2] - 20) / 180 < 0.5, "behind some blue"
    blueness = empty[40, :, 2] - empty[40, :, 0]
    assert 1.6 * blueness[40] < max(blueness[15:18]) and blueness[40] > 10


def test_what_sticks_out_of_a_skin_is_not_behind_it() -> None:
    skin, bone = ball(1, 0, 0, 5, BLUE, 0.6), ball(0.3, 0, 0, 4, RED)
    alone, both = (draw_surfaces(s, CAMERA, GREY) for s in ([bone], [bone, skin]))
    np.testing.assert_allclose(both[40, 40], alone[40, 40], rtol=1e-5)


def test_light_comes_from_above() -> None:
    drawn = draw_surfaces([ball(1.5, 0, 0, 5, RED)], CAMERA, GREY)
    assert drawn[25, 40, 0] > drawn[55, 40, 0] + 30


def test_crevices_are_darker() -> None:
    """Beside a small ball that lies before a large one, the large one is darker than without it."""
    large, small = ball(1.5, 0, 0, 5, RED), ball(0.3, 0, 0, 3.4, GREEN)
    camera, wall = CAMERA * np.array([[4], [4], [1]], np.float32), np.repeat(np.repeat(GREY, 4, 0), 4, 1)
    alone, both = (draw_surfaces(s, camera, wall)[160] for s in ([large], [large, small]))
    darker = (alone - both)[:, 0]
    edge = np.flatnonzero(both[:, 1] > both[:, 0]).max()
    assert darker[edge + 2] > 15 and abs(darker[edge + 40]) < 3


def test_a_shadow_falls_on_the_floor_and_on_nothing_else() -> None:
    floor = ShadowPlane(np.array([0, -1, 0], np.float32), -1.0)  # 1 m below the camera
    thing = ball(0.4, 0, 0.6, 5, RED)
    shaded = draw_surfaces([thing], CAMERA, GREY, floor) - draw_surfaces([thing], CAMERA, GREY)
    dark = np.argwhere(shaded[..., 0] < -20)
    assert len(dark) > 12 and dark[:, 0].min() > 45, "at the ball's foot"
    assert (shaded <= 1e-3).all()


def test_what_is_behind_the_camera_is_left_out() -> None:
    np.testing.assert_array_equal(draw_surfaces([ball(0.5, 0, 0, -3, RED)], CAMERA, GREY), GREY)


def test_outside_of_the_picture_nothing_is_drawn() -> None:
    np.testing.assert_array_equal(draw_surfaces([ball(0.5, 90, 0, 5, RED)], CAMERA, GREY), GREY)


@pytest.mark.parametrize("turn", [0.0, 90.0, -130.0])
@pytest.mark.parametrize("scale", [(1, 3, 1), (4, 1, 2)])
def test_points_just_fit_in_a_room(turn: float, scale: tuple[int, int, int]) -> None:
    points: NDArray[np.float64] = np.random.default_rng(0).uniform(-1, 1, (500, 3)) * scale + [3, -2, 9]
    room = make_room(points, (120, 160), turn, margin=0.1)
    placed = room.placed(points)
    pixels = placed @ room.camera.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    free = np.concatenate([pixels.min(0), [120, 160] - pixels.max(0)])
    assert free.min() == pytest.approx(0.1 * 120, abs=0.5) or free.min() == pytest.approx(0.1 * 160, abs=0.5)
    assert (placed @ room.floor.up).min() == pytest.approx(room.floor.height, abs=1e-4)
    assert np.linalg.det(room.turn) == pytest.approx(1, abs=1e-6), "not a mirror"


def test_a_turned_person_shows_the_other_side() -> None:
    points = np.array(
        [[0, -1, 0], [0, 1, 0], [0.5, 0, 0], [-0.5, 0, 0], [0, 0, 0.5]]
    )  # the last: towards the viewer
    front, side = (make_room(points, (100, 100), turn).placed(points) for turn in (0, 90))
    assert front[4, 2] < front[2, 2], "nearer"
    assert side[4, 0] > side[0, 0] + 0.4, "what faced the viewer faces the right of the picture"
