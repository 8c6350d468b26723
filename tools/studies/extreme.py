"""Extreme poses: every joint anywhere within and slightly beyond its range, any global rotation.

Statuses are those of a conversion. A study that ends has had no exception.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from skelfit.benchmark.text_table import table
from skelfit.config.manifest import Gender
from skelfit.conversion.fitted_rows import RowFits, RowsToFit
from skelfit.conversion.row_fits import fit_rows, labels_fit
from skelfit.conversion.row_judgement import Judgement, judge_rows
from skelfit.fitting.fitter import Fitter
from skelfit.labels.demo_people import extreme_labels
from skelfit.labels.label_batch import FIELD_SHAPES, LabelBatch
from tools.studies.picture import draw_pairs, write_picture
from tools.studies.setup import SEED, Setup, Study, distribution, percent

BEYOND = 0.1  # share of a joint's range by which it is widened at both ends
WORST = 20
_CHUNK = 4096  # people between two reports


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per gender of the labels: convergence, statuses, PVE, and the worst people with their statuses."""
    fitter = Fitter(setup.models, setup.fit, setup.device)
    records, pictures = [], []
    for gender in setup.genders:
        batch = make_batch(setup.people, gender)
        fitted, verdicts, cpu = [], [], 0.0
        for start in range(0, setup.people, _CHUNK):
            setup.say(f"{start} of {setup.people} people, {gender} labels")
            few = batch.rows(start, start + _CHUNK)
            started = time.process_time()
            rows = RowsToFit.of(few)
            fitted.append(fit_rows(rows, labels_fit(rows, fitter), len(setup.fit.stages)))
            cpu += time.process_time() - started
            verdicts += judge_rows(few, fitted[-1], setup.pipeline)
        fits = RowFits(
            **{f.name: np.concatenate([getattr(part, f.name) for part in fitted]) for f in fields(RowFits)}
        )
        worst = worst_people(fits, verdicts)
        records.append(summary(gender, fits, verdicts, worst, cpu))
        if setup.picture is not None:
            pictures.append(draw_pairs(fitter.prepare(gender), batch, fits, worst))
    if setup.picture is not None:
        write_picture(setup.picture, np.concatenate(pictures))
    return records


def make_batch(people: int, gender: Gender) -> LabelBatch:
    """The people of the study as label rows; the first people are the same for any number."""
    pose, betas, transl = extreme_labels(people, SEED, BEYOND)
    given: dict[str, Any] = {"pose": pose, "betas": betas, "transl": transl}
    rest: dict[str, Any] = {
        name: np.zeros((people, *shape), np.float32)
        for name, shape in FIELD_SHAPES.items()
        if name not in given
    }
    names = [""] * people
    return LabelBatch(np.arange(people), names, gender=[gender] * people, bad=names, **given, **rest)


def worst_people(fits: RowFits, verdicts: list[Judgement]) -> list[int]:
    """Rows of the worst people: those not finite, then not converged, then with the largest PVE."""
    order = np.lexsort((-fits.pve_mm, fits.converged, fits.finite))
    return [int(k) for k in order[:WORST]]


def summary(
    gender: str, fits: RowFits, verdicts: list[Judgement], worst: list[int], cpu: float
) -> dict[str, Any]:
    """The figures of one gender."""
    people = len(verdicts)
    return {
        "gender": gender,
        "people": people,
        "beyond": BEYOND,
        "not_finite": int((~fits.finite).sum()),
        "not_converged": int((~fits.converged).sum()),
        "converged": float(fits.converged.mean()),
        "statuses": dict(sorted(Counter(v.status for v in verdicts).items())),
        "pve_mm": distribution(torch.tensor(fits.pve_mm)),
        "max_vertex_mm": distribution(torch.tensor(fits.max_vertex_mm)),
        "cpu_ms_per_person": 1000 * cpu / people,
        "worst": [
            {
                "person": k,
                "status": verdicts[k].status,
                "reason": verdicts[k].reason,
                "pve_mm": round(float(fits.pve_mm[k]), 2),
                "max_vertex_mm": round(float(fits.max_vertex_mm[k]), 2),
            }
            for k in worst
        ],
    }


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per gender, then the worst people."""
    heads = ("labels", "people", "not finite", "not converged", "converged", "PVE mean", "p95", "p99", "max")
    rows = [
        (r["gender"], r["people"], r["not_finite"], r["not_converged"], percent(r["converged"]))
        + tuple(f"{r['pve_mm'][name]:.2f}" for name in ("mean", "p95", "p99", "max"))
        + (f"{r['cpu_ms_per_person']:.2f}",)
        for r in records
    ]
    lines = table((*heads, "CPU ms each"), rows)
    for r in records:
        counts = ", ".join(f"{name} {count}" for name, count in r["statuses"].items())
        lines += ["", f"{r['gender']} labels: {counts}; the worst:"]
        worst = [(w["status"], w["person"], w["pve_mm"], w["max_vertex_mm"], w["reason"]) for w in r["worst"]]
        lines += table(("status", "person", "PVE mm", "max vertex mm", "reason"), worst)
    return lines


STUDY = Study(
    "extreme poses: convergence, and the worst people", 20_000, ("male", "neutral"), run, text, draws=True
)
