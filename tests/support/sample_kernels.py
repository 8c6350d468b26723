"""Kernels around functions of the fit's kernels, for tests of these functions; each for groups of so many lanes.

In a module of their own: like the package's kernels, they are not Python that mypy can check.
"""

from functools import lru_cache
from typing import Any

import warp as wp

from skelfit.fitting.backends.body_tables import BodyTables
from skelfit.fitting.backends.kernels import kernels_for
from skelfit.fitting.backends.retraction_tables import BallTables
from skelfit.fitting.backends.variable_tables import StageVariables


@lru_cache
def retraction_kernel(lanes: int) -> Any:
    """Retracts steps of angles, with betas after them."""
    of = kernels_for(lanes)
    A2, F2, I2 = of.lanes.A2, of.lanes.F2, of.lanes.I2
    gather, scatter, sync = of.lanes.gather, of.lanes.scatter, of.lanes.sync
    retract, retract_betas = of.retraction.retract, of.retraction.retract_betas

    @wp.kernel(module="unique", enable_backward=False)
    def move(
        x: F2, step: F2, rows: I2, balls: BallTables, betas: int, max_step: float, scratch: A2, at: A2, by: A2,
        out: F2,
    ):  # fmt: skip
        g, t = wp.tid()
        for i in range(t, x.shape[1], wp.block_dim()):
            at[g, i] = gather(x, rows, g, i)
            by[g, i] = gather(step, rows, g, i)
        sync()
        retract(g, t, at, by, max_step, balls, scratch, at)
        retract_betas(g, t, at, by, x.shape[1] - betas, betas, 2.0, at)
        sync()
        for i in range(t, x.shape[1], wp.block_dim()):
            scatter(out, rows, g, i, at[g, i])

    return move


@lru_cache
def pole_kernel(lanes: int) -> Any:
    """Moves the three angles of a ball joint along their Euler pole."""
    of = kernels_for(lanes)
    A2, F2, I2, V = of.lanes.A2, of.lanes.F2, of.lanes.I2, of.lanes.V
    gather, scatter, move_along_pole = of.lanes.gather, of.lanes.scatter, of.retraction.move_along_pole

    @wp.kernel(module="unique", enable_backward=False)
    def move_to_pole(x: F2, rows: I2, limits: F2, pole_point: int, at: A2, out: F2):
        g, t = wp.tid()
        for i in range(3):
            at[g, i] = gather(x, rows, g, i)
        move_along_pole(g, 0, 1, 2, pole_point, limits, V(1.0), at)
        for i in range(3):
            scatter(out, rows, g, i, at[g, i])

    return move_to_pole


@lru_cache
def evaluation_kernel(lanes: int) -> Any:
    """Evaluates the objective."""
    of = kernels_for(lanes)
    A1, A2, joint_means, evaluate = of.lanes.A1, of.lanes.A2, of.quadratic.joint_means, of.objective.evaluate
    StepRules, SkinMoments, VariableScratch = (
        of.objective.StepRules,
        of.moments.SkinMoments,
        of.objective.VariableScratch,
    )
    NewtonScratch, JointFrames = of.damped_step.NewtonScratch, of.joint_frames.JointFrames
    QuadraticForm, BetaTerms = of.quadratic.QuadraticForm, of.betas_terms.BetaTerms

    @wp.kernel(module="unique", enable_backward=False)
    def evaluate_all(
        x: A2, rules: StepRules, moments: SkinMoments, variables: StageVariables, body: BodyTables,
        joints: JointFrames, form: QuadraticForm, beta_terms: BetaTerms, scratch: VariableScratch,
        newton: NewtonScratch, values: A1,
    ):  # fmt: skip
        g, t = wp.tid()
        joint_means(g, t, variables, form)
        value = evaluate(
            g, t, 2 * g, g, x, rules, moments, variables, body, joints, form, beta_terms, scratch, newton
        )
        if t == 0:
            values[g] = value

    return evaluate_all


@lru_cache
def beta_moments_kernel(lanes: int) -> Any:
    """Loads the moments of betas from the groups of a vertex pass."""
    of = kernels_for(lanes)
    I2, load_beta_moments = of.lanes.I2, of.betas_terms.load_beta_moments
    BetaMoments, BetaTerms = of.betas_moments.BetaMoments, of.betas_terms.BetaTerms

    @wp.kernel(module="unique", enable_backward=False)
    def load(pass_rows: I2, source: BetaMoments, beta_terms: BetaTerms):
        g, t = wp.tid()
        load_beta_moments(g, t, g, pass_rows, source, beta_terms)

    return load


@lru_cache
def damped_step_kernel(lanes: int) -> Any:
    """Makes a damped step of each problem."""
    of = kernels_for(lanes)
    A1, NewtonScratch, damped_step = of.lanes.A1, of.damped_step.NewtonScratch, of.damped_step.damped_step

    @wp.kernel(module="unique", enable_backward=False)
    def make_steps(damping: A1, full_hessian: int, newton: NewtonScratch, predicted: A1):
        g, t = wp.tid()
        decrease = damped_step(g, t, 2 * g, newton.gradient.shape[1], full_hessian, damping[g], newton)
        if t == 0:
            predicted[g] = decrease

    return make_steps
