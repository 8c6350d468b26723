"""Neutral labels: distance of the fit's betas and pose from a slow reference, and the cost of plausible betas.

The reference refines pose and betas together in float64 (`tools.studies.reference`), from the fit's result and from
the closed-form start, and keeps the better one; then again without the prior on betas.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import roma
import torch
from torch import Tensor

from skelfit.benchmark.fit_speed import Labels, make_labels
from skelfit.benchmark.text_table import table
from skelfit.bodies.dofs import ROOT_DOFS, dof_limits
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.fit_settings import FitConfig
from skelfit.errors import ConfigError
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.start.betas_transfer import beta_map, rest_distance, rest_form
from skelfit.fitting.terms.shoulder_targets import make_locator
from skelfit.fitting.terms.spine_coupling import spine_couplings
from tools.studies.body_angles import body_angles
from tools.studies.reference import Priors, Reference, converge, lower
from tools.studies.setup import Setup, Study, check_own_targets, distribution

CLOSED, PRODUCT, BEST = "closed-form betas", "the fit", "the fit, better of both bodies"
SLOW, FREE = "reference", "reference, no beta prior"


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per SKEL body, poses and method: PVE and betas. A gender stands for a SKEL body, neutral for the pipeline's."""
    check_own_targets(setup)
    if setup.fit.root != "frozen":  # the reference's is
        raise ConfigError(setup.pipeline.name, "fit.root", "frozen, for this study", setup.fit.root)
    bodies = [b for g in setup.genders for b in setup.fit.skel_genders(g)]
    records = []
    for body in dict.fromkeys(bodies):
        for kind, labels in make_labels(setup.people, "neutral").items():
            setup.say(
                f"{setup.people} {kind} people on the {body} SKEL; the reference takes a second for each"
            )
            group = {"skel_gender": body, "poses": kind, "people": setup.people}
            methods = _methods(setup, body, labels)
            slow = methods[SLOW]["pve_mm"]["mean"]
            for name, figures in methods.items():
                records.append(
                    group | {"method": name} | figures | {"ratio": figures["pve_mm"]["mean"] / slow}
                )
    return records


def _methods(setup: Setup, body: Any, labels: Labels) -> dict[str, dict[str, Any]]:
    """The figures of each method on the same people."""
    config = replace(setup.fit, skel_gender=body)
    held = replace(config, stages=tuple(replace(s, refine_betas=False) for s in config.stages))
    fits = {
        name: Fitter(setup.models, c, setup.device).fit("neutral", labels.pose, labels.betas, labels.transl)
        for name, c in ((CLOSED, held), (PRODUCT, config), (BEST, replace(config, skel_gender="best")))
    }
    smpl = SmplModel(setup.models.smpl_of("neutral"), dtype=torch.float64)
    skel = SkelModel(setup.models.skel_of(body), dtype=torch.float64)
    slow = {SLOW: _reference(smpl, skel, labels, fits[PRODUCT], config)}
    slow[FREE] = _reference(smpl, skel, labels, slow[SLOW], replace(config, beta_weight=0.0))
    form, smpl_betas = rest_form(smpl, skel), labels.betas.double()
    answers = {name: (fit.pve_mm, fit.betas, fit.betas_mm[:, 1]) for name, fit in fits.items()}
    for name, one in slow.items():
        answers[name] = 1000 * one.pve, one.betas, 1000 * rest_distance(form, smpl_betas, one.betas)
    return {
        name: {
            "pve_mm": distribution(pve),
            "largest_beta": distribution(betas.abs().amax(1)),
            "at_rest_mm": distribution(at_rest),
            "steps": distribution(slow[name].steps) if name in slow else None,
        }
        for name, (pve, betas, at_rest) in answers.items()
    }


@torch.no_grad()
def _reference(
    smpl: SmplModel, skel: SkelModel, labels: Labels, start: FitResult | Reference, config: FitConfig
) -> Reference:
    """The better of the references from an answer and from the closed-form start."""
    limits = dof_limits(config.limits)
    bounds, joint_weight = torch.tensor(limits), config.stages[-1].joint_weight
    locator = make_locator(skel, bounds) if joint_weight else None
    couplings = torch.tensor(spine_couplings(config.spine))
    priors = Priors(bounds, config.limit_weight, config.beta_weight, locator, joint_weight, couplings)
    pose, betas = labels.pose.double(), labels.betas.double()
    offset, matrix = beta_map(smpl, skel)
    first = offset + betas @ matrix.mT
    q = body_angles(skel.frames(first).frame, roma.rotvec_to_rotmat(pose), limits)
    still = pose.clone()
    still[:, 0] = 0
    target = smpl.vertices(still, betas)
    angles = start.poses if isinstance(start, FitResult) else start.q
    from_answer = converge(skel, target, _rootless(angles.double()), start.betas.double(), priors)
    return lower(from_answer, converge(skel, target, q, first, priors))


def _rootless(q: Tensor) -> Tensor:
    """The fit's frame: without the global orientation."""
    return q.index_fill(1, torch.tensor(ROOT_DOFS), 0.0)


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per SKEL body, kind of poses and method."""
    heads = (
        "SKEL",
        "poses",
        "method",
        "PVE mm",
        "p95",
        "of the reference",
        "largest |beta| p50",
        "max",
        "at rest mm",
    )
    rows = [
        (r["skel_gender"], r["poses"], r["method"], f"{r['pve_mm']['mean']:.3f}", f"{r['pve_mm']['p95']:.3f}")
        + (f"{r['ratio']:.4f}", f"{r['largest_beta']['p50']:.2f}", f"{r['largest_beta']['max']:.2f}")
        + (f"{r['at_rest_mm']['mean']:.2f}",)
        for r in records
    ]
    return table(heads, rows)


STUDY = Study("betas of neutral labels beside a slow float64 reference", 64, ("neutral",), run, text)
