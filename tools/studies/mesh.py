"""Bare meshes: SKEL meshes at random poses within the limits, fitted without SMPL parameters."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import roma
import torch
from torch import Tensor

from skelfit.benchmark.text_table import table
from skelfit.bodies.dofs import NUM_DOFS, ROOT_DOFS, dof_limits
from skelfit.bodies.skel import SkelModel
from skelfit.fitting.backends.backend import make_backend
from skelfit.fitting.mesh_fitter import MeshFitter
from skelfit.fitting.start.warm_start import root_angles
from tools.studies.setup import SEED, Setup, Study, distribution, percent, share_below

_BATCH = 250
_FEW = 50  # meshes made at once


def run(setup: Setup) -> list[dict[str, Any]]:
    """The share of meshes fitted within 0.1 and 1 mm, with known and unknown betas."""
    records = []
    for gender in setup.genders:
        model = SkelModel(setup.models.skel_of(gender))
        fitter = MeshFitter(model, replace(setup.fit, batch=_BATCH), backend=make_backend(setup.device))
        for known in (True, False):
            setup.say(f"{setup.people} {gender} meshes, betas {'known' if known else 'unknown'}")
            results, cpu = [], 0.0
            for start in range(0, setup.people, _BATCH):
                betas, mesh = make_meshes(model, min(_BATCH, setup.people - start), SEED + start)
                started = time.process_time()
                results.append(fitter.fit(mesh, betas if known else None))
                cpu += time.process_time() - started
            pve = torch.cat([f.pve_mm for f in results])
            records.append(
                {
                    "gender": gender,
                    "betas": "known" if known else "unknown",
                    "meshes": len(pve),
                    "pve_mm": distribution(pve),
                    "share_below_mm": share_below(pve, 0.1, 1.0),
                    "finite": float(torch.cat([f.finite for f in results]).double().mean()),
                    "second_chances": int((torch.cat([f.retries for f in results]) > 0).sum()),
                    "cpu_ms_per_mesh": 1000 * cpu / len(pve),
                }
            )
    return records


def make_meshes(model: SkelModel, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Betas (count, 10) and skins (count, V, 3) m of people within the limits, with any rotation."""
    like, source = model.v_template, torch.Generator().manual_seed(seed)
    low, high = torch.tensor(dof_limits()).float().unbind(-1)
    betas = torch.randn(count, model.num_betas, generator=source).clamp(-2, 2)
    q = (low + (high - low) * torch.rand(count, NUM_DOFS, generator=source)).to(like)
    trans = torch.randn(count, 3, generator=source)
    turn = roma.unitquat_to_rotmat(torch.nn.functional.normalize(torch.randn(count, 4, generator=source)))
    betas, trans, turn = (x.to(like) for x in (betas, trans, turn))
    q[:, list(ROOT_DOFS)] = root_angles(model.frames(betas).frame[:, 0], turn)
    few = zip(betas.split(_FEW), q.split(_FEW), trans.split(_FEW), strict=True)
    return betas, torch.cat([model.forward(model.shape(b), p, t).vertices for b, p, t in few])


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per gender and kind of betas."""
    heads = (
        "gender",
        "betas",
        "meshes",
        "< 0.1 mm",
        "< 1 mm",
        "PVE mean",
        "max",
        "second chances",
        "CPU ms each",
    )
    rows = [
        (r["gender"], r["betas"], r["meshes"], *map(percent, r["share_below_mm"].values()))
        + (f"{r['pve_mm']['mean']:.4f}", f"{r['pve_mm']['max']:.3f}", r["second_chances"])
        + (f"{r['cpu_ms_per_mesh']:.1f}",)
        for r in records
    ]
    return table(heads, rows)


STUDY = Study("SKEL-made meshes, fitted without SMPL parameters", 5000, ("male",), run, text)
