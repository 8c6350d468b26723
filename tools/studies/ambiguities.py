"""Motions that a skin hardly determines: flat directions of the objective, and minima from other starts.

At the result of a fit, the eigenvectors of the objective's Hessian (float64, every 25th vertex) with the smallest
eigenvalues give the angles that can move together, and how far for one per cent of the objective. Fits from distant
starts give other minima: their distance, and the difference of their objectives.
"""

from __future__ import annotations

from collections import defaultdict
from math import pi
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skelfit.benchmark.fit_speed import Labels, make_labels
from skelfit.benchmark.text_table import table
from skelfit.bodies.dofs import DOF_NAMES, NUM_DOFS, ROOT_DOFS, dof_limits
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.fitting.baseline.naive_objective import NaiveObjective
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.terms.shoulder_targets import JointTargets, make_locator
from skelfit.fitting.terms.spine_coupling import spine_couplings
from tools.studies.sensitivity import MovedFitter, fit_from
from tools.studies.setup import SEED, Setup, Study, percent

STRIDE = 25
FAR = 0.3  # rad, spread of the other starts
SHARE = 0.01  # of the objective
FLAT_DEG = 5.0  # a direction is flat where so much of a turn costs no more than that share
APART_DEG = 1.0  # two answers
_SHOWN = {"flat direction": 0.1, "two minima": 0.005}  # cases a person; rarer ones are left out of the text
_FEW = 8  # people whose Hessians are made at a time
BODY = [i for i in range(NUM_DOFS) if i not in ROOT_DOFS]
_SIDES = ("_r_", "_l_")


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per gender and kind of poses: flat directions, then pairs of minima, by the DoFs that move most."""
    fitter, records = MovedFitter(setup.models, setup.fit, setup.device), []
    offset = FAR * torch.randn(setup.people, NUM_DOFS, generator=torch.Generator().manual_seed(SEED))
    offset[:, list(ROOT_DOFS)] = 0
    for gender in setup.genders:
        for kind, labels in make_labels(setup.people, gender).items():
            setup.say(f"{setup.people} {kind} people, {gender} labels")
            result = fit_from(fitter, labels, torch.zeros_like(offset))
            other = fit_from(fitter, labels, offset)
            group = {"gender": gender, "poses": kind, "people": setup.people}
            records += [group | r for r in flat_directions(*curvatures(setup, labels, result))]
            records += [group | r for r in minima(result, other)]
    return records


def curvatures(setup: Setup, labels: Labels, result: FitResult) -> tuple[Tensor, Tensor]:
    """The objective (N,) m^2 at the results and its Hessian (N, 43, 43), for fixed betas."""
    config, limits = setup.fit, torch.tensor(dof_limits(setup.fit.limits))
    skel = SkelModel(
        setup.models.skel_of(config.skel_genders(labels.gender)[0]),
        dtype=torch.float64,
    )
    smpl = SmplModel(setup.models.smpl_of(labels.gender), dtype=torch.float64)
    locator = make_locator(skel, limits, config=config.locator)
    few = skel.with_vertices(np.arange(0, len(skel.v_template), STRIDE))
    om = torch.full((len(few.v_template),), 1 / len(few.v_template), dtype=torch.float64)
    values, hessians = [], []
    for rows in torch.arange(len(labels)).split(_FEW):
        still = labels.pose[rows].double()
        still[:, 0] = 0
        target = smpl.vertices(still, labels.betas[rows].double())
        joints = JointTargets(tuple(locator.joints), locator(target), config.stages[-1].joint_weight)
        goal = NaiveObjective(
            model=few,
            om=om,
            target=target[:, ::STRIDE],
            dofs=torch.tensor(BODY),
            q=result.poses[rows].double().index_fill(1, torch.tensor(ROOT_DOFS), 0.0),
            betas=result.betas[rows].double(),
            limits=limits,
            limit_weight=config.limit_weight,
            joints=joints,
            couplings=torch.tensor(spine_couplings(config.spine)),
        )
        values.append(goal.value(goal.start))
        hessians.append(goal.hessian(goal.start))
    return torch.cat(values), torch.cat(hessians)


def flat_directions(value: Tensor, hessian: Tensor) -> list[dict[str, Any]]:
    """Flat directions by the two DoFs that move most: share of people, and how far for a share of the objective."""
    curvature, directions = torch.linalg.eigh(hessian)
    reach = (2 * SHARE * value[:, None] / curvature.clamp(min=1e-9)).sqrt()
    degrees = torch.rad2deg(reach * directions.abs().amax(1))
    degrees_by_name: dict[str, list[float]] = defaultdict(list)
    for person, k in (degrees > FLAT_DEG).nonzero().tolist():
        most = directions[person, :, k].abs().argsort(descending=True)[:2]
        degrees_by_name[_name([BODY[i] for i in most.tolist()])].append(
            float(degrees[person, k].clamp(max=180))
        )
    return _records("flat direction", degrees_by_name, len(value), {})


def minima(one: FitResult, other: FitResult) -> list[dict[str, Any]]:
    """Pairs of different results, by the two DoFs that differ most: distance, and difference of objectives."""
    turn = (one.poses - other.poses).abs().remainder(2 * pi)
    apart = torch.rad2deg(torch.minimum(turn, 2 * pi - turn))[:, BODY]
    higher = (one.objective - other.objective).abs() / torch.minimum(one.objective, other.objective)
    degrees_by_name: dict[str, list[float]] = defaultdict(list)
    costs: dict[str, list[float]] = defaultdict(list)
    for person in (apart.amax(1) > APART_DEG).nonzero()[:, 0].tolist():
        most = apart[person].argsort(descending=True)[:2]
        name = _name([BODY[i] for i in most.tolist()])
        degrees_by_name[name].append(float(apart[person].max()))
        costs[name].append(float(higher[person]))
    return _records("two minima", degrees_by_name, len(apart), costs)


def _name(dofs: list[int]) -> str:
    names = [DOF_NAMES[i] for i in dofs]
    for side in _SIDES:
        names = [n.replace(side, "_") for n in names]
    return " with ".join(sorted({n.removesuffix("_r").removesuffix("_l") for n in names}))


def _records(
    kind: str, degrees_by_name: dict[str, list[float]], people: int, costs: dict[str, list[float]]
) -> list[dict[str, Any]]:
    """A record for each name, the most frequent first."""
    return [
        {
            "of": kind,
            "between": name,
            "cases_per_person": len(degrees) / people,
            "median_deg": float(np.median(degrees)),
            "max_deg": max(degrees),
            "median_objective": float(np.median(costs[name])) if costs else SHARE,
        }
        for name, degrees in sorted(degrees_by_name.items(), key=lambda item: -len(item[1]))
    ]


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per ambiguity that is frequent enough."""
    rows = [
        (f"{r['gender']}, {r['poses']}", r["of"], r["between"], percent(r["cases_per_person"]))
        + (f"{r['median_deg']:.1f}", f"{r['max_deg']:.1f}", percent(r["median_objective"]))
        for r in records
        if r["cases_per_person"] > _SHOWN[r["of"]]
    ]
    heads = ("labels", "what", "between", "cases a person", "median deg", "max deg", "of the objective")
    return table(heads, rows)


STUDY = Study("motions that a skin hardly tells apart", 128, ("male", "neutral"), run, text)
