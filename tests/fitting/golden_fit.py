"""Recorded results of the fit for a few dozen people, so that a change of results is noticed.

`python tests/fitting/golden_fit.py --record` records the answers of this processor, also those that older processors
would give. `--check TARGET` compiles the kernels for a target and prints as JSON how far the answers are from those
recorded; with `--batches` also whether the batch changes any answer. torch and Warp choose their loops once per
process, so the tests start a process for each capability.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pkgutil
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.model_set import ModelSet, open_models
from skelfit.bodies.smpl import SmplModel
from skelfit.config.settings import FitConfig, load_pipeline
from skelfit.conversion.run_plan import ALGORITHM_VERSION
from skelfit.fitting.backends import kernels
from skelfit.fitting.backends.backend import cpu_lanes, start_warp
from skelfit.fitting.backends.kernels import kernels_for
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.mesh_labels import MeshLabelFitter

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).with_name("golden")
PEOPLE, ANSWERS, KINDS = FOLDER / "people.npz", FOLDER / "answers.npz", FOLDER / "kinds.json"
LABELS = ("pose", "betas", "transl")
RECORDED = ("poses", "betas", "trans", "pve_mm", "objective")


@dataclass(frozen=True)
class Capability:
    """What a processor can do, by the names that torch and MKL use."""

    torch: str  # its loops; they decide the number of lanes of the kernels
    mkl: str  # for the decompositions that tables are made by
    needed: frozenset[str] = frozenset()  # of /proc/cpuinfo

    @property
    def here(self) -> bool:
        """Whether this processor can."""
        return platform.machine() == "x86_64" and self.needed <= set(processor().get("flags", "").split())


CAPABILITIES = {  # by the target of the kernels
    "x86-64-v2": Capability("default", "SSE4_2"),
    "x86-64-v3": Capability("avx2", "AVX2", frozenset({"avx2", "bmi2", "fma"})),
    "x86-64-v4": Capability(
        "avx512", "AVX512", frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
    ),
}
HOW = (
    "the fit gives other results than those recorded. If that is intended, raise ALGORITHM_VERSION in "
    "skelfit/conversion/run_plan.py, so that shards of both are never mixed, and run: "
    "python tests/fitting/golden_fit.py --record"
)


def make_people() -> dict[str, Tensor]:
    """The people, made once: everyday ones, extreme ones, and extreme ones that need a retry."""
    made = {}
    for gender, rows in (("neutral", (12, [1631, 2046, 3028, 3059])), ("male", (15, [3493]))):
        count, late = rows
        everyday, extreme = (make_labels(max(late) + 1, gender)[kind] for kind in ("everyday", "extreme"))
        for name in LABELS:
            one, other = getattr(everyday, name), getattr(extreme, name)
            made[f"{gender}/{name}"] = torch.cat((one[:16], other[:count], other[late]))
    return made


def fit_config() -> FitConfig:
    return load_pipeline(ROOT / "pipelines" / "hmr-skel.yaml").fit


def hurried(config: FitConfig) -> FitConfig:
    """So few steps that many people need a restart."""
    last = replace(config.stages[-1], steps=2, extra_refreshes=0, late_refreshes=0)
    return replace(config, stages=(*config.stages[:-1], last), retries=1)


def read_people() -> dict[str, Tensor]:
    with np.load(PEOPLE) as file:
        return {name: torch.tensor(file[name]) for name in file.files}


def fit_all(models: ModelSet, people: Mapping[str, Tensor], fitter: Fitter) -> dict[str, np.ndarray]:
    """Fields of the fitted people, by set and name."""
    answers: dict[str, np.ndarray] = {}
    male = [people[f"male/{name}"] for name in LABELS]
    neutral = [people[f"neutral/{name}"] for name in LABELS]
    results = {
        "neutral": fitter.fit("neutral", *neutral),
        "male": fitter.fit("male", *male),
        "hurried": Fitter(models, hurried(fit_config())).fit("male", *(x[16:] for x in male)),
        "mesh": MeshLabelFitter(models, fit_config()).fit(
            "male", SmplModel(models.smpl_of("male")).vertices(*(x[14:18] for x in male))
        ),
    }
    for kind, result in results.items():
        answers |= {f"{kind}/{name}": getattr(result, name).numpy() for name in RECORDED}
    return answers


def digest(answers: Mapping[str, np.ndarray]) -> str:
    content = b"".join(
        name.encode() + np.ascontiguousarray(answers[name]).tobytes() for name in sorted(answers)
    )
    return hashlib.sha256(content).hexdigest()


def processor() -> dict[str, str]:
    """Linux' description of the first core."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def kind(target: str) -> str:
    """All that the last bits of an answer may depend on."""
    core = processor()
    model = "/".join(core.get(key, "?") for key in ("vendor_id", "cpu family", "model"))
    versions = f"torch {torch.__version__}, warp {wp.config.version}"
    return f"{platform.machine()} {model}, {target}, {cpu_lanes()} lanes, {versions}"


def deviations(
    answers: Mapping[str, np.ndarray], recorded: Mapping[str, np.ndarray]
) -> dict[str, list[float]]:
    """The largest difference of each person's numbers, by set and field."""
    return {
        name: np.abs(answers[name].astype(float) - recorded[name])
        .reshape(len(answers[name]), -1)
        .max(1)
        .tolist()
        for name in recorded
    }


def constants() -> dict[str, str]:
    """Module constants of fit and bodies: numbers that steer the fit. Some affect only rare people."""
    modules = [
        importlib.import_module(info.name)
        for part in ("fitting", "bodies")
        for info in pkgutil.walk_packages([str(ROOT / "skelfit" / part)], f"skelfit.{part}.")
        if not info.ispkg and ".kernels." not in info.name
    ]
    of_lanes = kernels_for(16)
    modules += [getattr(of_lanes, info.name) for info in pkgutil.iter_modules(kernels.__path__)]
    return {
        f"{module.__name__.replace('.of_16', '')}.{name}": repr(value)
        for module in modules
        for name, value in vars(module).items()
        if name.lstrip("_").isupper() and name != "L" and _numeric(value)
    }


def _numeric(value: object) -> bool:
    return (
        all(map(_numeric, value))
        if isinstance(value, tuple)
        else isinstance(value, (int, float)) and not isinstance(value, bool)
    )


def batch_differences(people: Mapping[str, Tensor], fitter: Fitter) -> list[str]:
    """Fields that change with the size of the batch, the order of the people or the number of threads."""
    differences = []
    threads = torch.get_num_threads()
    for gender, batches in (("neutral", (1, 7, 512)), ("male", (7, 20, 512))):
        labels = [people[f"{gender}/{name}"] for name in LABELS]
        base = fitter.fit(gender, *labels)
        for batch in batches:
            torch.set_num_threads(3 - min(threads, 2))
            fitter.config = replace(fit_config(), batch=batch)  # its tables are those of any batch
            other = fitter.fit(gender, *(x.flip(0) for x in labels))
            torch.set_num_threads(threads)
            for field in fields(FitResult):
                one, two = getattr(base, field.name), getattr(other, field.name).flip(0)
                if rows := int((one != two).reshape(len(one), -1).any(1).sum()):
                    differences.append(f"{gender}, batches of {batch}: {field.name} of {rows}")
    return differences


def environment(target: str) -> dict[str, str]:
    """The environment of a process that computes as a processor of this target does."""
    capability = CAPABILITIES[target]
    return {
        **os.environ,
        "ATEN_CPU_CAPABILITY": capability.torch,
        "MKL_ENABLE_INSTRUCTIONS": capability.mkl,
        "OMP_NUM_THREADS": "1",
    }


def run(target: str, *arguments: str) -> dict[str, Any]:
    """What a process for this target prints."""
    command = [sys.executable, str(Path(__file__)), "--check", target, *arguments]
    done = subprocess.run(
        command, env=environment(target), cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check(target: str, batches: bool) -> dict[str, Any]:
    """The results of this process: its kind, digest, deviations and differences between batches."""
    start_warp(target)
    models, people = open_models(), read_people()
    fitter = Fitter(models, replace(fit_config(), batch=64))
    fitter.backend.compile()
    answers = fit_all(models, people, fitter)
    with np.load(ANSWERS) as recorded:
        off = deviations(answers, {name: recorded[name] for name in recorded.files})
    return {
        "kind": kind(target),
        "digest": digest(answers),
        "deviations": off,
        "batches": batch_differences(people, fitter) if batches else None,
    }


# How far the median person of a set may be from the recorded answer on a processor without recorded answers:
# rad, betas, m, mm, m^2. Fits that stop short of the floor of their valley differ more.
BOUNDS = {"poses": 1e-5, "betas": 1e-5, "trans": 1e-6, "pve_mm": 1e-4, "objective": 1e-9}
LOOSE = {"hurried": 10.0, "mesh": 30.0}


def atypical(off: Mapping[str, list[float]]) -> list[str]:
    """The fields by which the median person differs more than processors do.

    The last bit of a sum can change shoulders near an Euler pole and people with two minima, but not most people.
    """
    reasons = []
    for name, values in off.items():
        people, field = name.split("/")
        bound = BOUNDS[field] * LOOSE.get(people, 1.0)
        if not np.median(values) <= bound:
            reasons.append(f"{name}: {np.median(values):.1e}, expected {bound:.0e} at most")
    return reasons


def record() -> None:
    """Record this processor's answers; refuses to replace those of a known kind without a new version."""
    known = json.loads(KINDS.read_text()) if KINDS.exists() else {"algorithm": None, "kinds": {}}
    fresh = known["algorithm"] != ALGORITHM_VERSION
    if not PEOPLE.exists():
        FOLDER.mkdir(exist_ok=True)
        np.savez(PEOPLE, **{name: x.numpy() for name, x in make_people().items()})
    if fresh:
        models = open_models()
        np.savez(ANSWERS, **fit_all(models, read_people(), Fitter(models, fit_config())))
    kinds = {} if fresh else known["kinds"]
    for target in (target for target, capability in CAPABILITIES.items() if capability.here):
        result = run(target)
        other = kinds.get(result["kind"], result["digest"]) != result["digest"]
        if other or (reasons := atypical(result["deviations"])):
            raise SystemExit(f"{result['kind']}: {HOW}\n{'' if other else reasons}")
        kinds[result["kind"]] = result["digest"]
    content = {"algorithm": ALGORITHM_VERSION, "kinds": kinds, "constants": constants()}
    KINDS.write_text(json.dumps(content, indent=2) + "\n")
    print(f"recorded, of algorithm version {ALGORITHM_VERSION}:", *kinds, sep="\n  ")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--record"]:
            record()
        case ["--check", target, *batches]:
            print(json.dumps(check(target, batches == ["--batches"])))
        case _:
            sys.exit(__doc__)
