"""Compiled loops are kept under what they mean: words and lines change nothing, numbers and callees do."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import skelfit.fit.fitter  # noqa: F401  all compiled functions of the fit
from skelfit.fit import compiled as compiled_module
from skelfit.fit.compiled import is_compiled, meaning_sha256

SOURCE = '''
import math
import numpy as np
from skelfit.fit.compiled import compiled

SHARE = 0.5
TABLE = np.array([1.0, 2.0])


@compiled
def outer(x):
    """What it does."""
    return inner(x) + TABLE[0]


@compiled
def inner(x):
    return SHARE * math.sin(x)
'''
SAME = {
    "a comment": ("SHARE = 0.5", "# Why it is a half.\nSHARE = 0.5"),
    "a docstring": ("What it does.", "What it does, in other words."),
    "lines": ("\n\n\n@compiled", "\n\n\n\n\n@compiled"),
}
OTHER = {
    "a constant": ("SHARE = 0.5", "SHARE = 0.25", {"outer", "inner"}),
    "an inner formula": ("math.sin", "math.cos", {"outer", "inner"}),
    "a number in the code": ("+ TABLE[0]", "+ TABLE[0] + 1.0", {"outer"}),
    "a table": ("[1.0, 2.0]", "[3.0, 2.0]", {"outer"}),
}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Write a source and import it as another process would."""
    monkeypatch.setattr(compiled_module, "_KEPT", [])

    def load(text: str) -> ModuleType:
        path = tmp_path / "loops.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("loops", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def kept(folder: Path) -> set[str]:
    return {path.name for path in (folder / "__pycache__").glob("*.nb?")}


def test_words_compile_nothing_and_numbers_what_uses_them(
    tmp_path: Path, load: Callable[[str], ModuleType]
) -> None:
    module = load(SOURCE)
    assert not is_compiled()
    assert module.outer(0.3) == 0.5 * np.sin(0.3) + 1
    assert is_compiled()
    before = kept(tmp_path)
    assert len(before) == 4  # an index and the code of each
    for name, (old, new) in SAME.items():
        module = load(SOURCE.replace(old, new))
        assert module.outer(0.3) == 0.5 * np.sin(0.3) + 1
        assert kept(tmp_path) == before, name
        assert sum(module.outer.stats.cache_hits.values()) == 1, name
    for name, (old, new, changed) in OTHER.items():
        module = load(SOURCE.replace(old, new))
        assert not is_compiled(), name
        module.outer(0.3)
        added = {file.split(".")[1].split("-")[0] for file in kept(tmp_path) - before}
        assert added == changed, name
        assert sum(module.outer.stats.cache_hits.values()) == 0, name
        before = kept(tmp_path)


def test_options_are_part_of_the_meaning(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    function = load(SOURCE).inner.py_func
    before = meaning_sha256(function)
    monkeypatch.setitem(compiled_module._OPTIONS, "fastmath", set())
    assert meaning_sha256(function) != before


def test_what_has_no_meaning_of_its_own_is_refused(load: Callable[[str], ModuleType]) -> None:
    module = load(SOURCE.replace("SHARE = 0.5", "SHARE = [0.5]"))
    with pytest.raises(TypeError, match=r"\[0.5\]: expected a number, an array or a function"):
        meaning_sha256(module.inner.py_func)


def test_every_loop_of_the_fit_has_a_key_of_its_own() -> None:
    names = [kept.index.name for kept in compiled_module._KEPT]
    assert len(set(names)) == len(names) > 50
