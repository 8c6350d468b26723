"""Backends: which kernels are compiled, for which target and lanes, when, and by several processes at once."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import programs
import pytest
import torch
import warp as wp
from programs import Program

from skelfit.errors import DeviceError, OutputError
from skelfit.fitting.backends import backend as backend_module
from skelfit.fitting.backends import kernels
from skelfit.fitting.backends.backend import compile_once, cpu_flags, kernel_modules, make_backend, start_warp

FOLDER = Path(kernels.__file__).parent
# A program whose only kernels are those of the smallest file.
COMPILE = """
import skelfit.fitting.backends.backend as backend
SMALL = ("regressed_points",)
made = backend.make_backend("cpu", 8)
"""


def output_of(running: Program) -> str:
    out, errors = running.communicate()
    assert (running.returncode, errors) == (0, "")
    return out.strip()


def program(code: str, cache: Path) -> Program:
    """A process of its own with a cache of kernels in this folder."""
    return programs.start("-c", code, environment={"WARP_CACHE_PATH": str(cache)})


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder for compiled kernels, of this process."""
    start_warp()
    monkeypatch.setattr(wp.config, "kernel_cache_dir", str(tmp_path / "cache"))
    return tmp_path / "cache"


def edited(folder: Path, name: str, old: str, new: str) -> Path:
    """A copy of the kernels with one text replaced."""
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))
    return folder


def test_a_process_has_one_target(tmp_path: Path) -> None:
    """A second target is refused. A missing GPU causes no warning."""
    code = """
import warp as wp
from skelfit.fitting.backends.backend import make_backend, start_warp
start_warp("x86-64-v2")
flags = wp.config.cpu_compiler_flags
make_backend()
make_backend("cpu", 8, target="x86-64-v2")
assert wp.config.cpu_compiler_flags == flags
try:
    make_backend("cpu", 8, target="native")
except ValueError as error:
    print(error)
"""
    line = output_of(program(code, tmp_path / "cache"))
    assert line.startswith("target native: this process compiles by -target-cpu x86-64-v2 ")


def test_only_the_warning_of_a_missing_driver_is_filtered(capfd: pytest.CaptureFixture[str]) -> None:
    with backend_module._without_driver_warning():
        os.write(2, b"before\n")
        os.write(2, backend_module._NO_DRIVER_WARNING + b". GPU execution will not be available.\n")
        os.write(2, b"after\n")
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "before\nafter\nlater\n"


def test_an_edited_header_is_another_module(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Warp does not hash included files: without other flags the old code would run. The path does not matter."""
    flags = cpu_flags("native")
    elsewhere = edited(tmp_path / "elsewhere", "lanes.h", "lanes_fma", "lanes_fma")
    monkeypatch.setattr(backend_module, "_HEADER", elsewhere / "lanes.h")
    assert cpu_flags("native") == flags
    changed = edited(tmp_path / "changed", "lanes.h", "lanes(a) + lanes(b)", "lanes(b) + lanes(a)")
    monkeypatch.setattr(backend_module, "_HEADER", changed / "lanes.h")
    other = cpu_flags("native")
    assert other != flags
    for line in (flags, other):
        assert Path(line.partition("-include ")[2]).parent == cache
    assert Path(other.partition("-include ")[2]).read_bytes() == (changed / "lanes.h").read_bytes()


def test_flags_and_lanes_make_other_modules(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = []
    for lanes in (8, 16):
        module = kernel_modules(lanes)[0]
        for target in ("native", "x86-64-v3", "x86-64-v4"):
            monkeypatch.setattr(wp.config, "cpu_compiler_flags", cpu_flags(target))
            module.mark_modified()
            hashes.append(module.get_module_hash(1))
        module.mark_modified()
    assert len(set(hashes)) == 6


def hash_of(folder: Path) -> bytes:
    """Warp's hash of the module `levenberg_marquardt` in a copy of the kernels."""
    package = kernels._Kernels(f"copy_of_kernels_{folder.name}")
    package.__path__, package.LANES = [str(folder)], 8
    sys.modules[package.__name__] = package
    return wp.get_module(
        importlib.import_module(f"{package.__name__}.levenberg_marquardt").__name__
    ).get_module_hash(1)


def test_edits_within_a_function_compile_it_again(tmp_path: Path) -> None:
    """Warp hashes the text of each function that a kernel calls, comments included, and nothing outside."""
    start_warp()
    constant, line = "0.15915494309189535", "    h = within_half_turn(a) * 0.5\n"
    first = hash_of(edited(tmp_path / "same", "lanes.py", constant, constant))
    free = edited(tmp_path / "outside", "lanes.py", "# Warp reads annotations", "# As Warp reads annotations")
    assert hash_of(free) == first
    for name, old, new in (("constant", constant, "0.16"), ("comment", line, "    # Half.\n" + line)):
        assert hash_of(edited(tmp_path / name, "lanes.py", old, new)) != first


def test_what_is_compiled_depends_on_files_sources_and_lanes(tmp_path: Path) -> None:
    """Not before, not for other sources, not for other lanes and not for more files."""
    cache, changed = tmp_path / "cache", tmp_path / "fit"
    shutil.copytree(FOLDER.parent, changed, ignore=shutil.ignore_patterns("__pycache__"))
    source = changed / "kernels" / "regressed_points.py"
    source.write_text(source.read_text() + "\nCHANGED = 1\n")
    code = f"""{COMPILE}
from pathlib import Path
states = [backend._marker(made, SMALL).exists()]
made.compile(SMALL)
states += [backend._marker(made, SMALL).exists(), backend._marker(backend.make_backend("cpu", 16), SMALL).exists()]
states += [backend._marker(made, (*SMALL, "moments")).exists()]
backend._HEADER = Path({str(changed)!r}, "kernels", "lanes.h")
print(*states, backend._marker(made, SMALL).exists())
"""
    assert output_of(program(code, cache)) == "False True False False False"
    assert len(list(cache.glob("*/wp_*"))) == 1


def test_kernels_are_compiled_once_after_a_line_that_says_so(cache: Path) -> None:
    lines: list[str] = []
    cache.mkdir()  # this process has loaded what would make it
    for _ in range(2):
        compile_once("cpu", ("regressed_points",), lines.append)
        assert len(lines) == 1 and lines[0].startswith("compiling the kernels")
    assert backend_module._marker(make_backend(), ("regressed_points",)).parent == cache


@pytest.mark.soak
def test_processes_that_compile_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each succeeds, and the cache has one module and no unfinished files."""
    cache = tmp_path / "cache"
    running = [program(f"{COMPILE}\nmade.compile(SMALL)", cache) for _ in range(2)]
    assert [output_of(one) for one in running] == [""] * 2
    (folder,) = cache.glob("*/wp_*")
    assert {path.suffix for path in folder.iterdir()} == {".cpp", ".meta", ".o"}
    assert not list(cache.glob("*/*.tmp"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_device_is_refused() -> None:
    for device in ("cuda", "cuda:3"):
        with pytest.raises(DeviceError, match=f"device {device}: "):
            make_backend(device)


def test_a_cache_that_cannot_be_written_is_refused() -> None:
    """A full disk, or a folder without permission to write."""

    class Module:
        def load(self, *where: object) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(
        OutputError, match=r"cannot write compiled kernels there .*No space left.* WARP_CACHE_PATH"
    ):
        make_backend("cpu").launch(SimpleNamespace(module=Module()), 1, [])


def test_tensors_with_gradients_are_taken_without_them() -> None:
    x = torch.zeros(3, requires_grad=True)
    assert make_backend("cpu").array(x).requires_grad is False and x.grad is None
