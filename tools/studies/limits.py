"""Joints beyond their limits, and the cost of the limits in accuracy.

The same people are fitted with several weights of the soft limits; the first, 0, is the fit without them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.benchmark.fit_speed import make_labels
from skelfit.benchmark.text_table import table
from skelfit.bodies.dofs import DOF_NAMES, ROOT_DOFS, dof_limits
from skelfit.fitting.fitter import Fitter
from tools.studies.setup import Setup, Study, distribution, percent

WEIGHTS = (0.0, 1e-5, 1e-4, 1.3e-4, 1.5e-4, 3e-4, 1e-3)  # m^2 per rad^2; the pipeline's own is added
BOUNDS = (5, 10, 20, 30)  # degrees beyond a limit
BODY = [i for i in range(len(DOF_NAMES)) if i not in ROOT_DOFS]
_SHOWN = 1e-3  # DoFs that are beyond 5 degrees less often are left out of the text


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per gender, kind of poses and weight: PVE, and the shares of DoF values beyond the bounds, DoF by DoF."""
    limits, own = dof_limits(setup.fit.limits), setup.fit.limit_weight
    records = []
    for gender in setup.genders:
        for kind, labels in make_labels(setup.people, gender).items():
            free = 0.0
            for weight in sorted({*WEIGHTS, own}):
                setup.say(f"{setup.people} {kind} people, {gender} labels, limit_weight {weight:g}")
                fitter = Fitter(setup.models, replace(setup.fit, limit_weight=weight), setup.device)
                result = fitter.fit(gender, labels.pose, labels.betas, labels.transl)
                pve = distribution(result.pve_mm)
                free = free or pve["mean"]
                records.append(
                    {"gender": gender, "poses": kind, "people": setup.people, "limit_weight": weight}
                    | {"of_the_pipeline": weight == own, "pve_mm": pve, "pve_cost": pve["mean"] / free - 1}
                    | violations(result.poses.double().numpy(), limits)
                    | {"converged": float(result.converged.double().mean())}
                )
    return records


def violations(poses: NDArray[np.float64], limits: NDArray[np.float64]) -> dict[str, Any]:
    """Shares of values further beyond limits (46, 2) rad than the bounds, of all DoFs and by DoF; poses (N, 46) rad.

    The root has no limits and does not count.
    """
    low, high = limits[BODY].T
    angles = poses[:, BODY]
    beyond = np.degrees(np.maximum(low - angles, angles - high))
    by_dof = {str(b): (beyond > b).mean(0) for b in BOUNDS}
    return {
        "beyond_deg": {bound: float(shares.mean()) for bound, shares in by_dof.items()},
        "beyond_deg_by_dof": {
            DOF_NAMES[i]: {bound: float(shares[k]) for bound, shares in by_dof.items()}
            for k, i in enumerate(BODY)
        },
    }


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per weight, then the DoFs without the limits and with the pipeline's weight."""
    heads = (
        "labels",
        "poses",
        "limit_weight",
        "PVE mm",
        "cost",
        *(f"> {b} deg" for b in BOUNDS),
        "converged",
    )
    rows = [
        (r["gender"], r["poses"], f"{r['limit_weight']:g}", f"{r['pve_mm']['mean']:.3f}")
        + (percent(r["pve_cost"]), *map(_fine, r["beyond_deg"].values()), percent(r["converged"]))
        for r in records
    ]
    lines = ["share of all DoF values that lie so far beyond their limits", *table(heads, rows)]
    for own in (r for r in records if r["of_the_pipeline"]):
        group = own["gender"], own["poses"]
        free = next(r for r in records if (r["gender"], r["poses"]) == group)
        lines += ["", f"by DoF, {' '.join(group)}: without limits, then with {own['limit_weight']:g}"]
        rows = [
            (name, *map(percent, without.values()), *map(percent, own["beyond_deg_by_dof"][name].values()))
            for name, without in free["beyond_deg_by_dof"].items()
            if max(without["5"], own["beyond_deg_by_dof"][name]["5"]) >= _SHOWN
        ]
        lines += table(("DoF", *(f"> {b} deg" for b in BOUNDS), *(f"> {b}" for b in BOUNDS)), rows)
    return lines


def _fine(share: float) -> str:
    return f"{100 * share:.3f} %"


STUDY = Study("joint limits against accuracy", 1024, ("male", "neutral"), run, text)
