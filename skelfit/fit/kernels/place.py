"""Scratch of the shape and pose of a group: filled by `shape.shape_joints` and `chain.pose`."""

from typing import Any

import warp as wp

from skelfit.body.dofs import NUM_DOFS, NUM_JOINTS

from .lanes import A2, A3, V


@wp.struct
class Place:
    """Of each slot S: lengths in m, axes and rotations in the frame of the T-posed person, or in the world."""

    rest: A3  # (S, 24, 3) joints at rest
    offsets: A3  # (S, 24, 3) from the parent, at rest
    axes: A3  # (S, 46, 3) of the DoFs, at rest
    spine: A2  # (S, 3) lengths of the spine's segments
    thorax: A2  # (S, 2) width and height
    rot: A3  # (S, 24, 9) global rotations
    pos: A3  # (S, 24, 3) global positions
    omega: A3  # (S, 46, 3) twists of the DoFs
    v: A3  # (S, 46, 3)


def make_place(slots: int, device: str) -> Any:
    """Room for so many groups."""
    place = Place()
    shapes = {
        "rest": (NUM_JOINTS, 3), "offsets": (NUM_JOINTS, 3), "axes": (NUM_DOFS, 3), "spine": (3,), "thorax": (2,),
        "rot": (NUM_JOINTS, 9), "pos": (NUM_JOINTS, 3), "omega": (NUM_DOFS, 3), "v": (NUM_DOFS, 3),
    }  # fmt: skip
    for name, shape in shapes.items():
        setattr(place, name, wp.empty((slots, *shape), dtype=V, device=device))
    return place
