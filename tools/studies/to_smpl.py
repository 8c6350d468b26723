"""SKEL brought back to SMPL, and to SKEL again: what each step loses.

Made-up labels are fitted by SKEL (SKEL 1), which is brought back to SMPL (SMPL 1) and fitted again (SKEL 2).
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from skelfit.benchmark.fit_speed import Labels, make_labels
from skelfit.benchmark.text_table import table
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.manifest import Gender
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.smpl_fitter import SmplFitter
from tools.studies.setup import Setup, Study, distribution

_FEW = 50  # meshes made at once


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per gender and kind of poses: distances between the four skins, and the time of the way back."""
    fitter, back = (
        Fitter(setup.models, setup.fit, setup.device),
        SmplFitter(setup.models, device=setup.device),
    )
    records = []
    for gender in setup.genders:
        skin = _Skins(setup, gender)
        for kind, labels in make_labels(setup.people, gender).items():
            setup.say(f"{setup.people} {kind} people, {gender} labels")
            first = fitter.fit(gender, labels.pose, labels.betas, labels.transl)
            back.fit(gender, first.poses[:1], first.betas[:1], first.trans[:1])  # makes the tables
            started = time.process_time()
            smpl = back.fit(gender, first.poses, first.betas, first.trans)
            cpu = time.process_time() - started
            again = fitter.fit(gender, smpl.pose, smpl.betas, smpl.transl)
            there_and_back = skin.distances(first, again, labels)
            records.append(
                {
                    "gender": gender,
                    "poses": kind,
                    "people": setup.people,
                    "first_fit_mm": distribution(first.pve_mm),
                    "to_smpl_mm": distribution(smpl.pve_mm),
                    "skel_2_from_skel_1_mm": distribution(there_and_back[0]),
                    "skel_2_from_label_mm": distribution(there_and_back[1]),
                    "converged": float(smpl.converged.double().mean()),
                    "cpu_ms_per_person": 1000 * cpu / setup.people,
                }
            )
    return records


class _Skins:
    """The skins of both bodies of a gender."""

    def __init__(self, setup: Setup, gender: Gender) -> None:
        self.smpl, self.skel = (
            SmplModel(setup.models.smpl_of(gender)),
            SkelModel(setup.models.skel_of(gender)),
        )

    @torch.no_grad()
    def distances(self, first: FitResult, again: FitResult, labels: Labels) -> tuple[Tensor, Tensor]:
        """Mean distances (N,) mm of the second SKEL to the first, and to the label."""
        to_first, to_label = [], []
        for start in range(0, len(first.poses), _FEW):
            few = slice(start, start + _FEW)
            a, b = (
                self.skel.forward(self.skel.shape(x.betas[few]), x.poses[few], x.trans[few]).vertices
                for x in (first, again)
            )
            label = self.smpl.vertices(labels.pose[few], labels.betas[few], labels.transl[few])
            to_first.append((b - a).norm(dim=-1).mean(1))
            to_label.append((b - label).norm(dim=-1).mean(1))
        return 1000 * torch.cat(to_first), 1000 * torch.cat(to_label)


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per gender and kind of poses: mean and 95th percentile of each distance."""
    heads = ["gender", "poses", "people", "SKEL 1 - label", "SMPL 1 - SKEL 1", "SKEL 2 - SKEL 1"]
    heads += ["SKEL 2 - label", "converged", "CPU ms each"]
    keys = ("first_fit_mm", "to_smpl_mm", "skel_2_from_skel_1_mm", "skel_2_from_label_mm")
    rows = [
        (r["gender"], r["poses"], r["people"], *(f"{r[k]['mean']:.2f}, {r[k]['p95']:.2f}" for k in keys))
        + (f"{100 * r['converged']:.1f} %", f"{r['cpu_ms_per_person']:.2f}")
        for r in records
    ]
    return ["mean and 95th percentile of the mean vertex distance, mm", *table(heads, rows)]


STUDY = Study("SKEL brought back to SMPL, and fitted again", 500, ("male", "female"), run, text)
