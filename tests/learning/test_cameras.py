"""Cameras of crops and images, against cases worked out by hand."""

from __future__ import annotations

import pytest
import torch

from skelfit.learning.cameras import (
    FAR_FOCAL,
    body_to_crop,
    box_features,
    crop_to_translation,
    far_camera,
    image_to_crop,
    known_or_far,
    project,
)

# f = 1000 px, the axis at (320, 240); a crop of 200 px around (420, 190).
K = torch.tensor([[1000.0, 0, 320], [0, 1000, 240], [0, 0, 1]], dtype=torch.float64)
CENTER, SIDE = torch.tensor([420.0, 190.0], dtype=torch.float64), torch.tensor(200.0, dtype=torch.float64)


def test_box_features_of_a_crop() -> None:
    torch.testing.assert_close(box_features(K, CENTER, SIDE), torch.tensor([0.1, -0.05, 0.2]).double())


def test_translation_by_hand() -> None:
    # s = 0.5: a metre is a quarter of the crop, 50 px, which 1000 px of focal length see at 20 m.
    camera = torch.tensor([0.5, 0.25, -1.0], dtype=torch.float64)
    expected = torch.tensor([0.25 + 20 * 0.1, -1.0 - 20 * 0.05, 20.0]).double()
    torch.testing.assert_close(crop_to_translation(camera, K, CENTER, SIDE), expected)


def test_projection_by_hand() -> None:
    points = torch.tensor([[0.0, 0, 5], [1, -2, 4]], dtype=torch.float64)
    torch.testing.assert_close(project(points, K), torch.tensor([[320.0, 240], [570, -260]]).double())


def test_different_focal_lengths_in_x_and_y() -> None:
    k = K.clone()
    k[1, 1] = 500
    camera = torch.tensor([0.5, 0.0, 0.0], dtype=torch.float64)
    translation = crop_to_translation(camera, k, CENTER, SIDE)
    torch.testing.assert_close(project(translation[None], k)[0], CENTER)


@pytest.mark.parametrize("batch", [(), (2,), (2, 2, 2)])
def test_a_body_at_the_center_of_the_crop_projects_to_it(batch: tuple[int, ...]) -> None:
    """The meaning of (s, tx, ty), whatever the crop's place: a point beside the origin in sides of the crop."""
    center = torch.rand(*batch, 2, dtype=torch.float64) * 600
    side = 50 + 300 * torch.rand(batch, dtype=torch.float64)
    k = K.expand(*batch, 3, 3)
    camera = torch.tensor([0.8, 0.0, 0.0], dtype=torch.float64).expand(*batch, 3)
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=torch.float64)
    result = body_to_crop(points.expand(*batch, 2, 3), camera, k, center, side)
    expected = torch.tensor([[0.0, 0], [0.4, 0]], dtype=torch.float64)
    torch.testing.assert_close(result, expected.expand(*batch, 2, 2))


def test_crop_units_by_hand() -> None:
    corners = torch.tensor([[320.0, 90], [520, 290], [420, 190]], dtype=torch.float64)
    result = image_to_crop(corners, CENTER, SIDE)
    torch.testing.assert_close(result, torch.tensor([[-0.5, -0.5], [0.5, 0.5], [0, 0]]).double())


def test_unknown_intrinsics_are_those_of_a_far_camera() -> None:
    k = torch.stack((K, torch.zeros(3, 3, dtype=torch.float64)))
    center, side = CENTER.expand(2, 2), SIDE.expand(2)
    result = known_or_far(k, center, side)
    assert torch.equal(result[0], K)
    expected = [[FAR_FOCAL * 200, 0, 420], [0, FAR_FOCAL * 200, 190], [0, 0, 1]]
    torch.testing.assert_close(result[1], torch.tensor(expected).double())
    # It says nothing of where the crop is.
    features = box_features(far_camera(center, side), center, side)
    torch.testing.assert_close(features, torch.tensor([0, 0, 1 / FAR_FOCAL]).double().expand(2, 3))


def test_points_behind_the_camera_are_finite() -> None:
    points = torch.tensor([[0.1, 0.1, -1.0], [0.1, 0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    result = project(points, K)
    result.sum().backward()
    assert torch.isfinite(result).all() and points.grad is not None and torch.isfinite(points.grad).all()


def test_points_do_not_jump_where_the_scale_crosses_zero() -> None:
    """A person who grows small, and is then far behind the camera: a network may pass by there as it learns."""
    scales = torch.linspace(-0.3, 0.3, 601, dtype=torch.float64)
    camera = torch.stack((scales, torch.full_like(scales, 0.2), torch.zeros_like(scales)), -1)
    points = torch.tensor([[0.1, -0.4, 0.3]], dtype=torch.float64).expand(601, 1, 3)
    in_crop = body_to_crop(points, camera, K.expand(601, 3, 3), CENTER.expand(601, 2), SIDE.expand(601))
    assert in_crop.diff(dim=0).abs().max() < 0.001
    # Off by less than the perspective of 0.3 m at 30 m and more.
    across = torch.outer(scales / 2, torch.tensor([0.3, -0.4], dtype=torch.float64))
    torch.testing.assert_close(in_crop[:, 0], across, rtol=0, atol=0.01)


def test_gradients() -> None:
    torch.manual_seed(1)
    camera = torch.tensor([[0.7, 0.1, 0.2], [1.1, -0.3, 0.0]], dtype=torch.float64, requires_grad=True)
    points = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    k, center, side = K.expand(2, 3, 3), CENTER.expand(2, 2), SIDE.expand(2)

    def in_crop(camera: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        return body_to_crop(points, camera, k, center, side)

    torch.autograd.gradcheck(in_crop, (camera, points))
