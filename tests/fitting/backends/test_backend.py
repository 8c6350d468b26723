"""What is compiled for whom, and when: targets, lane counts, edited sources, and several processes at once."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import warp as wp

from skelfit.fitting.backends import backend as backend_module
from skelfit.fitting.backends import kernels
from skelfit.fitting.backends.backend import cpu_flags, is_compiled, kernel_modules, make_backend, start_warp

ROOT = Path(__file__).parents[3]
FOLDER = Path(kernels.__file__).parent
# Compiles the smallest file of kernels, all that there is as far as this process knows.
COMPILE = """
import skelfit.fitting.backends.backend as backend
small = [m for m in backend.kernel_modules(8) if m.name.endswith(".regressed_points")]
backend.kernel_modules = lambda lanes: small
made = backend.make_backend("cpu", 8)
"""


def program(code: str, cache: Path) -> subprocess.Popen[str]:
    """A Python of its own, whose kernels are kept in this folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WARP_CACHE_PATH": str(cache)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes)


def said(running: subprocess.Popen[str]) -> str:
    out, errors = running.communicate(timeout=120)
    assert (running.returncode, errors) == (0, "")
    return out.strip()


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


def test_a_target_once_given_stays(tmp_path: Path) -> None:
    """Whoever makes a backend afterwards gets it too, and nobody another one. Nothing is said of a missing GPU."""
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
    line = said(program(code, tmp_path / "cache"))
    assert line.startswith("target native: this process compiles by -target-cpu x86-64-v2 ")


def test_what_warp_says_beside_the_missing_driver_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with backend_module._without_word_of_a_driver():
        os.write(2, b"before\n")
        os.write(2, backend_module._NO_DRIVER + b". GPU execution will not be available.\n")
        os.write(2, b"after\n")
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "before\nafter\nlater\n"


def test_an_edited_header_is_another_module(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of included files Warp knows nothing: without other flags the old code would run. Its place does not matter."""
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
    found = []
    for lanes in (8, 16):
        module = kernel_modules(lanes)[0]
        for target in ("native", "x86-64-v3", "x86-64-v4"):
            monkeypatch.setattr(wp.config, "cpu_compiler_flags", cpu_flags(target))
            module.mark_modified()
            found.append(module.get_module_hash(1))
        module.mark_modified()
    assert len(set(found)) == 6


def hash_of(folder: Path) -> bytes:
    """What Warp calls the module of `levenberg_marquardt` in a copy of the kernels."""
    package = kernels._Kernels(f"copy_of_kernels_{folder.name}")
    package.__path__, package.LANES = [str(folder)], 8
    sys.modules[package.__name__] = package
    return wp.get_module(
        importlib.import_module(f"{package.__name__}.levenberg_marquardt").__name__
    ).get_module_hash(1)


def test_edits_within_a_function_compile_it_again(tmp_path: Path) -> None:
    """Warp hashes the text of each function that a kernel calls, its comments too; what stands outside is free."""
    start_warp()
    constant, line = "0.15915494309189535", "    h = within_half_turn(a) * 0.5\n"
    first = hash_of(edited(tmp_path / "same", "lanes.py", constant, constant))
    free = edited(tmp_path / "outside", "lanes.py", "# Warp reads annotations", "# As Warp reads annotations")
    assert hash_of(free) == first
    for name, old, new in (("constant", constant, "0.16"), ("comment", line, "    # Half.\n" + line)):
        assert hash_of(edited(tmp_path / name, "lanes.py", old, new)) != first


def test_compiled_is_what_has_been_compiled_of_these_sources(tmp_path: Path) -> None:
    """Not before, nor once a source is another, nor for other lanes."""
    cache, changed = tmp_path / "cache", tmp_path / "fit"
    shutil.copytree(FOLDER.parent, changed, ignore=shutil.ignore_patterns("__pycache__"))
    source = changed / "kernels" / "regressed_points.py"
    source.write_text(source.read_text() + "\nCHANGED = 1\n")
    code = f"""{COMPILE}
from pathlib import Path
found = [backend._note(made).exists()]
made.compile()
found += [backend._note(made).exists(), backend._note(backend.make_backend("cpu", 16)).exists()]
backend._HEADER = Path({str(changed)!r}, "kernels", "lanes.h")
print(*found, backend._note(made).exists())
"""
    assert said(program(code, cache)) == "False True False False"
    assert len(list(cache.glob("*/wp_*"))) == 1


def test_the_fit_asks_for_its_own_backend() -> None:
    assert is_compiled("cpu") is backend_module._note(make_backend()).exists()


def test_processes_that_compile_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each ends well, and what is left is one module and no unfinished files."""
    cache = tmp_path / "cache"
    running = [program(f"{COMPILE}\nmade.compile()", cache) for _ in range(3)]
    assert [said(one) for one in running] == [""] * 3
    (folder,) = cache.glob("*/wp_*")
    assert {path.suffix for path in folder.iterdir()} == {".cpp", ".meta", ".o"}
    assert not list(cache.glob("*/*.tmp"))
