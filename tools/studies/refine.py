"""Refinement against 2D keypoints: people with known parameters, shaken labels, keypoints with noise and outliers.

Truths are fits of the demo's people, seen by the demo's camera (256 px). Their labels are shaken: every angle by so
many rad (standard deviation), the root's orientation too, betas by 0.5, the translation by 5 % of the depth and 5 cm
aside. Keypoints get noise in px, and a share of them stands anywhere in the person's box. A second table has the people
who seem to be swapped, of those whose keypoints are and of the others; a third one compares the solver with the
first-order baseline on the same people, problem and phases; the last one hides the camera.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.benchmark.fit_speed import make_labels
from skelfit.benchmark.text_table import table
from skelfit.bodies.joint_distances import joint_errors
from skelfit.bodies.keypoint_names import MIRRORED_KEYPOINTS
from skelfit.bodies.limit_excess import excess_deg
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.bodies.skel import SkelModel
from skelfit.config.refine_settings import AnchorConfig, RefineConfig
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.refinement.refinement_problem import BodyParameters, RefinementProblem, RefinementStatus
from skelfit.fitting.refinement.refiner import Refiner
from tools.studies.first_order_refinement import FirstOrderRefiner
from tools.studies.picture import write_picture
from tools.studies.refine_cameras import CameraCase, camera_lines, compare_cameras
from tools.studies.refine_picture import draw_rows
from tools.studies.setup import SEED, Setup, Study, distribution

SHAKES, NOISES, OUTLIERS = (0.1, 0.2, 0.3), (0.0, 2.0, 5.0), 0.2
BETAS, DEPTH, ASIDE = 0.5, 0.05, 0.05  # of the labels: betas; share of the depth; m
SIZE_PX, FOCAL_PX = 256, 1.2 * 256
_COMPARED, _ITERATIONS = 64, 30  # people of the comparison, and the baseline's iterations of each phase
_FEW = 64  # skins at a time
_DRAWN = 6  # worst people


@dataclass(frozen=True)
class Truth:
    """People with known parameters, and their keypoints in the image."""

    people: BodyParameters
    female: Tensor
    points: Tensor  # (N, 44, 2) px
    inside: Tensor  # (N, 44) bool, within the image
    cam_int: Tensor  # (N, 3, 3) px


def make_truth(setup: Setup) -> Truth:
    """The people that all problems are about."""
    gender = setup.genders[0]
    labels = make_labels(setup.people, gender)["everyday"]
    fit = Fitter(setup.models, setup.fit, setup.device).fit(
        labels.gender, labels.pose, labels.betas, labels.transl
    )
    people = BodyParameters(fit.poses, fit.betas, fit.trans)
    camera = torch.tensor([[FOCAL_PX, 0, SIZE_PX / 2], [0, FOCAL_PX, SIZE_PX / 2], [0, 0, 1]])
    points = keypoints(setup.models, people, fit.female) @ camera.mT
    points = points[..., :2] / points[..., 2:]
    inside = ((points >= 0) & (points < SIZE_PX)).all(2)
    return Truth(people, fit.female, points, inside, camera.expand(len(points), 3, 3).clone())


def keypoints(models: ModelSet, people: BodyParameters, female: Tensor) -> Tensor:
    """Keypoints (N, 44, 3) m in the camera's frame."""
    points = torch.zeros(len(female), 44, 3)
    for of, gender in ((False, "male"), (True, "female")):
        rows = female == of
        if rows.any():
            body = SkelKeypoints(models, gender)
            points[rows] = body(people.angles[rows], people.betas[rows]) + people.transl[rows, None]
    return points


def make_problem(truth: Truth, shake: float, noise: float) -> RefinementProblem:
    """The people with shaken labels, and what an annotator saw of them; the same each time."""
    source = torch.Generator().manual_seed(SEED)
    people = truth.people

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=source)

    start = BodyParameters(
        people.angles + shake * normal(people.angles),
        people.betas + BETAS * normal(people.betas),
        people.transl * (1 + DEPTH * normal(people.transl[:, :1])) + ASIDE * normal(people.transl),
    )
    return RefinementProblem(start, truth.female, seen_keypoints(truth, noise, source), truth.cam_int)


def seen_keypoints(truth: Truth, noise: float, source: torch.Generator) -> Tensor:
    """Keypoints (N, 44, 3) px and confidences, with noise of so many px and outliers anywhere in the person's box."""
    seen = truth.inside[..., None]
    low = torch.where(seen, truth.points, torch.inf).amin(1, keepdim=True)
    high = torch.where(seen, truth.points, -torch.inf).amax(1, keepdim=True)
    anywhere = low + (high - low) * torch.rand(truth.points.shape, generator=source)
    off = torch.rand(truth.inside.shape, generator=source) < OUTLIERS
    noisy = truth.points + noise * torch.randn(truth.points.shape, generator=source)
    return torch.cat((torch.where(off[..., None], anywhere, noisy), seen.float()), 2)


@torch.no_grad()
def measure(
    models: ModelSet, truth: Truth, people: BodyParameters, cam_int: Tensor | None = None
) -> dict[str, Tensor]:
    """Of each person (N,): 2D error in px of the true keypoints in the image, MPJPE and PVE in mm beside the pelvis,
    PA-MPJPE, root's distance in mm, degrees of the worst violation of a limit. cam_int: None for the true cameras."""
    image = keypoints(models, people, truth.female) @ (truth.cam_int if cam_int is None else cam_int).mT
    off = (image[..., :2] / image[..., 2:] - truth.points).norm(dim=-1)
    parts: dict[str, list[Tensor]] = {"mpjpe_mm": [], "pve_mm": [], "pa_mpjpe_mm": []}
    for rows in torch.arange(len(truth.female)).split(_FEW):
        bodies = []
        for one in (people.take(rows), truth.people.take(rows)):
            bodies.append(_posed(models, one, truth.female[rows]))
        (joints, skin), (true_joints, true_skin) = bodies
        root = joints[:, :1] - true_joints[:, :1]
        parts["mpjpe_mm"].append(1000 * (joints - true_joints - root).norm(dim=-1).mean(1))
        aligned = joint_errors(true_joints.double().numpy(), joints.double().numpy(), (0,))[:, 2]
        parts["pa_mpjpe_mm"].append(torch.from_numpy(aligned))
        parts["pve_mm"].append(1000 * (skin - true_skin - root).norm(dim=-1).mean(1))
    violation = excess_deg(people.angles.numpy()).max(1)
    return {
        "px": torch.where(truth.inside, off, 0.0).sum(1) / truth.inside.sum(1).clamp(min=1),
        **{name: torch.cat(values) for name, values in parts.items()},
        "root_mm": 1000 * (people.transl - truth.people.transl).norm(dim=-1),
        "violation_deg": torch.from_numpy(np.asarray(violation)).float(),
    }


def _posed(models: ModelSet, people: BodyParameters, female: Tensor) -> tuple[Tensor, Tensor]:
    """Joints (n, 24, 3) and skins (n, V, 3) m."""
    joints, skin = [torch.zeros(len(female), n, 3) for n in (24, _model(models, False).v_template.shape[0])]
    for of in (False, True):
        if (rows := female == of).any():
            model, some = _model(models, of), people.take(rows)
            out = model.forward(model.shape(some.betas), some.angles)
            joints[rows], skin[rows] = out.joints, out.vertices
    return joints, skin


_MODELS: dict[tuple[str, bool], SkelModel] = {}


def _model(models: ModelSet, female: bool) -> SkelModel:
    key = models.sha256, female
    if key not in _MODELS:
        _MODELS[key] = SkelModel(models.skel_of("female" if female else "male"))
    return _MODELS[key]


def run(setup: Setup) -> list[dict[str, Any]]:
    """Per shake and noise: measures before and after, statuses; without an anchor; then beside the baseline."""
    setup.say(f"fitting {setup.people} people")
    truth, records = make_truth(setup), []
    configs = {"anchor": RefineConfig(), "no anchor": RefineConfig(anchor=AnchorConfig(0, 0, 0, 0, 0))}
    refiners = {name: Refiner(setup.models, config, setup.device) for name, config in configs.items()}
    for name, refiner in refiners.items():
        refiner.refine(
            make_problem(truth, SHAKES[0], 0.0).take(torch.arange(1))
        )  # tables and kernels are made
        for shake in SHAKES:
            for noise in NOISES if name == "anchor" else NOISES[1:2]:
                setup.say(f"{name}, labels shaken by {shake:g} rad, {noise:g} px of noise")
                records.append(_record(setup, truth, refiner, name, shake, noise))
    if setup.picture is not None:
        write_picture(setup.picture, draw_worst(setup, truth, refiners["anchor"]))
    records += [swaps(truth, refiners["anchor"], shake, noise) for shake in SHAKES for noise in NOISES]
    records += compare(setup, truth, refiners["anchor"])
    labels = [(SHAKES[0], NOISES[1]), *((SHAKES[1], noise) for noise in NOISES)]
    return records + compare_cameras(_camera_case(setup, truth), labels, setup.say)


def _camera_case(setup: Setup, truth: Truth) -> CameraCase:
    return CameraCase(
        setup.models,
        setup.device,
        truth.people,
        (SIZE_PX, SIZE_PX),
        lambda shake, noise: make_problem(truth, shake, noise),
        lambda people, cam_int: measure(setup.models, truth, people, cam_int),
    )


def swaps(truth: Truth, refiner: Refiner, shake: float, noise: float) -> dict[str, Any]:
    """The share of people who seem to be swapped, of those with left and right exchanged and of the others."""
    given = make_problem(truth, shake, noise)
    exchanged = replace(given, keypoints2d=given.keypoints2d[:, list(MIRRORED_KEYPOINTS)])

    def share(problem: RefinementProblem) -> float:
        return float((refiner.refine(problem).status == RefinementStatus.SWAPPED).double().mean())

    return {"kind": "swapped", "shake": shake, "noise_px": noise, "people": len(given)} | {
        "found": share(exchanged),
        "false": share(given),
    }


def _record(
    setup: Setup, truth: Truth, refiner: Refiner, name: str, shake: float, noise: float
) -> dict[str, Any]:
    problem = make_problem(truth, shake, noise)
    started = time.perf_counter()
    result = refiner.refine(problem)
    seconds = time.perf_counter() - started
    sides = {"before": problem.start, "after": result.refined}
    measures = {side: measure(setup.models, truth, people) for side, people in sides.items()}
    return {
        "kind": name,
        "shake_rad": shake,
        "noise_px": noise,
        "outliers": OUTLIERS,
        "people": len(problem),
        "people_per_second": len(problem) / seconds,
        "statuses": {s.name.lower(): int((result.status == s).sum()) for s in RefinementStatus},
        "worse": float((measures["after"]["mpjpe_mm"] > measures["before"]["mpjpe_mm"]).double().mean()),
        **{side: {k: distribution(v) for k, v in m.items()} for side, m in measures.items()},
    }


def draw_worst(setup: Setup, truth: Truth, refiner: Refiner) -> NDArray[np.float32]:
    """The people that the most shaken labels leave furthest off: truth, label and refinement, each from two sides."""
    problem = make_problem(truth, SHAKES[-1], NOISES[1])
    refined = refiner.refine(problem).refined
    error = measure(setup.models, truth, refined)["mpjpe_mm"]
    worst = error.argsort(descending=True)[:_DRAWN].tolist()
    return draw_rows(setup.models, [truth.people, problem.start, refined], truth.female, worst)


def compare(setup: Setup, truth: Truth, refiner: Refiner) -> list[dict[str, Any]]:
    """The solver and the first-order baseline on the same people: people per second, and where they end."""
    everyone = make_problem(truth, SHAKES[1], NOISES[1])
    few = everyone.take(torch.arange(min(_COMPARED, setup.people)))
    setup.say(f"L-BFGS, {_ITERATIONS} iterations of each phase, {len(few)} people")
    twin = FirstOrderRefiner(setup.models, refiner.config, _ITERATIONS, len(few))
    records = []
    for name, one, problem in (("solver", refiner, everyone), ("L-BFGS", twin, few)):
        started, cpu_started = time.perf_counter(), time.process_time()
        result = one.refine(problem)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
        value = result.objective[: len(few)]
        records.append(
            {"kind": name, "people": len(problem), "people_per_second": len(problem) / seconds}
            | {"cpu_ms_per_person": 1000 * cpu / len(problem)}
            | {"objective_before": distribution(value[:, 0]), "objective": distribution(value[:, 1])}
        )
    return records


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per shake and noise, then the comparison."""
    names = {
        "px": "px",
        "mpjpe_mm": "MPJPE",
        "pve_mm": "PVE",
        "root_mm": "root mm",
        "violation_deg": "limit deg",
    }
    heads = ["labels", "shake", "noise px", *(f"{n}{p}" for n in names.values() for p in ("", " p95"))]
    rows = []
    for r in (r for r in records if "shake_rad" in r):
        cells = [
            f"{r['before'][key][q]:.1f}>{r['after'][key][q]:.1f}" for key in names for q in ("mean", "p95")
        ]
        rows.append(
            (r["kind"], f"{r['shake_rad']:g}", f"{r['noise_px']:g}", *cells, f"{100 * r['worse']:.1f} %")
        )
    lines = table((*heads, "worse MPJPE"), rows)
    found = [
        (f"{r['shake']:g}", f"{r['noise_px']:g}", f"{100 * r['found']:.1f} %", f"{100 * r['false']:.1f} %")
        for r in records
        if "found" in r
    ]
    lines += ["", *table(("swapped: shake", "noise px", "found", "of the others"), found)]
    both = [r for r in records if "objective" in r]
    ends = [
        (r["kind"], r["people"], f"{r['people_per_second']:.1f}", f"{r['cpu_ms_per_person']:.2f}")
        + tuple(f"{r[k][q]:.4f}" for k in ("objective_before", "objective") for q in ("mean", "p95"))
        for r in both
    ]
    heads = ["solver", "people", "people/s", "CPU ms", "start", "start p95", "end", "end p95"]
    return [*lines, "", *table(heads, ends), "", *camera_lines(records)]


STUDY = Study(
    "labels refined against 2D keypoints: errors before and after", 512, ("male",), run, text, draws=True
)
