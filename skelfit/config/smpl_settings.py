"""How SMPL is fitted to SKEL: passes and steps."""

from __future__ import annotations

from dataclasses import dataclass

from skelfit.config.fit_settings import PassConfig, SolverConfig
from skelfit.config.yaml_dataclasses import bounded


@dataclass(frozen=True)
class SmplFitConfig:
    """The passes of a fit of SMPL's pose to SKEL's skin; each computes pose correctives and moments again."""

    coarse_stride: int = bounded(1, default=16)  # coarse passes use every so-many-th vertex, fine passes all
    coarse_passes: int = bounded(1, default=6)  # at most; the last ones are for people who still move
    coarse_steps: int = bounded(1, default=6)  # solver steps of each coarse pass
    fine_passes: int = bounded(1, default=6)  # at most; all but the first are for people who have not settled
    fine_steps: int = bounded(1, default=4)  # solver steps of each pass over all vertices
    tolerance: float = bounded(0, default=1e-6)  # a person rests when a step would gain less than this share
    max_angle_step: float = bounded(0, default=0.4)  # rad, the largest turn of a joint in one step
    moving: float = bounded(0, default=1e-2)  # rad; a person that a pass moves by more gets another one
    # m^2 per rad^2 that a joint turns from where SKEL's joints have it (as 2 - 2 cos of it)
    turn_weight: float = bounded(0, default=1e-5)
    solver: SolverConfig = SolverConfig()  # damping and acceptance of steps
    passes: PassConfig = PassConfig()  # when a person has converged
