"""Bone vertices outside the skin, by their cause: at rest with the mean shape, with people's shapes, and posed.

Of fits of made-up people. Bones outside at rest with the mean shape come from the model file. Those that shape adds
come from SKEL's scaling of bones, by lengths between joints and few widths. Those that pose adds come from rigid bones
and from the positions of the joints' axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skelfit.benchmark.fit_speed import make_labels
from skelfit.benchmark.text_table import table
from skelfit.bodies.dofs import NUM_JOINTS, ROOT_DOFS
from skelfit.bodies.skel import SkelModel
from skelfit.fitting.fitter import Fitter
from tools.studies.setup import Setup, Study, distribution, percent

MEAN, SHAPED, BENT, POSED = "mean shape, at rest", "people's shapes, at rest", "mean shape, posed", "posed"
_CHUNK = 8  # people whose bones are in memory
_NAMED = 4  # joints in the text


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per gender of labels, SKEL body and kind of poses: shares outside in each of the four states."""
    records = []
    for gender in setup.genders:
        for kind, labels in make_labels(setup.people, gender).items():
            setup.say(f"bones of {setup.people} {kind} people, {gender} labels")
            result = Fitter(setup.models, setup.fit, setup.device).fit(
                gender, labels.pose, labels.betas, labels.transl
            )
            q = result.poses.double().index_fill(1, torch.tensor(ROOT_DOFS), 0.0)
            for body, whose in (("male", ~result.female), ("female", result.female)):
                if not whose.any():
                    continue
                skel = SkelModel(setup.models.skel_of(body), dtype=torch.float64)
                betas, angles = result.betas[whose].double(), q[whose]
                states = {
                    MEAN: (torch.zeros_like(betas[:1]), torch.zeros_like(angles[:1])),
                    SHAPED: (betas, torch.zeros_like(angles)),
                    BENT: (torch.zeros_like(betas), angles),
                    POSED: (betas, angles),
                }
                group = {"labels": gender, "poses": kind, "skel_gender": body}
                for state, person in states.items():
                    records.append(
                        group | {"state": state, "people": len(person[0])} | figures(skel, *person)
                    )
    return records


@torch.no_grad()
def figures(skel: SkelModel, betas: Tensor, q: Tensor) -> dict[str, Any]:
    """Of bodies with betas (N,10) and angles (N,46): shares of bone vertices outside, by joint too, and how far."""
    from skelfit.verification.measures.skin_distance import SkinSurface  # takes a moment

    surface = SkinSurface(skel.asset.faces, skel.asset.v_template)
    joint = skel.asset.bone_weights_rigid.argmax(1)
    size = np.bincount(joint, minlength=NUM_JOINTS)
    outside, deepest = np.zeros(NUM_JOINTS), []
    for skin, bones in _posed(skel, betas, q):
        distance = surface.signed_distances(skin.numpy(), bones.numpy())
        outside += np.bincount(joint[distance > 0], minlength=NUM_JOINTS)
        deepest.append(1000 * max(float(distance.max()), 0.0))
    names = skel.asset.joints_name
    return {
        "share": float(outside.sum() / (size.sum() * len(q))),
        "deepest_mm": distribution(torch.tensor(deepest)),
        "joint_share": {
            name: float(hits / (n * len(q))) for name, hits, n in zip(names, outside, size, strict=True) if n
        },
    }


def _posed(skel: SkelModel, betas: Tensor, q: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Skin (V,3) and bone vertices (Vs,3) m of one person after the other."""
    for b, a in zip(betas.split(_CHUNK), q.split(_CHUNK), strict=True):
        shape = skel.shape(b)
        yield from zip(skel.forward(shape, a).vertices, skel.bones(shape, a), strict=True)


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per group and state, with the joints whose bones are outside most."""
    heads = ("labels", "SKEL", "poses", "state", "outside", "deepest: mean, mm", "p95", "most at")
    rows = []
    for r in records:
        most = sorted(r["joint_share"].items(), key=lambda item: -item[1])[:_NAMED]
        where = ", ".join(f"{name} {percent(share)}" for name, share in most if share > 0)
        deepest = [f"{r['deepest_mm'][name]:.1f}" for name in ("mean", "p95")]
        group = (r["labels"], r["skel_gender"], r["poses"], r["state"])
        rows.append((*group, percent(r["share"]), *deepest, where))
    return table(heads, rows)


STUDY = Study(
    "bones outside the skin: by shape, by pose, by joint", 64, ("neutral", "male", "female"), run, text
)
