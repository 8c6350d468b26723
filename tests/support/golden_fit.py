"""Recorded results of the fit for a few dozen people: a change of results is noticed, and its version is raised.

    python tests/support/golden_fit.py --record                    records the results of this processor
    python tests/support/golden_fit.py --constants                 records the constants alone
    python tests/support/golden_fit.py --check TARGET [--batches]  prints the distance of this process from the record

`--record` also computes what older processors would. `--check` compiles the kernels for TARGET; with `--batches` it
also compares people fitted in batches of different sizes. torch and Warp choose their loops once per process, so the
tests start one process for each target.
"""

from __future__ import annotations

import ast
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
from label_tensors import labels_from, map_labels
from numpy.typing import NDArray
from torch import Tensor

from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.model_set import ModelSet, open_models
from skelfit.bodies.smpl import SmplModel
from skelfit.config.fit_settings import FitConfig
from skelfit.config.manifest import Gender
from skelfit.config.pipeline import load_pipeline
from skelfit.conversion.run_plan import ALGORITHM_VERSION
from skelfit.fitting.backends import kernels
from skelfit.fitting.backends.backend import FIT, FREE_BETAS, MESHES, cpu_lanes, start_warp
from skelfit.fitting.backends.kernels import kernels_for
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.mesh_labels import MeshLabelFitter

Array = NDArray[Any]
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "fitting" / "golden"
PEOPLE, ANSWERS, KINDS = FOLDER / "people.npz", FOLDER / "answers.npz", FOLDER / "kinds.json"
LABELS = ("pose", "betas", "transl")
RECORDED = ("poses", "betas", "trans", "pve_mm", "objective")


@dataclass(frozen=True)
class Capability:
    """A class of processors, by the names that torch and MKL have for it."""

    torch: str  # chooses torch's loops, and with them the lanes of the kernels
    mkl: str  # chooses MKL's loops, which decompose matrices for the tables
    needed: frozenset[str] = frozenset()  # flags in /proc/cpuinfo

    @property
    def here(self) -> bool:
        """Whether this processor belongs to the class."""
        return platform.machine() == "x86_64" and self.needed <= set(processor().get("flags", "").split())


CAPABILITIES = {  # by the target of the kernels
    "x86-64-v2": Capability("default", "SSE4_2"),
    "x86-64-v3": Capability("avx2", "AVX2", frozenset({"avx2", "bmi2", "fma"})),
    "x86-64-v4": Capability(
        "avx512", "AVX512", frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
    ),
}
NATIVE = "native"  # code for this very processor: the bits of the newest target that is here
RESULTS_CHANGED = (
    "the fit gives other results than those recorded. If that is intended, raise ALGORITHM_VERSION in "
    "skelfit/conversion/run_plan.py, so that shards of both are never mixed, and run: "
    "python tests/support/golden_fit.py --record"
)


def make_people() -> dict[str, Tensor]:
    """The labels, made once: everyday poses, extreme poses, and extreme poses that need a retry."""
    labels = {}
    extremes: tuple[tuple[Gender, int, list[int]], ...] = (
        ("neutral", 12, [1631, 2046, 3028, 3059]),
        ("male", 15, [3493]),
    )
    for gender, count, late in extremes:
        everyday, extreme = (make_labels(max(late) + 1, gender)[kind] for kind in ("everyday", "extreme"))
        for name in LABELS:
            one, other = getattr(everyday, name), getattr(extreme, name)
            labels[f"{gender}/{name}"] = torch.cat((one[:16], other[:count], other[late]))
    return labels


def fit_config() -> FitConfig:
    return load_pipeline(ROOT / "pipelines" / "hmr-skel.yaml").fit


def hurried(config: FitConfig) -> FitConfig:
    """So few steps that many people need a retry."""
    last = replace(config.stages[-1], steps=2, extra_refreshes=0, late_refreshes=0)
    return replace(config, stages=(*config.stages[:-1], last), retries=1)


def read_people() -> dict[str, Tensor]:
    with np.load(PEOPLE) as file:
        return {name: torch.tensor(file[name]) for name in file.files}


def fit_all(models: ModelSet, people: Mapping[str, Tensor], fitter: Fitter) -> dict[str, Array]:
    """Fields of the fitted people, by "set/field"."""
    arrays: dict[str, Array] = {}
    male, neutral = (
        labels_from(people[f"{gender}/{name}"] for name in LABELS) for gender in ("male", "neutral")
    )
    results = {
        "neutral": fitter.fit("neutral", *neutral),
        "male": fitter.fit("male", *male),
        "hurried": Fitter(models, hurried(fit_config())).fit("male", *map_labels(lambda x: x[16:], male)),
        "mesh": MeshLabelFitter(models, fit_config()).fit(
            "male", SmplModel(models.smpl_of("male")).vertices(*(x[14:18] for x in male))
        ),
    }
    for kind, result in results.items():
        arrays |= {f"{kind}/{name}": getattr(result, name).numpy() for name in RECORDED}
    return arrays


def digest(arrays: Mapping[str, Array]) -> str:
    content = b"".join(
        name.encode() + np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays)
    )
    return hashlib.sha256(content).hexdigest()


def processor() -> dict[str, str]:
    """Linux's description of the first core."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def kind(target: str) -> str:
    """The processor and libraries, on which the last bits of a result may depend."""
    if target == NATIVE:
        target = next((t for t, c in reversed(CAPABILITIES.items()) if c.here), NATIVE)
    core = processor()
    model = "/".join(core.get(key, "?") for key in ("vendor_id", "cpu family", "model"))
    versions = f"torch {torch.__version__}, warp {wp.config.version}"
    return f"{platform.machine()} {model}, {target}, {cpu_lanes()} lanes, {versions}"


def deviations(arrays: Mapping[str, Array], recorded: Mapping[str, Array]) -> dict[str, list[float]]:
    """The largest difference of each person's numbers, by "set/field"."""
    return {
        name: np.abs(arrays[name].astype(float) - x).reshape(len(x), -1).max(1).tolist()
        for name, x in recorded.items()
    }


def constants() -> list[str]:
    """The numbers that steer the fit: "NAME = value" of each module constant that fitting/ or bodies/ defines.

    Some act on so few people that the recorded results do not depend on them. Paths are left out, so that a module
    may move.
    """
    modules = [
        importlib.import_module(info.name)
        for part in ("fitting", "bodies")
        for info in pkgutil.walk_packages([str(ROOT / "skelfit" / part)], f"skelfit.{part}.")
        if not info.ispkg and ".kernels." not in info.name
    ]
    modules += [getattr(kernels_for(16), info.name) for info in pkgutil.iter_modules(kernels.__path__)]
    return sorted(
        f"{name} = {vars(module)[name]!r}"
        for module in modules
        for name in _assigned(Path(str(module.__file__)))
        if name != "L" and _numeric(vars(module).get(name))
    )


def _assigned(path: Path) -> list[str]:
    """The constants that a module assigns; imported ones belong to another module."""
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    targets = [target for x in statements if isinstance(x, ast.Assign) for target in x.targets]
    targets += [x.target for x in statements if isinstance(x, ast.AnnAssign)]
    names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return [name for name in names if name.lstrip("_").isupper()]


def _numeric(value: object) -> bool:
    return (
        all(map(_numeric, value))
        if isinstance(value, tuple)
        else isinstance(value, (int, float)) and not isinstance(value, bool)
    )


def batch_differences(people: Mapping[str, Tensor], fitter: Fitter) -> list[str]:
    """Fields that depend on the size of the batch, the order of people or the number of threads: none are expected."""
    differences = []
    threads = torch.get_num_threads()
    for gender, batches in (("neutral", (1, 7, 512)), ("male", (7, 20, 512))):
        labels = labels_from(people[f"{gender}/{name}"] for name in LABELS)
        base = fitter.fit(gender, *labels)
        for batch in batches:
            torch.set_num_threads(3 - min(threads, 2))
            fitter.config = replace(fit_config(), batch=batch)  # its tables are those of any batch
            other = fitter.fit(gender, *map_labels(lambda x: x.flip(0), labels))
            torch.set_num_threads(threads)
            for field in fields(FitResult):
                one, two = getattr(base, field.name), getattr(other, field.name).flip(0)
                if rows := int((one != two).reshape(len(one), -1).any(1).sum()):
                    differences.append(f"{gender}, batches of {batch}: {field.name} of {rows}")
    return differences


def environment(target: str) -> dict[str, str]:
    """The environment of a process that computes as processors of this target do."""
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    if target == NATIVE:
        return variables
    capability = CAPABILITIES[target]
    return variables | {"ATEN_CPU_CAPABILITY": capability.torch, "MKL_ENABLE_INSTRUCTIONS": capability.mkl}


def run(target: str, *arguments: str) -> dict[str, Any]:
    """The report of a process for this target: that of `check`."""
    command = [sys.executable, str(Path(__file__)), "--check", target, *arguments]
    done = subprocess.run(
        command, env=environment(target), cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check(target: str, batches: bool) -> dict[str, Any]:
    """Compare this process with the record: its kind, digest, deviations and differences between batches."""
    start_warp(target)
    models, people = open_models(), read_people()
    fitter = Fitter(models, replace(fit_config(), batch=64))
    fitter.backend.compile(tuple({*FIT, *FREE_BETAS, *MESHES}))
    arrays = fit_all(models, people, fitter)
    with np.load(ANSWERS) as recorded:
        off = deviations(arrays, {name: recorded[name] for name in recorded.files})
    return {
        "kind": kind(target),
        "digest": digest(arrays),
        "deviations": off,
        "batches": batch_differences(people, fitter) if batches else None,
    }


# How far the median person of a set may be from the record on a processor without a record of its own: rad, betas, m,
# mm, m^2. Fits that stop before their minimum differ more.
BOUNDS = {"poses": 1e-5, "betas": 1e-5, "trans": 1e-6, "pve_mm": 1e-4, "objective": 1e-9}
LOOSE = {"hurried": 10.0, "mesh": 30.0}


def atypical(off: Mapping[str, list[float]]) -> list[str]:
    """The fields in which the median person differs by more than processors do.

    The median, because shoulders near an Euler pole and people with two minima depend on the last bit of a sum.
    """
    reasons = []
    for name, values in off.items():
        people, field = name.split("/")
        bound = BOUNDS[field] * LOOSE.get(people, 1.0)
        if not np.median(values) <= bound:
            reasons.append(f"{name}: {np.median(values):.1e}, expected {bound:.0e} at most")
    return reasons


def save(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


def record() -> None:
    """Record this processor's results; refuses to replace those of a known kind without a new version."""
    known = json.loads(KINDS.read_text()) if KINDS.exists() else {"algorithm": None, "kinds": {}}
    fresh = known["algorithm"] != ALGORITHM_VERSION
    if not PEOPLE.exists():
        FOLDER.mkdir(exist_ok=True)
        save(PEOPLE, {name: x.numpy() for name, x in make_people().items()})
    if fresh:
        models = open_models()
        save(ANSWERS, fit_all(models, read_people(), Fitter(models, fit_config())))
    kinds = {} if fresh else known["kinds"]
    for target in (target for target, capability in CAPABILITIES.items() if capability.here):
        result = run(target)
        other = kinds.get(result["kind"], result["digest"]) != result["digest"]
        if other or (reasons := atypical(result["deviations"])):
            raise SystemExit(f"{result['kind']}: {RESULTS_CHANGED}\n{'' if other else reasons}")
        kinds[result["kind"]] = result["digest"]
    content = {"algorithm": ALGORITHM_VERSION, "kinds": kinds, "constants": constants()}
    KINDS.write_text(json.dumps(content, indent=2) + "\n")
    print(f"recorded, of algorithm version {ALGORITHM_VERSION}:", *kinds, sep="\n  ")


def record_constants() -> None:
    """Record the constants alone, after one was renamed."""
    content = json.loads(KINDS.read_text()) | {"constants": constants()}
    KINDS.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--record"]:
            record()
        case ["--constants"]:
            record_constants()
        case ["--check", target, *options]:
            print(json.dumps(check(target, options == ["--batches"])))
        case _:
            sys.exit(__doc__)
