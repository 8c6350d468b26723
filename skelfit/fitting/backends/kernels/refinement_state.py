"""The constants of a refinement's phase, and what a group of people needs on the device."""

from typing import Any

import warp as wp

from skelfit.fitting.backends.body_tables import NUM_BETAS

from .lanes import A1, A2, A3, V

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

K: int = NUM_BETAS
ANGLES = 3  # the first variable that is an angle
BETAS = 49  # the first that is a beta
VARIABLES = 59
FOCAL = 59  # the last variable, of people whose focal length is one: its log over that of the camera
CAMERA = 6  # variables of the camera
POINTS = 44


@wp.struct
class RefineRules:
    """Constants of a phase; weights are factors of squares."""

    steps: int
    camera: int  # 1: the camera alone moves
    torso: int  # 1: against keypoints of the torso alone
    sigma2: float
    reprojection: float
    depth: float
    focal: float
    shape: float
    angles: float
    limits: float
    spine: float
    anchor_pose: float
    anchor_root: float
    anchor_skin: float  # of one keypoint
    anchor_betas: float
    anchor_move: float
    max_focal: float  # largest change of a log focal length from the camera's
    nearest: float  # m
    tolerance: float
    max_angle_step: float
    max_move_step: float
    max_beta_step: float
    damping: float
    damping_min: float
    damping_max: float
    damping_up: float
    damping_down: float
    damping_at_rest: float
    noise: float


@wp.struct
class RefineScratch:
    """For each of S slots."""

    x: A2  # (S, 59)
    trial: A2  # (S, 59)
    balls: A2  # (S, .)
    angles: A2  # (S, 46)
    betas: A2  # (S, K)
    given: A3  # (S, 44, 3) keypoints in units, and confidences
    camera: A2  # (S, 6) the first two rows of the intrinsics, in units
    depth: A1  # (S,) m, of the start
    beta_bound: A1  # (S,) no beta goes beyond it
    held: A2  # (S, K) 1: the beta is at its bound and would go beyond
    focal: A2  # (S, 3) log focal length over the camera's: accepted, trial; the trial's factor
    label: A2  # (S, 59) the anchor
    label_points: A3  # (S, 44, 3) m, the anchor's keypoints without translation
    label_joints: A3  # (S, 24, 9) rotations of the anchor's joints in their frames
    turns: A2  # (S, 3 * 46) axes of DoFs as moved by the joint's later ones
    forces: A3  # (S, 44, 6) of a keypoint: of all terms, of reprojection
    weights: A3  # (S, 44, 6) A of reprojection: xx, xy, xz, yy, yz, zz
    zooms: A3  # (S, 44, 5) of a keypoint, by the log focal length: A with x, y, z and with itself; force
    scaled: A3  # (S, columns, 3) A J
    costs: A2  # (S, 68) of each keypoint and joint


def make_refine_scratch(slots: int, balls: int, columns: int, device: str) -> Any:
    """Scratch for so many groups."""
    scratch = RefineScratch()
    for name in ("depth", "beta_bound"):
        setattr(scratch, name, wp.zeros(slots, dtype=V, device=device))
    for name, shape in (
        ("x", (VARIABLES,)), ("trial", (VARIABLES,)), ("balls", (balls,)), ("angles", (46,)), ("betas", (K,)),
        ("held", (K,)), ("given", (POINTS, 3)), ("camera", (6,)), ("label", (VARIABLES,)),
        ("label_points", (POINTS, 3)), ("label_joints", (24, 9)), ("turns", (3 * 46,)), ("forces", (POINTS, 6)),
        ("weights", (POINTS, 6)), ("focal", (3,)), ("zooms", (POINTS, 5)), ("scaled", (columns, 3)),
        ("costs", (POINTS + 24,)),
    ):  # fmt: skip
        setattr(scratch, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return scratch
