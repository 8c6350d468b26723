"""Which of the 44 keypoints is which: 25 of OpenPose, then 19 extra ones."""

from __future__ import annotations

# Pairs of one keypoint on the right and on the left.
KEYPOINT_SIDES: tuple[tuple[int, int], ...] = (
    (2, 5), (3, 6), (4, 7), (9, 12), (10, 13), (11, 14), (15, 16), (17, 18), (19, 22), (20, 23), (21, 24),
    (25, 30), (26, 29), (27, 28), (31, 36), (32, 35), (33, 34),
)  # fmt: skip


def _mirrored() -> tuple[int, ...]:
    order = list(range(44))
    for a, b in KEYPOINT_SIDES:
        order[a], order[b] = b, a
    return tuple(order)


MIRRORED_KEYPOINTS: tuple[int, ...] = _mirrored()  # the keypoint of the other side
SHOULDER_POINTS, HIP_POINTS = (2, 5), (9, 12)  # right, left
TORSO_POINTS = (1, 2, 5, 8, 9, 12, 27, 28, 33, 34, 39)  # neck, shoulders, hips and the middle of the hips
# The neck of LSP and the top of the head: annotators disagree about them, and HSMR does not fit them.
UNFITTED_POINTS = (37, 38)
