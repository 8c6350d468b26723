"""The change of a fit when its start changes.

Normal noise of 0.1 rad is added to every start angle except the root's, and people are fitted again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import pi
from typing import Any

import torch
from torch import Tensor

from skelfit.benchmark.fit_speed import Labels, make_labels
from skelfit.benchmark.text_table import table
from skelfit.bodies.dofs import DOF_NAMES, NUM_DOFS, ROOT_DOFS
from skelfit.fitting.fit_result import FitResult, map_results
from skelfit.fitting.fitter import Fitter, PairFitter
from skelfit.fitting.passes import FitBatch
from tools.studies.setup import SEED, Setup, Study, distribution, percent, quantiles, share_below

SPREAD = 0.1  # rad
_BOUNDS = (1e-4, 1e-3, 2e-3, 1e-2)  # rad
_WORST_DOFS = 8


class Moved(PairFitter):
    """A fitter whose starts are moved by an offset."""

    offset: Tensor  # (B, 46) rad

    def start(self, pose: Tensor, betas: Tensor) -> FitBatch:
        batch = super().start(pose, betas)
        batch.q.add_(self.offset.to(batch.q.device))
        return batch


class MovedFitter(Fitter):
    def make_pair(self, smpl_gender: str, skel_gender: str) -> PairFitter:
        return Moved(self.models, smpl_gender, skel_gender, self.config, self.backend)


@dataclass(frozen=True)
class Moves:
    """The changes of N people."""

    angles: Tensor  # (N, 46) rad, at most half a turn
    pve_mm: Tensor  # (N,)


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per gender and kind of poses: the share of people that move less than a few bounds, DoF by DoF, and their PVE."""
    fitter = MovedFitter(setup.models, setup.fit, setup.device)
    source = torch.Generator().manual_seed(SEED)
    offset = SPREAD * torch.randn(setup.people, NUM_DOFS, generator=source)
    offset[:, list(ROOT_DOFS)] = 0
    records = []
    for gender in setup.genders:
        for kind, labels in make_labels(setup.people, gender).items():
            setup.say(f"{setup.people} {kind} people, {gender} labels, twice")
            fit_from(fitter, labels.first(1), offset[:1])  # makes the tables
            started = time.process_time()
            base = fit_from(fitter, labels, torch.zeros_like(offset))
            cpu = time.process_time() - started
            moves = moved(base, fit_from(fitter, labels, offset))
            records.append({"gender": gender, "poses": kind} | summary(moves, base, cpu))
    return records


def fit_from(fitter: Fitter, labels: Labels, offset: Tensor) -> FitResult:
    """The fits from starts moved by offset (N, 46) rad."""
    pairs, size = fitter.prepare(labels.gender), fitter.config.batch or fitter.backend.batch_size
    parts = []
    for start in range(0, len(labels), size):
        rows = slice(start, start + size)
        for pair in pairs:
            assert isinstance(pair, Moved)
            pair.offset = offset[rows]
        parts.append(fitter.fit(labels.gender, labels.pose[rows], labels.betas[rows], labels.transl[rows]))
    return map_results(lambda *x: torch.cat(x), *parts)


def moved(one: FitResult, other: FitResult) -> Moves:
    """The difference of two results."""
    turn = (other.poses - one.poses).abs().remainder(2 * pi)
    return Moves(torch.minimum(turn, 2 * pi - turn), (other.pve_mm - one.pve_mm).abs())


def summary(moves: Moves, base: FitResult, cpu: float) -> dict[str, Any]:
    """The figures of one group of people."""
    most = moves.angles.amax(1)
    by_dof = moves.angles.double().quantile(0.99, dim=0)
    beyond = (moves.angles >= 1e-3).double().mean(0)
    worst = by_dof.argsort(descending=True)[:_WORST_DOFS].tolist()
    return {
        "people": len(most),
        "spread_rad": SPREAD,
        "share_below_rad": share_below(most, *_BOUNDS),
        "move_rad": quantiles(most, p50=0.5, p90=0.9, p99=0.99, max=1.0),
        "worst_dofs": [
            {"dof": DOF_NAMES[k], "p99_rad": float(by_dof[k]), "share_above_1e-3": float(beyond[k])}
            for k in worst
        ],
        "pve_change_mm": distribution(moves.pve_mm),
        "pve_mm": distribution(base.pve_mm),
        "converged": float(base.converged.double().mean()),
        "cpu_ms_per_person": 1000 * cpu / len(most),
    }


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per group of people, then the DoFs that move most."""
    heads = ("labels", "poses", "people", *(f"< {b:g}" for b in _BOUNDS), "p50 rad", "p99 rad", "PVE mm")
    heads = (*heads, "its change p99", "max", "CPU ms each")
    rows = [
        (r["gender"], r["poses"], r["people"], *map(percent, r["share_below_rad"].values()))
        + tuple(f"{r['move_rad'][name]:.1e}" for name in ("p50", "p99"))
        + (f"{r['pve_mm']['mean']:.3f}", *(f"{r['pve_change_mm'][name]:.4f}" for name in ("p99", "max")))
        + (f"{r['cpu_ms_per_person']:.2f}",)
        for r in records
    ]
    lines = [
        f"share of people whose every angle moves less than so many rad, starts off by N(0, {SPREAD} rad)"
    ]
    lines += table(heads, rows)
    for r in records:
        dofs = ", ".join(f"{d['dof']} {d['p99_rad']:.1e}" for d in r["worst_dofs"])
        lines.append(f"99th percentile by DoF, {r['gender']} {r['poses']}: {dofs}")
    return lines


STUDY = Study("how far answers move when their starts do", 1024, ("male", "neutral"), run, text)
