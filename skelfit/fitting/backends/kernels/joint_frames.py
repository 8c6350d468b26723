"""The joints of a group of people, at rest and posed: scratch of the kernels of a pass."""

import warp as wp

from .lanes import A2, A3, V

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class JointFrames:
    """For each of S slots. The T-posed frame and the world have x to the left, y up, z forward."""

    rest: A3  # (S, 24, 3) m, the joints of the T-posed person
    offsets: A3  # (S, 24, 3) m, from the parent; for the root its position
    axes: A3  # (S, 46, 3) unit, the DoFs' axes in the frame of the T-posed person
    spine: A2  # (S, 3) m, lengths: lumbar, thorax, head
    thorax: A2  # (S, 2) m, width and height
    trans: A2  # (S, 3) m, of the whole person
    rot: A3  # (S, 24, 9) global rotations of the joints, row by row
    pos: A3  # (S, 24, 3) m, global
    omega: A3  # (S, 46, 3) rad/rad: a DoF moves a point x below its joint by omega x x + v
    v: A3  # (S, 46, 3) m/rad


def make_joint_frames(slots: int, device: str) -> JointFrames:
    """Scratch for so many groups at a time."""
    joints = JointFrames()
    for name, shape in (
        ("rest", (24, 3)), ("offsets", (24, 3)), ("axes", (46, 3)), ("spine", (3,)), ("thorax", (2,)),
        ("trans", (3,)), ("rot", (24, 9)), ("pos", (24, 3)), ("omega", (46, 3)), ("v", (46, 3)),
    ):  # fmt: skip
        setattr(joints, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return joints
