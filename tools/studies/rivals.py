"""The fit beside the first-order baseline, each with a frozen and with a free root: same people, objective and bodies.

The people are drawn from three seeds. The baseline is `first-order.yaml` with the residuals of the pipeline that is
measured; it takes one or two CPU seconds a person, so the default number is small.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from skelfit.benchmark.fit_speed import POSES, Labels, PeopleFitter, same_objective
from skelfit.benchmark.text_table import table
from skelfit.config.fit_settings import RootMode
from skelfit.config.manifest import Gender
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.baseline.first_order import FirstOrderFitter
from skelfit.fitting.fitter import Fitter
from skelfit.labels.demo_people import sample_labels
from skelfit.resources.catalog import PIPELINES
from tools.studies.setup import Setup, Study, distribution, percent

SEEDS = (41_000, 42_000, 43_000)  # no person of the demo, the bench or another study
ROOTS: tuple[RootMode, ...] = ("frozen", "free")


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per gender, kind of poses and root: PVE and objective of both, how often each is better, and their time."""
    baseline = load_pipeline(PIPELINES.find("first-order"))
    assert baseline.first_order is not None
    records = []
    for gender in setup.genders:
        for kind in POSES:
            labels = draw(setup.people, gender, kind)
            for root in ROOTS:
                fit = replace(setup.fit, root=root)
                theirs = FirstOrderFitter(
                    setup.models, same_objective(fit, baseline.fit), baseline.first_order, setup.device
                )
                measured = {}
                for name, fitter in (("ours", Fitter(setup.models, fit, setup.device)), ("baseline", theirs)):
                    setup.say(f"{len(labels)} {kind} people, {gender} labels, {root} root: {name}")
                    measured[name] = _measure(fitter, labels, theirs.config.batch or len(labels))
                records.append(
                    {"gender": gender, "poses": kind, "people": len(labels), "root": root}
                    | compared(**measured)
                )
    return records


def draw(people: int, gender: Gender, kind: str) -> Labels:
    """The first people of each seed, together as many as asked for, or up to two more."""
    each = -(-people // len(SEEDS))
    drawn = zip(*(sample_labels(each, seed, POSES[kind]) for seed in SEEDS), strict=True)
    return Labels(gender, *(torch.cat([torch.from_numpy(x) for x in parts]) for parts in drawn))


def _measure(fitter: PeopleFitter, labels: Labels, batch: int) -> dict[str, Any]:
    """The results of a fitter in batches, and its time."""
    rows = torch.arange(len(labels)).split(batch)
    started = time.process_time()
    results = [fitter.fit(labels.gender, labels.pose[r], labels.betas[r], labels.transl[r]) for r in rows]
    return {
        "pve_mm": torch.cat([f.pve_mm for f in results]),
        "objective": torch.cat([f.objective for f in results]),
        "cpu_ms": 1000 * (time.process_time() - started) / len(labels),
    }


def compared(ours: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    """The figures of both, and the shares of people for which ours has the lower PVE and objective."""
    figures = {
        name: {
            "pve_mm": distribution(measured["pve_mm"]),
            "objective_mm2": distribution(1e6 * measured["objective"]),
            "cpu_ms_per_person": measured["cpu_ms"],
        }
        for name, measured in (("ours", ours), ("baseline", baseline))
    }
    ahead = {k: float((ours[k] <= baseline[k] * (1 + 1e-6)).double().mean()) for k in ("pve_mm", "objective")}
    return {**figures, "ahead": ahead}


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per group and fitter."""
    heads = ("labels", "poses", "people", "root", "fit", "PVE mean", "p95", "max", "objective mm2", "CPU ms")
    rows = [
        (r["gender"], r["poses"], r["people"], r["root"], name)
        + tuple(f"{r[name]['pve_mm'][q]:.2f}" for q in ("mean", "p95", "max"))
        + (f"{r[name]['objective_mm2']['mean']:.2f}", f"{r[name]['cpu_ms_per_person']:.1f}")
        for r in records
        for name in ("ours", "baseline")
    ]
    lines = table(heads, rows)
    for r in records:
        group = f"{r['gender']} {r['poses']}, {r['root']} root"
        shares = percent(r["ahead"]["pve_mm"]), percent(r["ahead"]["objective"])
        lines.append(
            f"{group}: ours has the lower PVE of {shares[0]} of them, the lower objective of {shares[1]}"
        )
    return lines


STUDY = Study("the fit beside the first-order baseline, roots frozen and free", 12, ("male",), run, text)
