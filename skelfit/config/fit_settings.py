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

    name: str  # unique name of the stage
    dofs: BodyPart  # which DoFs move
    vertices: BodyPart  # which vertices the fit compares
    steps: int = bounded(1)  # solver steps in all, shared out over the refreshes
    refreshes: int = bounded(1)  # vertex passes; each computes pose correctives and moments again
    stride: int = bounded(1, default=1)  # the last vertex pass uses every stride-th vertex
    # the same for the passes before the last; null: as the last
    coarse_stride: int | None = bounded(1, default=None)
    # how many more coarse passes there are for people who still move
    extra_refreshes: int = bounded(0, default=0)
    # how many more last passes there are for people who have not settled. Above 0, all passes but the first
    # use the whole Hessian, and shoulders beyond their limits are tried all along their valley
    late_refreshes: int = bounded(0, default=0)
    # a person is done when a step would gain less than this share of the objective
    tolerance: float = bounded(0, default=1e-6)
    # betas are free too, for labels whose gender SKEL does not have: in all passes but the last, or in the
    # only one
    refine_betas: bool = False
    # weight of the squared distance of scapula and humerus joints from their places on the mesh; 0: off
    joint_weight: float = bounded(0, default=0.0)


@dataclass(frozen=True)
class VertexWeights:
    """Weights of the vertices of a region in the fit, against 1 elsewhere. PVE weights all vertices alike."""

    armpits: float = bounded(0, default=1.0)  # weight of the vertices of the armpits
    groin: float = bounded(0, default=1.0)  # weight of the vertices of the groin
    hands: float = bounded(0, default=1.0)  # weight of the vertices of the hands
    feet: float = bounded(0, default=1.0)  # weight of the vertices of the feet
    head: float = bounded(0, default=1.0)  # weight of the vertices of the head


@dataclass(frozen=True)
class SolverConfig:
    """How one person's Levenberg-Marquardt steps are damped and accepted."""

    # damping of the first step, as a share of the matrix's diagonal
    damping: float = bounded(0, default=1e-4)
    damping_min: float = bounded(0, default=1e-7)  # smallest damping
    damping_max: float = bounded(0, default=1e7)  # largest damping
    damping_up: float = bounded(1, default=10.0)  # factor of the damping after a refused step
    damping_down: float = bounded(0, 1, default=0.1)  # factor of the damping after an accepted step
    # a step with at most this damping decides whether a person rests: it must gain less than the tolerance
    damping_at_rest: float = bounded(0, default=1e-2)
    # a rise of the objective below this many units of float resolution counts as rounding, not as a worse
    # step
    noise: float = bounded(0, default=512.0)
    max_beta_step: float = bounded(0, default=2.0)  # largest change of a beta in one step


@dataclass(frozen=True)
class PassConfig:
    """Which people get another vertex pass, and when they have converged; gains are shares of the objective."""

    # rad; a person that a coarse pass moves by more gets another coarse pass
    moving: float = bounded(0, default=3e-3)
    gaining: float = bounded(0, default=1e-5)  # so does a person who would still gain more than this share
    # rad; a person that a pass over all vertices moves by more gets another such pass
    late_moving: float = bounded(0, default=3e-2)
    # so does a person who would still gain more than this share
    late_gaining: float = bounded(0, default=1e-6)
    # a person has converged when a step would gain less than this share
    converged_gain: float = bounded(0, default=5e-3)
    converged_floor: float = bounded(0, default=1e-10)  # m^2; or when it would gain less than this


@dataclass(frozen=True)
class RestartConfig:
    """Restarts of people who have not converged."""

    steps: int = bounded(1, default=12)  # solver steps of a pass over all vertices
    passes: int = bounded(1, default=3)  # passes over all vertices after each other start
    # an answer counts when its objective is at most this factor times the first one
    no_worse: float = bounded(1, default=1.02)
    # rad; one start turns the shoulders so far along the valley of their Euler pole
    shoulder_turn: float = bounded(0, default=1.2)
    hip_flexion: float = bounded(0, default=1.0)  # rad; one start flexes the hips so far


@dataclass(frozen=True)
class BranchConfig:
    """When a shoulder is restarted from another point of the valley at its Euler pole."""

    beyond: float = bounded(0, default=0.02)  # rad beyond a limit, from which a shoulder is tried elsewhere
    steps: int = bounded(1, default=8)  # solver steps from there
    # where betas are refined, the extra coarse pass (counted from 0) that tries it too, since betas follow
    # the shoulder
    choosing: int = bounded(0, default=1)


@dataclass(frozen=True)
class LocatorConfig:
    """How the positions of shoulder joints in a mesh are learnt from random people."""

    vertices: int = bounded(1, default=256)  # how many vertices, the nearest to the joint at rest
    # m^2, of the regression; SKEL's own humeri are then located to 1.5 mm, scapulae to 4 mm
    ridge: float = bounded(0, default=1e-5)
    people: int = bounded(1, default=300)  # how many random people
    seed: int = bounded(0, default=0)  # seed of the random people


@dataclass(frozen=True)
class SpineCoupling:
    """How lumbar and thorax share one motion of the trunk."""

    weight: float = bounded(0)  # m^2 per squared rad off the ratio; 0: off
    ratio: float = bounded(0)  # rad of the lumbar joint per rad of the thorax


@dataclass(frozen=True)
class SpineConfig:
    """The couplings of the spine; `fitting.terms.spine_coupling` has the source of the ratios."""

    bending: SpineCoupling = SpineCoupling(4e-4, 0.4)  # bending to the side
    extension: SpineCoupling = SpineCoupling(1e-4, 1.0)  # flexion and extension
    twist: SpineCoupling = SpineCoupling(2e-4, 0.13)  # twist about the long axis


@dataclass(frozen=True)
class RootPrior:
    """How a root that is not frozen is held to the label's, against the mean squared vertex error (m^2)."""

    turn: float = bounded(0, default=2e-4)  # m^2 per rad^2 of the pelvis' turn (as 2 - 2 cos of it)
    move: float = bounded(0, default=1e-2)  # m^2 per m^2 of its joint's movement

    def __str__(self) -> str:
        return f"turn {self.turn:g}, move {self.move:g}"


@dataclass(frozen=True)
class MeshConfig:
    """How bare meshes are fitted, with a free root and without the stages."""

    coarse_stride: int = bounded(1, default=8)  # coarse passes use every so-many-th vertex, fine passes all
    coarse_steps: tuple[int, ...] = (4, 4, 4, 4, 4, 4)  # solver steps of each coarse pass
    fine_steps: tuple[int, ...] = (4,)  # solver steps of each pass over all vertices
    late_steps: tuple[int, ...] = (4, 4)  # solver steps of further passes for people who have not converged
    tolerance: float = bounded(0, default=1e-5)  # a mesh is done when a step would gain less than this share
    # solver steps of the coarse passes of a second try, without joint limits
    free_steps: tuple[int, ...] = (10, 10)
    perturbation: float = bounded(0, default=0.3)  # rad; the start of the last try is moved by so much
    seed: int = bounded(0, default=0)  # seed of that perturbation, the same for all people
    # m, RMS; a mesh with a larger error is tried again. Good fits of SMPL's skin have 4 to 15 mm
    retry_above: float = bounded(0, default=0.025)
    # a mesh has converged when the next step would gain less than this share of the objective
    converged_gain: float = bounded(0, default=1e-3)
    converged_floor: float = bounded(0, default=1e-10)  # m^2; or when it would gain less than this


@dataclass(frozen=True)
class TemporalConfig:
    """How the frames of a sequence are fitted as one problem."""

    # m^2 s^2 / rad^2, of the squared speed at which the joints deviate from the label's, against the mean
    # squared vertex error; the same at every frame rate
    weight: float = bounded(0, default=7e-7)
    # rad/s; where the labels of two frames jump by more (mean of the joints), the weight falls as 1 / (1 +
    # (jump / this)^2)^2
    jump: float = bounded(1e-3, default=3.0)
    # how many frames of a sequence the shared betas are refined from
    beta_frames: int = bounded(1, default=64)
    steps: int = bounded(1, default=4)  # solver steps of whole sequences
    # rounds of steps; all but the first follow a vertex pass of the frames that go on
    passes: int = bounded(1, default=8)
    later_steps: int = bounded(1, default=3)  # solver steps of each of these later rounds
    moving: float = bounded(0, default=1e-1)  # rad; a frame that a pass moves by more continues
    # so does a frame that a step would still improve by more than this share
    gaining: float = bounded(0, default=1e-3)
    margin: float = bounded(0, default=0.5)  # s; the frames this near to a frame that goes on go on too
    frame_rate: float = bounded(0.1, default=30.0)  # Hz, of sequences whose file gives no rate


@dataclass(frozen=True)
class FitConfig:
    """How people are fitted."""

    stages: tuple[StageConfig, ...] = bounded(1)  # the stages, in order
    # the SKEL body for neutral labels; best: both, and each person keeps the better one, at twice the time
    skel_gender: SkelGender = "male"
    # the mesh of a neutral label: of SMPL's neutral body; or gendered: of the SMPL body of SKEL's gender,
    # with the neutral betas' numbers
    neutral_target: NeutralTarget = "neutral"
    # SKEL's betas before any refinement; transfer: those nearest to SMPL's body at rest; copy: the same
    # numbers
    betas: InitialBetas = "transfer"
    # the pelvis in the last stage; frozen: as in the label; turn: its orientation is fitted; free: its
    # position too
    root: RootMode = "frozen"
    root_prior: RootPrior = RootPrior()  # how strongly the label holds a root that is not frozen
    # people per solver call; null: what suits the device (512 per CPU core, 16,384 on a GPU). All frames of a
    # sequence are held at once, about 50 kB each
    batch: int | None = bounded(1, default=None)
    # how often the last stage runs again for people who have not converged
    retries: int = bounded(0, default=4)
    limit_weight: float = bounded(0, default=1.5e-4)  # m^2 per rad^2 beyond a joint limit
    # rad; limits of single DoFs in place of the table's, such as {knee_angle_r: [0, 2.5]}
    limits: JointLimits = field(default_factory=JointLimits)
    # how much the vertices of each region count; reported errors count all alike
    vertex_weights: VertexWeights = VertexWeights()
    spine: SpineConfig = SpineConfig()  # how lumbar and thorax share the motions of the trunk
    max_angle_step: float = bounded(0, default=0.4)  # rad, the largest turn of a joint in one step
    beta_weight: float = bounded(0, default=1e-6)  # m^2 per squared beta, where betas are refined
    solver: SolverConfig = SolverConfig()  # damping and acceptance of steps
    passes: PassConfig = PassConfig()  # which people get another vertex pass, and when they have converged
    restarts: RestartConfig = RestartConfig()  # other starts for people who have not converged
    branches: BranchConfig = BranchConfig()  # shoulders near their Euler poles
    locator: LocatorConfig = LocatorConfig()  # how shoulder joints are located on a mesh
    meshes: MeshConfig = MeshConfig()  # how meshes without SMPL parameters are fitted
    # how the frames of a sequence are fitted as one problem; null: each frame by itself
    temporal: TemporalConfig | None = TemporalConfig()

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

    method: Literal["lbfgs", "adam"] = "lbfgs"  # L-BFGS (with a strong-Wolfe line search) or Adam
    learning_rate: float = bounded(0, default=1.0)  # for L-BFGS, the first trial of a line search
    # of all angles but the root's; zero: as the published aligners start; closed_form: as the solver starts
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
