"""How SKEL parameters are refined against 2D keypoints: the phases, the anchor and the settings of the solver.

The phases are those of HSMR's SKELify (Xia et al., CVPR 2025), whose weights enter squared. The unit of distances in
the image is the person's shoulder-hip length there; weights of other terms are against squares of that unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from skelfit.config.fit_settings import SolverConfig, SpineConfig
from skelfit.config.yaml_dataclasses import bounded

Moves = Literal["camera", "all"]
Points = Literal["torso", "all"]


@dataclass(frozen=True)
class RefinePhase:
    """One phase of a refinement: what moves, against which keypoints, with which weights."""

    name: str  # unique name of the phase
    steps: int = bounded(1)  # solver steps, at most
    moves: Moves = "all"  # camera: translation and orientation of the root alone
    points: Points = "all"  # torso: shoulders, hips, neck and the middle of the hips
    # Geman-McClure's sigma, in shoulder-hip lengths: keypoints further off hardly count
    sigma: float = bounded(1e-3, default=0.25)
    reprojection: float = bounded(0, default=1.0)  # weight of the distances in the image; squared
    depth: float = bounded(0, default=0.0)  # weight per m that the depth is off its start; squared
    shape: float = bounded(0, default=0.0)  # weight of betas away from 0; squared
    # weight of exp(low - q) and exp(q - high) of each limited DoF, q in rad; squared
    angles: float = bounded(0, default=0.0)
    anchor: float = bounded(0, default=1.0)  # factor of the weights of the anchor


@dataclass(frozen=True)
class AnchorConfig:
    """How the anchor holds a person; weights against squared shoulder-hip lengths."""

    pose: float = bounded(0, default=0.15)  # per rad^2 that a joint turns, as 2 - 2 cos of it
    root: float = bounded(0, default=0.04)  # the same of the root
    skin: float = bounded(
        0, default=1.0
    )  # per m^2, mean of the 44 keypoints of the skin, beside the translation
    betas: float = bounded(0, default=0.01)  # per squared beta
    move: float = bounded(0, default=0.1)  # per m^2 that the translation changes


@dataclass(frozen=True)
class KeypointConfig:
    """Which keypoints count, and which people cannot be refined."""

    min_confidence: float = bounded(0, 1, default=0.3)  # keypoints below count as unseen
    min_points: int = bounded(1, default=8)  # keypoints that must be seen
    # Left and right count as swapped if a refinement against exchanged keypoints ends below this share of the
    # objective where that against the given ones does. 0: nothing is exchanged, and refining takes half the time.
    swap_gain: float = bounded(0, 1, default=0.9)


@dataclass(frozen=True)
class FocalConfig:
    """The focal length f of people whose camera is not known: a variable under a prior."""

    centre: float = bounded(0.1, 20, default=1.0)  # f0, where the prior is 0, in diagonals of the image
    weight: float = bounded(0, default=0.05)  # of log(f / f0)^2, against squared shoulder-hip lengths
    # f stays within f0 / range and f0 range; at either end the camera is not believed
    range: float = bounded(1, 20, default=4.0)


@dataclass(frozen=True)
class TiesConfig:
    """How the frames of a sequence are refined as one problem, after each has been refined by itself."""

    # squared shoulder-hip lengths per (rad/s)^2 of the speed at which joints turn away from the label's; the same at
    # every frame rate. 0: each frame stays by itself
    weight: float = bounded(0, default=0.003)
    move: float = bounded(0, default=1.0)  # rad^2/m^2; the same of the translation, as a factor of the weight
    # rad/s; where the labels of two frames jump by more (mean of the joints), the weight falls as 1 / (1 +
    # (jump / this)^2)^2
    jump: float = bounded(1e-3, default=3.0)
    steps: int = bounded(1, default=4)  # solver steps of whole sequences in a round
    rounds: int = bounded(1, default=6)  # at most; only sequences that would gain go on
    frame_rate: float = bounded(0.1, default=30.0)  # Hz, of sequences whose rate is not known


@dataclass(frozen=True)
class RefineConfig:
    """How people are refined."""

    # the phases in order; each goes on from where the one before ended
    phases: tuple[RefinePhase, ...] = (
        RefinePhase("camera", 10, moves="camera", points="torso", sigma=1.0, anchor=0.1),
        RefinePhase("wide", 10, sigma=1.0),
        RefinePhase("all", 20),
    )
    anchor: AnchorConfig = AnchorConfig()  # holds people near their labels
    ties: TiesConfig = TiesConfig()  # between the frames of a sequence
    keypoints: KeypointConfig = KeypointConfig()  # which keypoints count
    focal: FocalConfig = FocalConfig()  # the camera of people who come without one
    # label: where the label is; torso: at the depth that shoulders and hips give
    start: Literal["label", "torso"] = "label"
    # no |beta| goes beyond it, or beyond the largest of the label if that is larger; 0: no bound
    max_abs_beta: float = bounded(0, default=2.0)
    limit_weight: float = bounded(0, default=4.0)  # per rad^2 beyond a joint limit
    spine_weight: float = bounded(0, default=30.0)  # per m^2 of the spine's couplings, see `fit.spine`
    spine: SpineConfig = SpineConfig()  # how lumbar and thorax share the motions of the trunk
    tolerance: float = bounded(0, default=1e-5)  # a person rests when a step would gain less than this share
    max_angle_step: float = bounded(0, default=0.4)  # rad, the largest turn of a joint in one step
    max_move_step: float = bounded(
        0, default=1.0
    )  # m, the largest change of a translation's part in one step
    nearest: float = bounded(1e-3, default=0.1)  # m; points nearer to the camera's plane count as behind it
    solver: SolverConfig = SolverConfig(damping=1e-3)  # damping and acceptance of steps


_ANGLES = 1.7  # HSMR's factor of the weights of angles
_AS_GIVEN = KeypointConfig(swap_gain=0.0)


def published_config() -> RefineConfig:
    """HSMR's full run: camera first, then all, without what is ours: anchor, bound, limits, spine, exchange."""
    weights = ((100.0, 404.0), (50.0, 404.0), (10.0, 57.4), (5.0, 4.78))
    later = tuple(
        RefinePhase(f"all-{k}", 20, sigma=100.0, shape=shape, angles=_ANGLES * angles, anchor=0.0)
        for k, (shape, angles) in enumerate(weights, 1)
    )
    camera = RefinePhase(
        "camera", 20, moves="camera", points="torso", sigma=100.0, reprojection=1.78, depth=100.0, anchor=0.0
    )
    return RefineConfig(
        phases=(camera, *later),
        start="torso",
        keypoints=_AS_GIVEN,
        max_abs_beta=0.0,
        limit_weight=0.0,
        spine_weight=0.0,
    )


def published_loop_config() -> RefineConfig:
    """HSMR's refiner inside the training loop: one phase."""
    phase = RefinePhase("loop", 20, sigma=100.0, shape=5.0, angles=0.17 * 4.78, anchor=0.0)
    return RefineConfig(
        phases=(phase,), keypoints=_AS_GIVEN, max_abs_beta=0.0, limit_weight=0.0, spine_weight=0.0
    )
