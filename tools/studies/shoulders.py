"""Shoulder targets from the mesh: the effect of `joint_weight` on accuracy and anatomy.

SKEL's joints are unknown in SMPL's meshes. So the study also makes meshes with known joints: SKEL's own skin at the
angles of a label's closed-form start, within the limits, plus the residual of another person's fit, carried over in the
skin's own frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import roma
import torch
from torch import Tensor

from skelfit.benchmark.fit_speed import Labels, make_labels
from skelfit.benchmark.text_table import table
from skelfit.bodies.ball_joints import angles_to_rotation, ball_joints
from skelfit.bodies.dofs import ROOT_DOFS, dof_limits, dofs_of_joint
from skelfit.bodies.kinematics import RestFrames
from skelfit.bodies.skel import SkelModel, skinning_transforms
from skelfit.config.fit_settings import FitConfig
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter, PairFitter
from tools.studies.body_angles import body_angles
from tools.studies.limits import violations
from tools.studies.setup import SEED, Setup, Study, distribution, percent

WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1)
_SCAPULAE, _HUMERI = (14, 19), (15, 20)
_SPREAD = 0.1  # rad, of the starts about the known angles
_FEW = 64  # people at a time


@dataclass(frozen=True)
class Known:
    """Meshes of people with known angles."""

    meshes: Tensor  # (N, V, 3) m
    betas: Tensor  # (N, 10)
    q: Tensor  # (N, 46) rad, the root at zero
    start: Tensor  # (N, 46) rad


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per gender, kind of poses and weight: PVE and violations of fits, and errors of known shoulders."""
    limits, records = dof_limits(setup.fit.limits), []
    for gender in setup.genders:
        for kind, labels in make_labels(setup.people, gender).items():
            known = None
            for weight in WEIGHTS:
                setup.say(f"{setup.people} {kind} people, {gender} labels, joint_weight {weight:g}")
                fitter = Fitter(setup.models, with_weight(setup.fit, weight), setup.device)
                result = fitter.fit(gender, labels.pose, labels.betas, labels.transl)
                pair = fitter.prepare(gender)[0]
                known = known or make_known(pair, labels, result)
                counts = violations(result.poses.double().numpy(), limits)
                scapulae = [v["10"] for k, v in counts["beyond_deg_by_dof"].items() if "scapula" in k]
                records.append(
                    {"gender": gender, "poses": kind, "people": setup.people, "joint_weight": weight}
                    | {"pve_mm": distribution(result.pve_mm), "beyond_deg": counts["beyond_deg"]}
                    | {"scapulae_beyond_10_deg": sum(scapulae) / len(scapulae)}
                    | {"known": off_known(pair, known)}
                    | {"converged": float(result.converged.double().mean())}
                )
    return records


def with_weight(config: FitConfig, weight: float) -> FitConfig:
    """The same fit with one joint_weight in all stages that have shoulders."""
    return replace(config, stages=tuple(replace(s, joint_weight=weight) for s in config.stages))


@torch.no_grad()
def make_known(pair: PairFitter, labels: Labels, result: FitResult) -> Known:
    """Meshes at closed-form angles, each with the residual of the person before; and moved starts."""
    skel = pair.skel
    fitted = result.poses.index_fill(1, torch.tensor(ROOT_DOFS), 0.0)
    betas, still = result.betas, labels.pose.clone()
    still[:, 0] = 0
    low, high = pair.limits.unbind(-1)
    q = body_angles(skel.frames(betas).frame, roma.rotvec_to_rotmat(still), pair.dof_limits).clamp(low, high)
    skins, turns, left = [], [], []
    for few in torch.arange(len(q)).split(_FEW):
        frames = skel.frames(betas[few])
        shape = skel.shape(betas[few])
        skins.append(skel.forward(shape, q[few]).vertices)
        turns.append(_skin_turns(skel, frames, q[few]))
        target = pair.smpl.vertices(still[few], labels.betas[few])
        off = target - skel.forward(shape, fitted[few]).vertices
        left.append((_skin_turns(skel, frames, fitted[few]).mT @ off[..., None])[..., 0])
    carried = (torch.cat(turns) @ torch.cat(left).roll(1, 0)[..., None])[..., 0]
    noise = torch.randn(q.shape, generator=torch.Generator().manual_seed(SEED))
    start = (q + _SPREAD * noise).index_fill(1, torch.tensor(ROOT_DOFS), 0.0)
    return Known(torch.cat(skins) + carried, betas, q, start)


def _skin_turns(skel: SkelModel, frames: RestFrames, q: Tensor) -> Tensor:
    """Rotations of the skin at each vertex from rest, (B, V, 3, 3)."""
    transforms = skinning_transforms(skel.joints(frames, q), frames.joints)
    return roma.special_procrustes((skel.weights @ transforms.flatten(2)).unflatten(2, (3, 4))[..., :3])


@torch.no_grad()
def off_known(pair: PairFitter, known: Known) -> dict[str, float]:
    """Mean errors of shoulders: joints in mm, and rotations against the bone above in degrees."""
    q, betas, trans, _ = pair.solve(known.meshes, known.start, known.betas)
    positions = pair.skel.joints(pair.skel.frames(betas), q).pos + trans[:, None]
    expected = pair.skel.joints(pair.skel.frames(known.betas), known.q).pos
    off = 1000 * (positions - expected).norm(dim=-1)
    return {
        "scapula_mm": float(off[:, list(_SCAPULAE)].mean()),
        "humerus_mm": float(off[:, list(_HUMERI)].mean()),
        "all_joints_mm": float(off.mean()),
        "scapula_deg": _turned(q, known.q, _SCAPULAE),
        "humerus_deg": _turned(q, known.q, _HUMERI),
    }


def _turned(one: Tensor, other: Tensor, joints: tuple[int, ...]) -> float:
    """Mean angle between the joints' rotations at two sets of angles, degrees."""
    ball = ball_joints(joints, one.device, one.dtype)
    dofs = [list(dofs_of_joint(j)) for j in joints]
    a, b = (angles_to_rotation(ball, q[:, dofs]) for q in (one, other))
    return float(torch.rad2deg(roma.rotmat_geodesic_distance(a, b)).mean())


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per gender, kind of poses and weight."""
    heads = ["labels", "poses", "joint_weight", "PVE mm", "> 10 deg", "scapulae > 10", "converged"]
    heads += ["scapula mm", "humerus mm", "all joints mm", "scapula deg", "humerus deg"]
    rows = [
        (r["gender"], r["poses"], f"{r['joint_weight']:g}", f"{r['pve_mm']['mean']:.3f}")
        + tuple(percent(x) for x in (r["beyond_deg"]["10"], r["scapulae_beyond_10_deg"], r["converged"]))
        + tuple(f"{x:.2f}" for x in r["known"].values())
        for r in records
    ]
    return ["the last five columns: errors of known shoulders", *table(heads, rows)]


STUDY = Study("drawing shoulders to where the mesh has them", 512, ("male",), run, text)
