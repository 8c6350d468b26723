"""The built package, away from the repository: what it holds, and that it works in an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from compile_lock import WARM_UP

from skelfit.bodies.model_set import ModelSet
from skelfit.labels.demo_people import write_demo

ROOT = Path(__file__).parents[1]
BUILT = ("skelfit", "pipelines", "manifests", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
PEOPLE = 3


class Built(NamedTuple):
    """What a checkout is built into."""

    sdist: Path
    wheel: Path  # of the checkout
    wheel_of_sdist: Path


def call(*command: object, cwd: Path, **variables: str) -> str:
    """What a program prints; it knows nothing of this checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "SKELFIT_"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**environment, **variables},
        text=True,
        capture_output=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built from a copy, since setuptools writes beside its sources; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "checkout"
    source.mkdir()
    for name in BUILT:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, source / name)
    hooks = "from setuptools import build_meta; print(build_meta.build_sdist({!r}))"
    call(sys.executable, "-c", hooks.format(str(folder)), cwd=source)
    (sdist,) = folder.glob("*.tar.gz")
    wheels: list[Path] = []
    for name, what in (("wheel", source), ("wheel-of-sdist", sdist)):
        offline = ("--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", folder / name)
        call(sys.executable, "-m", "pip", "wheel", "--quiet", *offline, what, cwd=folder)
        wheels += (folder / name).glob("*.whl")
    return Built(sdist, *wheels)


@pytest.fixture(scope="module")
def programs(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel, whose dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    call(
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", built.wheel,
        cwd=folder,
    )  # fmt: skip
    installed = next(folder.glob("lib/python*/site-packages"))
    # A folder of a .pth file is searched, but its own .pth files, this checkout's among them, are not read.
    (installed / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # Compiled code is kept under its meaning, not its place, so that of this checkout will do.
    exec(WARM_UP)  # waits where another process of these tests compiles
    return python.parent


def contents(built: Built) -> dict[str, dict[str, bytes]]:
    """The files of skelfit in each form, by their paths."""
    forms: dict[str, dict[str, bytes]] = {}
    with tarfile.open(built.sdist) as tar:
        files = [(m, m.name.partition("/")[2]) for m in tar.getmembers() if m.isfile() or m.issym()]
        assert not any(member.issym() or member.islnk() for member, _ in files)
        forms["sdist"] = {name: tar.extractfile(m).read() for m, name in files}  # type: ignore[union-attr]
    for form, path in (("wheel", built.wheel), ("wheel of the sdist", built.wheel_of_sdist)):
        with zipfile.ZipFile(path) as archive:
            forms[form] = {name: archive.read(name) for name in archive.namelist()}
    return {
        form: {name: data for name, data in files.items() if name.startswith("skelfit/")}
        for form, files in forms.items()
    }


def test_all_forms_hold_the_files_of_the_repository(built: Built) -> None:
    """Byte by byte; so the package's manifests and pipelines are those at the top of the repository."""
    expected = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in (ROOT / "skelfit").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for folder in ("manifests", "pipelines"):
        assert (ROOT / "skelfit" / "resources" / folder).is_symlink(), "one copy: in the package it is a link"
        files = {
            f"skelfit/resources/{folder}/{p.name}": p.read_bytes() for p in (ROOT / folder).glob("*.yaml")
        }
        assert len(files) > 4
        expected |= files
    for form, files in contents(built).items():
        assert sorted(files) == sorted(expected), form
        assert [name for name, data in files.items() if data != expected[name]] == [], form


def test_the_header_of_the_kernels_is_shipped(built: Built) -> None:
    """No module imports it, but without it nothing can be compiled."""
    for form, files in contents(built).items():
        assert "skelfit/fitting/backends/kernels/lanes.h" in files, form


def metadata(built: Built) -> Message:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_the_metadata(built: Built) -> None:
    said = metadata(built)
    assert (said["Name"], said["License-Expression"], said["License-File"]) == (
        "skelfit",
        "Apache-2.0",
        "LICENSE",
    )
    assert said["Requires-Python"] == ">=3.10"
    required = said.get_all("Requires-Dist") or []
    assert [line for line in required if line.startswith("torch")] == ["torch>=2.6"]
    pinned = [line for line in required if "==" in line.partition(";")[0] and "extra ==" not in line]
    assert not pinned, "the package pins nothing"
    versions = [c.rpartition(" :: ")[2] for c in said.get_all("Classifier") or [] if "Python :: 3." in c]
    assert versions == ["3.10", "3.11", "3.12", "3.13"] and "Typing :: Typed" in (
        said.get_all("Classifier") or []
    )
    pinned = [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    ]
    pins = [line.partition("==")[0] for line in pinned]
    assert pins == ["torch", "mkdocs", "mkdocs-material", "mkdocstrings", "mkdocstrings-python"]
    assert "--constraint constraints.txt" in (ROOT / "Makefile").read_text()


# Several commands in one process of the installed package: each imports torch, which takes seconds.
IN_TURN = """
import json, sys
import skelfit
from click.testing import CliRunner
from skelfit.cli import main
print(skelfit.__file__)
for words in sys.argv[1:]:
    result = CliRunner().invoke(main, words.split())
    print(json.dumps([result.exit_code, result.stdout, result.stderr]))
"""
# What stops each is that there are no label files, shards or folders, not that what is shipped was not found.
STOPPED = {
    "convert --manifest coco --out a": "data/coco/coco-release.npz: expected the label file",
    "convert --labels gone.npz --pipeline precise --out b": "gone.npz: expected",
    "train train-tiny --shards gone --out c": "gone: expected finished shards",
    "bench --json gone/x.json": "gone/x.json: cannot be written",
}


# The folders of the compiled kernels that there are, of those that this package would load.
COMPILED = """
import warp as wp
from pathlib import Path
from skelfit.fitting.backends.backend import FIT, _marker, kernel_modules, make_backend
assert _marker(make_backend(), FIT).exists()
for module in kernel_modules(make_backend().lanes):
    print(Path(wp.config.kernel_cache_dir, module.get_module_identifier(1)).is_dir(), module.name)
"""


def test_what_this_checkout_compiled_will_do(programs: Path, tmp_path: Path) -> None:
    """The same kernels in another place are the same modules: an installed package compiles nothing again."""
    lines = call(programs / "python", "-c", COMPILED, cwd=tmp_path).splitlines()
    assert len(lines) >= 5 and [line for line in lines if not line.startswith("True ")] == []


def test_an_empty_folder_will_do(programs: Path, tmp_path: Path, models: ModelSet) -> None:
    """From labels to shards, checked and exported, by the installed package and what it ships."""
    here = tmp_path / "empty"
    here.mkdir()
    write_demo(tmp_path / "labels", PEOPLE, seed=5, images=False, models=models)
    (tmp_path / "labels" / "demo-release.npz").rename(here / "people.npz")
    words = ("convert", "--labels", "people.npz", "--out", "shards", "--workers", 0)
    assert f"{PEOPLE} rows in, {PEOPLE} people out" in call(programs / "skelfit", *words, cwd=here)
    summary = json.loads((here / "shards" / "summary.json").read_text())
    assert summary["identity"]["pipeline"]["name"] == "hmr-skel" and summary["pve_mm"]["mean"] < 25

    good = (
        "verify shards --workers 0 --json report.json",
        "export shards --format skel-cf --out people-skel.npz",
        "predict --help",
    )
    file, *lines = call(programs / "python", "-c", IN_TURN, *good, *STOPPED, cwd=here).splitlines()
    assert Path(file).is_relative_to(programs.parent), "this is the checkout"
    results = [json.loads(line) for line in lines]
    for words_, (code, _, stderr) in zip(good, results, strict=False):
        assert code == 0, f"{words_}: {stderr}"
    assert json.loads((here / "report.json").read_text())["verdict"] == "good"
    with np.load(here / "people-skel.npz") as exported:
        assert len(exported["imgname"]) == PEOPLE
    assert "IMAGE..." in results[2][1]
    for expected, (code, _, stderr) in zip(STOPPED.values(), results[len(good) :], strict=True):
        assert code == 2 and stderr.splitlines()[-1].startswith(f"Error: {expected}"), stderr


def test_types_are_shipped(programs: Path, tmp_path: Path) -> None:
    """A type checker looks into an installed package only where py.typed says that it may."""
    pytest.importorskip("mypy")
    # All that the face names would take a minute to check.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\n[mypy-skelfit.*]\nfollow_imports = skip\n[mypy-skelfit.errors]\nfollow_imports = normal\n"
    )
    (tmp_path / "user.py").write_text(
        "from skelfit.errors import InputError\nreveal_type(InputError('a', None, 'b', 'c').key)\n"
    )
    options = (
        "--python-executable",
        programs / "python",
        "--cache-dir",
        tmp_path / "cache",
        "--config-file",
        tmp_path / "mypy.ini",
        "--no-error-summary",
    )
    said = call(sys.executable, "-m", "mypy", *options, "user.py", cwd=tmp_path)
    assert 'Revealed type is "str | None"' in said.replace("builtins.", "").replace(
        "Union[str, None]", "str | None"
    )


def test_an_editable_installation_finds_the_same_files(tmp_path: Path) -> None:
    """As `make` installs it: the names mean the files at the top of the checkout."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "skelfit" / "resources").mkdir(parents=True)
    for name in BUILT[1:]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, checkout / name)
    for path in (ROOT / "skelfit" / "resources").iterdir():
        if path.is_symlink():
            (checkout / "skelfit" / "resources" / path.name).symlink_to(os.readlink(path))
    for name in ("__init__.py", "errors.py", "resources/__init__.py", "resources/catalog.py"):
        shutil.copy2(ROOT / "skelfit" / name, checkout / "skelfit" / name)
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    offline = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    call(sys.executable, "-m", "pip", "--python", python, "install", *offline, "--editable", checkout, cwd=tmp_path,
         PYTHONPATH=sysconfig.get_path("purelib"))  # fmt: skip
    (checkout / "manifests" / "mine.yaml").write_text("name: mine\nlabels: [{path: x}]\n")
    code = "from skelfit.resources.catalog import MANIFESTS; print(MANIFESTS.find('mine').resolve())"
    assert Path(call(python, "-c", code, cwd=tmp_path).strip()) == checkout / "manifests" / "mine.yaml"
