"""What `import skelfit` gives, listed, so that a change to it is a decision; and the documents' scripts, run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import programs
import pytest
from job_fakes import write_labels

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

# Each public name: parameters of a function or class, in their order and with their defaults; else its type.
_FIT = "gender='neutral', models=None, device='auto', pipeline='hmr-skel', skel_gender=None"  # how to fit
_READING = (
    "source=None, scale_unit=None, angle_unit=None, rot6d=None, length_unit=None, vertex_map=None, "
    "coordinates=None, labels_up=None, up=None"
)
_IMAGES = "images=None, image_mode=None, crop_size=None, crop_margin=None"
_WORKERS = "workers=None, scheduler=None, tls_ca=None, tls_cert=None, tls_key=None, max_wait=None"
API = {
    "DOF_NAMES": "tuple",
    "FittedPeople": (
        "(poses, betas, trans, pve_mm, max_vertex_mm, status, reason, skel_gender, models, notes=())"
    ),
    "LabelledPerson": "(key, status, labels, meta, image)",
    "RefinedPeople": "(poses, betas, trans, reprojection_px, cam_int, objective, status)",
    "ShardPeople": "(shards, kept=None, images=True)",
    "SkelModel": "(asset, device='cpu', dtype=torch.float32)",
    "SkelfitError": "exception",
    "SmplModel": "(asset, device='cpu', dtype=torch.float32, num_betas=10)",
    "SmplPeople": "(pose, betas, transl, pve_mm, max_vertex_mm, gender, status, reason)",
    "__version__": "str",
    "convert": (
        f"(out, *, manifest=None, labels=None, {_READING}, pipeline='hmr-skel', models=None, {_IMAGES}, "
        "skel_gender=None, independent_frames=False, filter=(), no_filter=(), limit=None, shard_size=None, "
        f"device='auto', fit_batch=None, writers=None, {_WORKERS}, dashboard=False, performance_report=None, "
        "rank=None, world=None, overwrite=False, extend=False, dry_run=False, people_per_second=None, progress=False)"
    ),
    "evaluate": (
        "(predictions, *, protocol, labels, images=None, models=None, intrinsics_from=None, batch_size=None, "
        "pipeline=None, skel_gender=None, device='auto', limit=None, json=None, html=None, rows=None, progress=False)"
    ),
    "export": (
        "(folder, *, format, out, models=None, key=(), limit=None, keep=None, frame_rate=None, overwrite=False, "
        "progress=False)"
    ),
    "fit": f"(pose, betas, transl=None, *, {_FIT}, frames_per_second=None)",
    "fit_mesh": f"(vertices, *, {_FIT})",
    "load_models": "(folder=None)",
    "load_shards": "(shards, *, keep=None, images=True)",
    "publish": (
        "(folder, to, *, private=True, revision=None, license=None, title=None, keep=None, dry_run=False, out=None, "
        "overwrite=False, workers=None, progress=False)"
    ),
    "refine": (
        "(poses, betas, trans, keypoints2d, cam_int, *, image_size=None, gender='male', settings=None, models=None,"
        " device='auto', frames_per_second=None)"
    ),
    "refine_shards": (
        f"(folder, out, *, settings=None, models=None, device='auto', fit_batch=None, writers=None, {_WORKERS}, "
        "dashboard=False, performance_report=None, rank=None, world=None, overwrite=False, progress=False)"
    ),
    "to_smpl": "(poses, betas, trans=None, *, gender, models=None, device='auto')",
    "verify": (
        "(folders, *, models=None, json=None, html=None, max_pve=None, sample=None, all=False, keep=None, gate=(), "
        f"against=None, picture=None, ground=None, {_WORKERS}, progress=False)"
    ),
}
# What a FittedPeople has beside its fields.
OF_PEOPLE = {
    "angle": "(self, name, *, degrees=False)",
    "angles": "property",
    "bones": "(self)",
    "joints": "(self)",
    "plot": "(self, limit=12, up=None)",
    "to_numpy": "(self)",
    "usable": "property",
    "vertices": "(self)",
}
# Looks at the names in a process of its own, where nothing was imported before.
LOOK = """
import inspect, json, sys
import skelfit
heavy = sorted({"torch", "warp", "numpy", "scipy", "matplotlib", "dask"} & {name.split(".")[0] for name in sys.modules})

def signature(value):
    if isinstance(value, property):
        return "property"
    if isinstance(value, type) and issubclass(value, Exception):
        return "exception"
    if not callable(value):
        return type(value).__name__
    plain = inspect.signature(value)
    bare = [p.replace(annotation=p.empty) for p in plain.parameters.values()]
    return str(plain.replace(parameters=bare, return_annotation=plain.empty))

listed = dir(skelfit)
names = {name: signature(getattr(skelfit, name)) for name in skelfit.__all__}
again = {name: getattr(skelfit, name) is getattr(skelfit, name) for name in skelfit.__all__}
people = {name: signature(value) for name, value in vars(skelfit.FittedPeople).items() if name[0] != "_"
          and name not in skelfit.FittedPeople.__dataclass_fields__}
public = [getattr(skelfit, name) for name in skelfit.__all__]
undocumented = [str(value) for value in public if callable(value) and not value.__doc__]
print(json.dumps([heavy, listed, names, again, people, undocumented]))
"""


def run(code: str, folder: Path, **variables: str) -> str:
    """What a program of a user prints, in a folder without models."""
    environment = {k: v for k, v in os.environ.items() if k != "SKELFIT_MODELS"}
    environment |= {"PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_forked(code: str, folder: Path) -> str:
    """The same, from a process that has imported what takes long."""
    exit_code, said, errors = programs.run("-c", code, folder=folder, environment={"SKELFIT_MODELS": None})
    assert exit_code == 0, errors
    return said


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    found: list[object] = json.loads(run(LOOK, tmp_path_factory.mktemp("empty")))
    return found


def test_the_names_and_their_signatures(looked: list[object]) -> None:
    _, listed, names, again, people, undocumented = looked
    assert names == API
    assert people == OF_PEOPLE
    assert isinstance(listed, list) and set(API) <= set(listed)
    assert isinstance(again, dict) and all(again.values())
    assert undocumented == []


def test_an_import_brings_nothing_heavy(looked: list[object]) -> None:
    assert looked[0] == []


def test_a_name_that_is_not_there(tmp_path: Path) -> None:
    code = "import skelfit\ntry:\n    skelfit.fti\nexcept AttributeError as error:\n    print(error)"
    assert run(code, tmp_path) == "module 'skelfit' has no attribute 'fti'\n"


def blocks(path: Path, heading: str) -> list[str]:
    """The Python blocks of a section of a document."""
    text = path.read_text()
    start = text.index(f"# {heading}\n")
    after = re.search(r"^##? ", text[start + 3 :], re.MULTILINE)
    return _BLOCK.findall(text[start : start + 3 + after.start()] if after else text[start:])


def test_the_quickstart(tmp_path: Path) -> None:
    """A stranger's script of ten lines or so."""
    (block,) = blocks(ROOT / "docs" / "quickstart.md", "Quickstart")
    assert len([line for line in block.splitlines() if line.strip()]) <= 11
    said = run(block, tmp_path).splitlines()
    assert re.match(r"<FittedPeople \(10,\): 10 ok, PVE mean \d+\.\d\d mm; models: open body", said[0])
    text = "\n".join(said[1:])
    for name in ("hip_flexion_l", "knee_angle_l", "ankle_angle_l"):
        numbers = re.search(rf"^{name} \[([^]]*)\]", text, re.MULTILINE)
        assert numbers is not None and len(numbers[1].split()) == 10
        degrees = [abs(float(number)) for number in numbers[1].split()]
        assert 3 < max(degrees) < 120
    picture = (tmp_path / "people.png").read_bytes()
    assert picture[:4] == b"\x89PNG" and len(picture) > 50_000


def test_the_way_back_of_the_quickstart(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "docs" / "quickstart.md", "Back to SMPL")
    said = run_forked(block, tmp_path)
    assert said.startswith("['ok' 'ok' 'ok'] [") and said.endswith("(3, 23, 3) (3, 3) (3, 3)\n")


def test_a_dataset_by_the_quickstart(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "docs" / "quickstart.md", "Datasets")
    write_labels(tmp_path / "people.npz", 4)
    statuses, verdict, *people = run_forked(block, tmp_path).splitlines()
    assert statuses.startswith("{'bad_input': 1, 'ok': 3} {'mean': ") and verdict == "good"
    assert len(people) == 3 and all(line.endswith("(44, 4)") for line in people)
    assert (tmp_path / "mine-skel.npz").exists()


def test_the_readme(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "README.md", "From Python")
    said = run_forked(block, tmp_path)
    assert said.count("'ok'") == 10 and said.rstrip().endswith("(10, 6890, 3)")
