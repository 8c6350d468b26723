"""Neutral labels: the part of their error that is due to the shape, and ways to lower it.

Four questions: the SKEL body to fit (`bodies`, beside labels of SKEL's own gender, whose betas need no transfer); the
distance of the shape spaces at rest with 1 to all of SKEL's betas (`floor`); the cost of one shape for several rows of
a person (`rows`); and the cost of the prior on betas (`prior`).

The floor of the shapes is the error of fits of the same people in SMPL's T-pose, where only shapes differ. Angles are
free there too, and reduce a part of that error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from skelfit.benchmark.fit_speed import Labels, make_labels
from skelfit.benchmark.text_table import table
from skelfit.bodies.dofs import ROOT_DOFS
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.fit_settings import FitConfig, SkelGender
from skelfit.config.manifest import Gender
from skelfit.errors import ConfigError
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from tools.studies.setup import Setup, Study, check_own_targets, distribution, percent

WEIGHTS = (0.0, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5)  # m^2 per squared beta; the pipeline's is measured, too
ROWS = 16  # of each made-up person in `rows`
SHARED = (2, 4, ROWS)  # rows that a shape is averaged over
_CHUNK = 32  # skins at a time


def run(setup: Setup) -> list[dict[str, Any]]:
    """Records of each question, marked by `what`."""
    check_own_targets(setup)
    if setup.genders != ("neutral",):
        raise ConfigError(
            setup.pipeline.name, "--gender", "neutral, for this study", ", ".join(setup.genders)
        )
    people = make_labels(setup.people, "neutral")
    records = []
    for kind, labels in people.items():
        setup.say(f"{setup.people} {kind} people on each SKEL body")
        records += [{"what": "bodies", "poses": kind} | r for r in _bodies(setup, labels)]
    setup.say("shapes at rest")
    records += [{"what": "floor"} | r for r in floor(setup, people["everyday"].betas)]
    for kind, labels in people.items():
        setup.say(f"{kind} people of {ROWS} rows each")
        records += [{"what": "rows", "poses": kind} | r for r in _rows(setup, labels)]
        setup.say(f"{setup.people} {kind} people with each weight of the prior")
        records += [{"what": "prior", "poses": kind} | r for r in _prior(setup, labels)]
    return records


def _fitted(setup: Setup, config: FitConfig, labels: Labels) -> tuple[FitResult, float]:
    """A fit and its CPU milliseconds a person, without tables and compilation."""
    fitter = Fitter(setup.models, config, setup.device)
    few = labels.first(1)
    fitter.fit(few.gender, few.pose, few.betas, few.transl)
    started = time.process_time()
    result = fitter.fit(labels.gender, labels.pose, labels.betas, labels.transl)
    return result, 1000 * (time.process_time() - started) / len(labels)


def _bodies(setup: Setup, labels: Labels) -> Iterator[dict[str, Any]]:
    """Each body for neutral labels, the better of the two, and labels of each body's own gender."""
    own: list[tuple[SkelGender, Gender]] = [("male", "male"), ("female", "female")]
    for body, gender in [*own, ("male", "neutral"), ("female", "neutral"), ("best", "neutral")]:
        config = replace(setup.fit, skel_gender=body)
        people = replace(labels, gender=gender)
        result, cpu = _fitted(setup, config, people)
        rest, _ = _fitted(setup, config, replace(people, pose=torch.zeros_like(labels.pose)))
        yield {
            "labels": gender,
            "skel_gender": body,
            "people": len(labels),
            "pve_mm": distribution(result.pve_mm),
            "rest_pve_mm": distribution(rest.pve_mm),
            "cpu_ms": cpu,
            "female": float(result.female.double().mean()),
            "largest_beta": distribution(result.betas.abs().amax(1)),
            "rms_at_rest_mm": {
                name: distribution(result.betas_mm[:, k]) for k, name in enumerate(("transferred", "refined"))
            },
        }


@torch.no_grad()
def floor(setup: Setup, betas: Tensor) -> Iterator[dict[str, Any]]:
    """Mean distance of the two skins at rest, mm, with the best k betas of each SKEL body for neutral betas (N,10)."""
    smpl = SmplModel(setup.models.smpl_of("neutral"), dtype=torch.float64)
    shaped = torch.tensor(smpl.asset.shapedirs[:, :, : betas.shape[1]]).double() @ betas.double().T  # (V,3,N)
    target = torch.tensor(smpl.asset.v_template).double()[..., None] + shaped
    nearest: Tensor | None = None
    for body in ("male", "female"):
        skel = SkelModel(setup.models.skel_of(body), dtype=torch.float64)
        missing = (target - skel.v_template[..., None]).flatten(0, 1)
        space = skel.shapedirs.flatten(0, 1)
        for count in range(1, skel.num_betas + 1):
            result = torch.linalg.lstsq(space[:, :count], missing).solution
            apart = 1000 * (missing - space[:, :count] @ result).unflatten(0, (-1, 3)).norm(dim=1).mean(0)
            yield {"skel_gender": body, "betas": count, "at_rest_mm": distribution(apart)}
        nearest = apart if nearest is None else torch.minimum(nearest, apart)
    assert nearest is not None
    yield {"skel_gender": "best", "betas": skel.num_betas, "at_rest_mm": distribution(nearest)}


@torch.no_grad()
def _rows(setup: Setup, labels: Labels) -> Iterator[dict[str, Any]]:
    """Several rows of one person in unrelated poses: with their own betas, and with the mean of several rows' betas."""
    subjects = max(len(labels) // ROWS, 1)
    rows = labels.first(subjects * ROWS)
    if len(rows) < ROWS:
        raise ConfigError(
            setup.pipeline.name, "--people", f"{ROWS} or more, for this study", str(len(labels))
        )
    rows = replace(rows, betas=rows.betas[::ROWS].repeat_interleave(ROWS, 0))
    held = replace(setup.fit, stages=tuple(replace(s, refine_betas=False) for s in setup.fit.stages))
    fitter, still = (Fitter(setup.models, c, setup.device) for c in (setup.fit, held))
    own = fitter.fit("neutral", rows.pose, rows.betas, rows.transl)
    closed = still.fit("neutral", rows.pose, rows.betas, rows.transl)
    people = {"people": subjects, "rows": ROWS}
    spread = own.betas.unflatten(0, (subjects, ROWS)).std(1).mean()
    for name, result, off in (("closed form", closed, torch.zeros(())), ("each row's own", own, spread)):
        yield people | {"betas": name, "pve_mm": distribution(result.pve_mm), "spread": float(off)}
    if setup.fit.skel_gender == "best":
        return  # a person's rows may then be of both bodies
    (pair,) = still.prepare("neutral")
    pose = rows.pose.clone()
    pose[:, 0] = 0
    start = own.poses.clone()
    start[:, list(ROOT_DOFS)] = 0
    skins = [
        pair.smpl.vertices(p, b) for p, b in zip(pose.split(_CHUNK), rows.betas.split(_CHUNK), strict=True)
    ]
    meshes = torch.cat(skins)
    for count in SHARED:
        groups = own.betas.unflatten(0, (-1, count)).mean(1)
        shared = groups.repeat_interleave(count, 0)
        q, betas, trans, _ = pair.solve(meshes, start, shared)
        apart = groups.unflatten(0, (subjects, -1)).std(1).mean() if count < ROWS else torch.zeros(())
        pve = 1000 * torch.cat(
            [
                (pair.skel.forward(pair.skel.shape(b), a).vertices + t[:, None] - m).norm(dim=-1).mean(1)
                for a, b, t, m in zip(*(x.split(_CHUNK) for x in (q, betas, trans, meshes)), strict=True)
            ]
        )
        name = f"mean of {count} rows"
        yield people | {"betas": name, "pve_mm": distribution(pve), "spread": float(apart)}


def _prior(setup: Setup, labels: Labels) -> Iterator[dict[str, Any]]:
    """Weights of the prior on betas."""
    for weight in sorted({*WEIGHTS, setup.fit.beta_weight}):
        result, _ = _fitted(setup, replace(setup.fit, beta_weight=weight), labels)
        yield {
            "beta_weight": weight,
            "of_the_pipeline": weight == setup.fit.beta_weight,
            "pve_mm": distribution(result.pve_mm),
            "largest_beta": distribution(result.betas.abs().amax(1)),
            "rms_at_rest_mm": distribution(result.betas_mm[:, 1]),
        }


def text(records: list[dict[str, Any]]) -> list[str]:
    """A table for each question, and the floor in one line."""

    def of(what: str) -> list[dict[str, Any]]:
        return [r for r in records if r["what"] == what]

    def errors(record: dict[str, Any]) -> tuple[str, str]:
        return f"{record['pve_mm']['mean']:.3f}", f"{record['pve_mm']['p95']:.3f}"

    heads = ("labels", "SKEL", "poses", "PVE mm", "p95", "CPU ms", "female", "largest |beta| p50", "max")
    lines = table(
        heads,
        [
            (
                r["labels"],
                r["skel_gender"],
                r["poses"],
                *errors(r),
                f"{r['cpu_ms']:.2f}",
                percent(r["female"]),
            )
            + (f"{r['largest_beta']['p50']:.2f}", f"{r['largest_beta']['max']:.2f}")
            for r in of("bodies")
        ],
    )
    lines += ["", *_floor_lines(records), ""]
    at_rest = [(r["skel_gender"], str(r["betas"]), f"{r['at_rest_mm']['mean']:.3f}", f"{r['at_rest_mm']['p95']:.3f}")
             for r in of("floor")]  # fmt: skip
    lines += [*table(("SKEL", "betas", "at rest mm", "p95"), at_rest), ""]
    rows = [(r["betas"], r["poses"], *errors(r), f"{r['spread']:.3f}") for r in of("rows")]
    lines += [*table(("betas of a person", "poses", "PVE mm", "p95", "spread of a beta"), rows), ""]
    prior = [
        (f"{r['beta_weight']:g}{' *' if r['of_the_pipeline'] else ''}", r["poses"], *errors(r))
        + (
            f"{r['largest_beta']['p50']:.2f}",
            f"{r['largest_beta']['max']:.2f}",
            f"{r['rms_at_rest_mm']['mean']:.2f}",
        )
        for r in of("prior")
    ]
    return lines + table(
        ("beta_weight", "poses", "PVE mm", "p95", "largest |beta| p50", "max", "at rest (RMS) mm"), prior
    )


def _floor_lines(records: list[dict[str, Any]]) -> Iterator[str]:
    """How much of the error of neutral labels is the shape's, for each body."""
    betas = {r["skel_gender"]: r["at_rest_mm"]["mean"] for r in records if r["what"] == "floor"}
    for r in records:
        if r["what"] == "bodies" and r["labels"] == "neutral":
            pve, rest, body = r["pve_mm"]["mean"], r["rest_pve_mm"]["mean"], r["skel_gender"]
            yield (
                f"neutral on {body}, {r['poses']}: of {pve:.1f} mm PVE, {rest:.1f} mm is the floor of the shapes, "
                f"there in the T-pose already (by betas alone {betas[body]:.1f} mm)"
            )


STUDY = Study(
    "neutral labels: floor of the shapes, both bodies, shared betas, prior", 512, ("neutral",), run, text
)
