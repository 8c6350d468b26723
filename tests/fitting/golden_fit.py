"""What the fit answers for a few dozen people, recorded: a change of results is noticed, and its version raised.

`python tests/fitting/golden_fit.py --record` records the answers of this processor, also as older ones would
compute them. `--check TARGET` prints as JSON how far the answers of this process are from those recorded, its kernels
compiled for
that target; with `--company` also whether people are fitted alike in any company. torch chooses its loops once per
process, and so does Warp, so the tests start one for each capability.
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
from skelfit.config.fit_settings import FitConfig
from skelfit.config.pipeline import load_pipeline
from skelfit.conversion.run_plan import ALGORITHM_VERSION
from skelfit.fitting.backends import kernels
from skelfit.fitting.backends.backend import cpu_lanes, start_warp
from skelfit.fitting.backends.kernels import kernels_for
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.mesh_labels import MeshPeople

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).with_name("golden")
PEOPLE, ANSWERS, KINDS = FOLDER / "people.npz", FOLDER / "answers.npz", FOLDER / "kinds.json"
LABELS = ("pose", "betas", "transl")
RECORDED = ("poses", "betas", "trans", "pve_mm", "objective")


@dataclass(frozen=True)
class Capability:
    """What a processor can do, as those who ask call it."""

    torch: str  # its loops; they say how many lanes the kernels have
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
    "the fit gives other results than those recorded. If that is meant, raise ALGORITHM_VERSION in "
    "skelfit/conversion/run_plan.py, so that shards of both are never mixed, and run: "
    "python tests/fitting/golden_fit.py --record"
)


def make_people() -> dict[str, Tensor]:
    """The people, made once: everyday and extreme ones, and extreme ones who need a retry."""
    made = {}
    for gender, rows in (("neutral", (12, [1631, 2046, 3028, 3059])), ("male", (15, [3493]))):
        few, late = rows
        everyday, extreme = (make_labels(max(late) + 1, gender)[kind] for kind in ("everyday", "extreme"))
        for name in LABELS:
            one, other = getattr(everyday, name), getattr(extreme, name)
            made[f"{gender}/{name}"] = torch.cat((one[:16], other[:few], other[late]))
    return made


def fit_config() -> FitConfig:
    return load_pipeline(ROOT / "pipelines" / "hmr-skel.yaml").fit


def hurried(config: FitConfig) -> FitConfig:
    """So few steps that many need a second chance."""
    last = replace(config.stages[-1], steps=2, extra_refreshes=0, late_refreshes=0)
    return replace(config, stages=(*config.stages[:-1], last), retries=1)


def read_people() -> dict[str, Tensor]:
    with np.load(PEOPLE) as file:
        return {name: torch.tensor(file[name]) for name in file.files}


def answers(models: ModelSet, people: Mapping[str, Tensor], fitter: Fitter) -> dict[str, np.ndarray]:
    """Fields of the fitted people, by set and name."""
    found = {}
    male = [people[f"male/{name}"] for name in LABELS]
    neutral = [people[f"neutral/{name}"] for name in LABELS]
    results = {
        "neutral": fitter.fit("neutral", *neutral),
        "male": fitter.fit("male", *male),
        "hurried": Fitter(models, hurried(fit_config())).fit("male", *(x[16:] for x in male)),
        "mesh": MeshPeople(models, fit_config()).fit(
            "male", SmplModel(models.smpl_of("male")).vertices(*(x[14:18] for x in male))
        ),
    }
    for kind, result in results.items():
        found |= {f"{kind}/{name}": getattr(result, name).numpy() for name in RECORDED}
    return found


def digest(found: Mapping[str, np.ndarray]) -> str:
    content = b"".join(name.encode() + np.ascontiguousarray(found[name]).tobytes() for name in sorted(found))
    return hashlib.sha256(content).hexdigest()


def processor() -> dict[str, str]:
    """What Linux says of the first core."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def kind(target: str) -> str:
    """What the last bits of an answer may depend on."""
    core = processor()
    model = "/".join(core.get(key, "?") for key in ("vendor_id", "cpu family", "model"))
    versions = f"torch {torch.__version__}, warp {wp.config.version}"
    return f"{platform.machine()} {model}, {target}, {cpu_lanes()} lanes, {versions}"


def deviations(found: Mapping[str, np.ndarray], recorded: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """The largest difference of each person's numbers, by set and field."""
    return {
        name: np.abs(found[name].astype(float) - recorded[name]).reshape(len(found[name]), -1).max(1).tolist()
        for name in recorded
    }


def constants() -> dict[str, str]:
    """The numbers that steer the fit: module constants of fit and body. Rare people alone may answer to one of them."""
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


def company_differences(people: Mapping[str, Tensor], fitter: Fitter) -> list[str]:
    """Fields of people who are fitted otherwise alone, among few, among many, in another order, by other threads."""
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


def check(target: str, company: bool) -> dict[str, Any]:
    """What this process computes: its kind, digest, deviations and differences by company."""
    start_warp(target)
    models, people = open_models(), read_people()
    fitter = Fitter(models, replace(fit_config(), batch=64))
    fitter.backend.compile()
    found = answers(models, people, fitter)
    with np.load(ANSWERS) as recorded:
        off = deviations(found, {name: recorded[name] for name in recorded.files})
    return {
        "kind": kind(target),
        "digest": digest(found),
        "deviations": off,
        "company": company_differences(people, fitter) if company else None,
    }


# How far the typical person of a set may be from the recorded answer on a processor that none was recorded on:
# rad, betas, m, mm, m^2. Fits that stop short of the floor of their valley differ more.
BOUNDS = {"poses": 1e-5, "betas": 1e-5, "trans": 1e-6, "pve_mm": 1e-4, "objective": 1e-9}
LOOSE = {"hurried": 10.0, "mesh": 30.0}


def atypical(off: Mapping[str, list[float]]) -> list[str]:
    """The fields of which the median person differs by more than processors do.

    Shoulders near an Euler pole and people with two minima answer to the last bit of a sum; most people do not.
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
        np.savez(ANSWERS, **answers(models, read_people(), Fitter(models, fit_config())))
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
        case ["--check", target, *company]:
            print(json.dumps(check(target, company == ["--company"])))
        case _:
            sys.exit(__doc__)
