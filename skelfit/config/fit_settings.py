"""How people are fitted: the stages of a fit and the settings of the solver, as a pipeline file gives them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from skelfit.bodies.dofs import DOF_NAMES, ROOT_DOFS
from skelfit.config.yaml_dataclasses import bounded, convert, describe, dotted
from skelfit.errors import ConfigError

BodyPart = Literal["lower_body", "upper_body", "all"]
SkelGender = Literal["male", "female", "best"]
NeutralTarget = Literal["neutral", "gendered"]
InitialBetas = Literal["transfer", "copy"]
RootMode = Literal["frozen", "turn", "free"]
_TURN = 2 * math.pi


class JointLimits(dict[str, tuple[float, float]]):
    """DoF name -> [low, high] in rad; part of frozen, hashable configurations, so not to be changed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    @classmethod
    def from_yaml(cls, value: object, path: str | Path, key: str) -> JointLimits:
        """Joint limits of a mapping in a YAML file. Raises ConfigError."""
        if not isinstance(value, Mapping):
            raise ConfigError(path, key, "a mapping of DoF names to [low, high] in rad", describe(value))
        body = [name for i, name in enumerate(DOF_NAMES) if i not in ROOT_DOFS]
        limits = cls()
        for name, pair in value.items():
            where = dotted(key, str(name))
            if name not in body:
                near = difflib.get_close_matches(str(name), body, 3) or body
                raise ConfigError(path, where, "a DoF of the body: " + ", ".join(near), "an unknown name")
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise ConfigError(path, where, "[low, high] in rad", describe(pair))
            low, high = (convert(float, x, path, f"{where}[{i}]") for i, x in enumerate(pair))
            # No joint turns by a whole turn: such a number is in degrees.
            if not -_TURN <= low < high <= _TURN:
                raise ConfigError(
                    path, where, "low < high, in rad, within a turn of 0", f"[{low:g}, {high:g}]"
                )
            limits[name] = (low, high)
        return limits


@dataclass(frozen=True)
class StageConfig:
    """One stage of the fit: which DoFs move, against which vertices."""

    name: str
    dofs: BodyPart
    vertices: BodyPart
    steps: int = bounded(1)  # LM steps in all, over the refreshes
    refreshes: int = bounded(1)  # vertex passes; each recomputes pose correctives and moments
    stride: int = bounded(1, default=1)  # the last vertex pass uses every stride-th vertex
    coarse_stride: int | None = bounded(1, default=None)  # the passes before it; None: as the last
    extra_refreshes: int = bounded(0, default=0)  # more coarse passes, for people who still move
    # More last passes, for people who still move; the last passes then use the whole Hessian.
    late_refreshes: int = bounded(0, default=0)
    tolerance: float = bounded(
        0, default=1e-6
    )  # a person is done when a step would gain less than this share
    # Betas are free too where the label's gender is not SKEL's: in all passes but the last, unless it is the only one.
    refine_betas: bool = False
    joint_weight: float = bounded(
        0, default=0.0
    )  # of a shoulder joint's squared distance from its position in the mesh


@dataclass(frozen=True)
class VertexWeights:
    """Weights of the vertices of a region in the fit, against 1 elsewhere. PVE weights all vertices alike."""

    armpits: float = bounded(0, default=1.0)
    groin: float = bounded(0, default=1.0)
    hands: float = bounded(0, default=1.0)
    feet: float = bounded(0, default=1.0)
    head: float = bounded(0, default=1.0)


@dataclass(frozen=True)
class SolverConfig:
    """How one person's Levenberg-Marquardt steps are damped and accepted."""

    damping: float = bounded(0, default=1e-4)  # of the first step, relative to the matrix's diagonal
    damping_min: float = bounded(0, default=1e-7)
    damping_max: float = bounded(0, default=1e7)
    damping_up: float = bounded(1, default=10.0)  # factor after a rejected step
    damping_down: float = bounded(0, 1, default=0.1)  # factor after an accepted step
    # A person is done when a step with at most this damping is predicted to gain less than the stage's tolerance.
    damping_at_rest: float = bounded(0, default=1e-2)
    # Near a minimum the gradient is still accurate when the value is lost in rounding: a step is accepted when it
    # raises the value by less than this, in units of the float type's resolution.
    noise: float = bounded(0, default=512.0)
    max_beta_step: float = bounded(0, default=2.0)  # bound of one step of a beta


@dataclass(frozen=True)
class PassConfig:
    """When a person gets another pass over the vertices, and when they have converged. Gains are relative."""

    moving: float = bounded(
        0, default=3e-3
    )  # rad; a coarse pass that moves a person by more is followed by another
    gaining: float = bounded(
        0, default=1e-5
    )  # as is one after which a step would still gain more than this share
    # The same for the passes over all vertices: from this size on, pose correctives matter.
    late_moving: float = bounded(0, default=3e-2)
    late_gaining: float = bounded(0, default=1e-6)
    converged_gain: float = bounded(0, default=5e-3)  # converged: a step would gain less than this share
    converged_floor: float = bounded(0, default=1e-10)  # m^2; or less than this


@dataclass(frozen=True)
class RestartConfig:
    """Restarts of people who have not converged."""

    steps: int = bounded(1, default=12)  # solver steps of a pass over all vertices
    passes: int = bounded(1, default=3)  # after each other start
    no_worse: float = bounded(1, default=1.02)  # times the first objective; a result above it is dropped
    shoulder_turn: float = bounded(0, default=1.2)  # rad, along the valley of a shoulder near its Euler pole
    hip_flexion: float = bounded(0, default=1.0)  # rad


@dataclass(frozen=True)
class BranchConfig:
    """When a shoulder is restarted from another point of the valley at its Euler pole."""

    beyond: float = bounded(0, default=0.02)  # rad beyond a limit
    steps: int = bounded(1, default=8)  # solver steps from there
    # Where betas are refined, the choice is made again in this extra coarse pass (from 0): betas follow the valley.
    choosing: int = bounded(0, default=1)


@dataclass(frozen=True)
class LocatorConfig:
    """How the positions of shoulder joints in a mesh are learnt from random people."""

    vertices: int = bounded(1, default=256)  # nearest to a joint at rest
    ridge: float = bounded(0, default=1e-5)  # m^2; locates SKEL's own humeri to 1.5 mm, scapulae to 4 mm
    people: int = bounded(1, default=300)
    seed: int = bounded(0, default=0)


@dataclass(frozen=True)
class SpineCoupling:
    """How lumbar and thorax share one motion of the trunk."""

    weight: float = bounded(0)  # m^2 per squared rad off the ratio; 0: no coupling
    ratio: float = bounded(0)  # rad of lumbar per rad of thorax


@dataclass(frozen=True)
class SpineConfig:
    """The couplings of the spine; `fitting.terms.spine_coupling` has the source of the ratios."""

    bending: SpineCoupling = SpineCoupling(4e-4, 0.4)
    extension: SpineCoupling = SpineCoupling(1e-4, 1.0)
    twist: SpineCoupling = SpineCoupling(2e-4, 0.13)


@dataclass(frozen=True)
class RootPrior:
    """How a root that is not frozen is held to the label's, against the mean squared vertex error (m^2)."""

    turn: float = bounded(0, default=2e-4)  # m^2 per rad^2 that the pelvis turns (as 2 - 2 cos)
    move: float = bounded(0, default=1e-2)  # m^2 per m^2 that its joint moves

    def __str__(self) -> str:
        return f"turn {self.turn:g}, move {self.move:g}"


@dataclass(frozen=True)
class MeshConfig:
    """How bare meshes are fitted, with a free root and without the stages."""

    coarse_stride: int = bounded(1, default=8)  # the coarse passes use every 8th vertex, the fine ones all
    # Solver steps of each pass: coarse, fine, and late for people who have not converged.
    coarse_steps: tuple[int, ...] = (4, 4, 4, 4, 4, 4)
    fine_steps: tuple[int, ...] = (4,)
    late_steps: tuple[int, ...] = (4, 4)
    tolerance: float = bounded(0, default=1e-5)  # a mesh is done when a step would gain less than this share
    free_steps: tuple[int, ...] = (10, 10)  # of a retry's coarse passes, without joint limits
    perturbation: float = bounded(0, default=0.3)  # rad, of the start of the last retry
    seed: int = bounded(0, default=0)  # of that perturbation, the same for all people
    retry_above: float = bounded(0, default=0.025)  # m, RMS; SMPL's skin is fitted to 4 to 15 mm
    # Converged: the next step would gain less than this share of the objective, or less than this (m^2).
    converged_gain: float = bounded(0, default=1e-3)
    converged_floor: float = bounded(0, default=1e-10)


@dataclass(frozen=True)
class TemporalConfig:
    """How the frames of a sequence are fitted as one problem."""

    # m^2 s^2 / rad^2, of the squared difference in joint speeds of fit and label, against the mean squared vertex
    # error. It does not depend on the frame rate.
    weight: float = bounded(0, default=7e-7)
    # rad / s; where the labels of two frames jump by more (mean of the joints), the frames are not coupled: the weight
    # is divided by (1 + (jump / this)^2)^2.
    jump: float = bounded(1e-3, default=3.0)
    beta_frames: int = bounded(1, default=64)  # frames of a sequence whose betas are refined and averaged
    steps: int = bounded(1, default=4)  # of whole sequences
    # Rounds of steps; all but the first follow a vertex pass of the frames that continue.
    passes: int = bounded(1, default=8)
    later_steps: int = bounded(1, default=3)
    moving: float = bounded(0, default=1e-1)  # rad; a frame that a pass moves by more continues
    gaining: float = bounded(0, default=1e-3)  # as does one where a step would gain more than this share
    margin: float = bounded(0, default=0.5)  # s; frames this near to one that continues do so too
    frame_rate: float = bounded(0.1, default=30.0)  # Hz, of sequences without one


@dataclass(frozen=True)
class FitConfig:
    """How people are fitted."""

    stages: tuple[StageConfig, ...] = bounded(1)
    # For labels of neutral gender; best: each person gets the better of both fits.
    skel_gender: SkelGender = "male"
    # The mesh of a neutral label: SMPL's neutral body, or the body of SKEL's gender with the same betas.
    neutral_target: NeutralTarget = "neutral"
    # SKEL's betas before refinement: those nearest to SMPL's body at rest, or the same numbers.
    betas: InitialBetas = "transfer"
    root: RootMode = "frozen"  # in the last stage: as in the label, free to turn, or free to turn and move
    root_prior: RootPrior = RootPrior()
    # People per solver call; None: chosen for the device. All frames of a sequence are in memory, about 50 kB each.
    batch: int | None = bounded(1, default=None)
    retries: int = bounded(0, default=4)  # of the last stage, for people who have not converged
    limit_weight: float = bounded(0, default=1.5e-4)  # m^2 per rad^2 beyond a joint limit
    limits: JointLimits = field(default_factory=JointLimits)  # rad; in place of those of the table
    vertex_weights: VertexWeights = VertexWeights()
    spine: SpineConfig = SpineConfig()
    max_angle_step: float = bounded(0, default=0.4)  # rad; bound of one LM step
    beta_weight: float = bounded(0, default=1e-6)  # m^2 per squared beta, where betas are refined
    solver: SolverConfig = SolverConfig()
    passes: PassConfig = PassConfig()
    restarts: RestartConfig = RestartConfig()
    branches: BranchConfig = BranchConfig()
    locator: LocatorConfig = LocatorConfig()
    meshes: MeshConfig = MeshConfig()
    temporal: TemporalConfig | None = TemporalConfig()  # None: frames of a sequence are independent

    def root_of(self, smpl: bool) -> RootMode:
        """What the root may do. A bare mesh (smpl: false) has no label to hold the root to."""
        return self.root if smpl else "free"

    def skel_genders(self, smpl_gender: str) -> tuple[str, ...]:
        """The genders of the SKEL bodies that labels of an SMPL gender are fitted with."""
        if smpl_gender != "neutral":
            return (smpl_gender,)
        return ("male", "female") if self.skel_gender == "best" else (self.skel_gender,)

    def target_gender(self, smpl_gender: str, skel_gender: str) -> str:
        """The gender of the SMPL body whose mesh a SKEL is fitted to, for labels of an SMPL gender."""
        return skel_gender if smpl_gender == "neutral" and self.neutral_target == "gendered" else smpl_gender


@dataclass(frozen=True)
class FirstOrderConfig:
    """The baseline: one first-order optimiser per batch. A stage's `steps` are its iterations."""

    method: Literal["lbfgs", "adam"] = "lbfgs"  # L-BFGS has a strong-Wolfe line search
    learning_rate: float = bounded(0, default=1.0)  # L-BFGS: the first trial of a line search
    # Of all but the root; the published aligners start from zero.
    start: Literal["zero", "closed_form"] = "zero"


def check_root_prior(fit: FitConfig, path: str | Path) -> None:
    """Raise ConfigError for a prior on a motion of the root that is not free."""
    prior, usual = fit.root_prior, RootPrior()
    if fit.root == "frozen" and prior != usual:
        expected = "no such key, with root: frozen: the pelvis is as the label has it"
        raise ConfigError(path, "fit.root_prior", expected, str(prior))
    if fit.root == "turn" and prior.move != usual.move:
        expected = "no such key, with root: turn: the pelvis does not move"
        raise ConfigError(path, "fit.root_prior.move", expected, f"{prior.move:g}")


def check_neutral_target(fit: FitConfig, path: str | Path) -> None:
    """Raise ConfigError for settings without a meaning where neutral labels have gendered targets."""
    if fit.neutral_target == "neutral":
        return
    condition = "with neutral_target: gendered"
    if fit.skel_gender == "best":
        expected = f"male or female, {condition}: two targets cannot tell which SKEL is the better"
        raise ConfigError(path, "fit.skel_gender", expected, "best")
    for k, stage in enumerate(fit.stages):
        if stage.refine_betas:
            expected = f"false, {condition}: the betas of a label of SKEL's gender are held"
            raise ConfigError(path, f"fit.stages[{k}].refine_betas", expected, "true")
