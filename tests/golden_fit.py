"""What the fit answers for a few dozen people, recorded: a change of results is noticed, and its version raised.

`python tests/golden_fit.py --record` records the answers of this processor, also as older ones would compute them;
`--check` prints as JSON how far the answers of this process are from those recorded, and whether people are fitted
alike in any company. torch chooses its loops once per process, so the tests start one for each capability.
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
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import torch
from torch import Tensor

from skelfit.bench import make_labels
from skelfit.body.models import ModelSet, open_models
from skelfit.body.smpl import SmplModel
from skelfit.config import FitConfig, load_pipeline
from skelfit.fit.fitter import Fitter
from skelfit.fit.mesh_people import MeshPeople
from skelfit.fit.results import FitResult
from skelfit.plan import ALGORITHM_VERSION

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).with_name("golden")
PEOPLE, ANSWERS, KINDS = FOLDER / "people.npz", FOLDER / "answers.npz", FOLDER / "kinds.json"
LABELS = ("pose", "betas", "transl")
RECORDED = ("poses", "betas", "trans", "pve_mm", "objective")
# torch's loops, and the instructions that MKL may use beside them.
CAPABILITIES = {"default": "SSE4_2", "avx2": "AVX2", "avx512": "AVX512"}
HOW = (
    "the fit gives other results than those recorded. If that is meant, raise ALGORITHM_VERSION in skelfit/plan.py, "
    "so that shards of both are never mixed, and run: python tests/golden_fit.py --record"
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


def kind() -> str:
    """What the last bits of an answer may depend on."""
    processor = f"{platform.machine()} {llvmlite.binding.get_host_cpu_name()}"
    loops = torch.backends.cpu.get_cpu_capability()
    return f"{processor}, loops {loops}, torch {torch.__version__}, numba {numba.__version__}"


def deviations(found: Mapping[str, np.ndarray], recorded: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """The largest difference of each person's numbers, by set and field."""
    return {
        name: np.abs(found[name].astype(float) - recorded[name]).reshape(len(found[name]), -1).max(1).tolist()
        for name in recorded
    }


def constants() -> dict[str, str]:
    """The numbers that steer the fit: module constants of fit and body. Rare people alone may answer to one of them."""
    numbers = {}
    for part in ("fit", "body"):
        for info in pkgutil.iter_modules([str(ROOT / "skelfit" / part)], f"skelfit.{part}."):
            if not info.ispkg:
                for name, value in vars(importlib.import_module(info.name)).items():
                    if name.lstrip("_").isupper() and _numeric(value):
                        numbers[f"{info.name}.{name}"] = repr(value)
    return numbers


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
    for gender, batches in (("neutral", (1, 7, 512)), ("male", (7, 512))):
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


def environment(capability: str) -> dict[str, str]:
    """The environment of a process that computes as a processor of this capability does."""
    instructions = CAPABILITIES[capability]
    return {
        **os.environ,
        "ATEN_CPU_CAPABILITY": capability,
        "MKL_ENABLE_INSTRUCTIONS": instructions,
        "OMP_NUM_THREADS": "1",
    }


def run(capability: str, *arguments: str) -> dict[str, Any]:
    """What a process of this capability prints."""
    command = [sys.executable, str(Path(__file__)), *arguments]
    done = subprocess.run(
        command, env=environment(capability), cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check(company: bool) -> dict[str, Any]:
    """What this process computes: its kind, digest, deviations and differences by company."""
    models, people = open_models(), read_people()
    fitter = Fitter(models, replace(fit_config(), batch=64))
    found = answers(models, people, fitter)
    with np.load(ANSWERS) as recorded:
        off = deviations(found, {name: recorded[name] for name in recorded.files})
    return {
        "kind": kind(),
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
    for capability in CAPABILITIES:
        result = run(capability, "--check")
        other = kinds.get(result["kind"], result["digest"]) != result["digest"]
        if other or (reasons := atypical(result["deviations"])):
            raise SystemExit(f"{result['kind']}: {HOW}\n{'' if other else reasons}")
        kinds[result["kind"]] = result["digest"]
    content = {"algorithm": ALGORITHM_VERSION, "kinds": kinds, "constants": constants()}
    KINDS.write_text(json.dumps(content, indent=2) + "\n")
    print(f"recorded, of algorithm version {ALGORITHM_VERSION}:", *kinds, sep="\n  ")


if __name__ == "__main__":
    if sys.argv[1:] == ["--record"]:
        record()
    else:
        print(json.dumps(check("--company" in sys.argv)))
