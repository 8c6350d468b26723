"""Files of tensors from elsewhere: objects in them do nothing, and nothing runs."""

from __future__ import annotations

import argparse
import os
import pickle
import random
import subprocess
import zipfile
from collections import OrderedDict, defaultdict, deque
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skelfit.errors import InputError
from skelfit.storage import inert_pickle
from skelfit.storage.inert_object import InertObject
from skelfit.storage.tensor_files import read_tensor_file
from skelfit.storage.unpickle import as_array


class Reduced:
    """Calls a function when it is read in the usual way."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


class Settings(dict[str, Any]):
    """A dictionary with a class of its own and attributes, as yacs has them."""


class Items(list[Any]):
    """A list with a class of its own."""


def read(path: Path, **options: Any) -> Any:
    return read_tensor_file(path, "a checkpoint", InputError, objects=True, **options)


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path, pickle_module=pickle)
    return path


@pytest.mark.parametrize("mapped", [False, True])
def test_tensors_and_plain_data_are_read_as_they_are(tmp_path: Path, mapped: bool) -> None:
    module = torch.nn.Linear(3, 2).half()
    weights = module.state_dict()  # an OrderedDict with attributes
    shared = torch.arange(6.0).view(2, 3)
    plain = {"step": 3, "rate": 1e-5, "name": "x", "done": [True, None], "of": (1, {2})}
    content: dict[str, Any] = {
        **plain,
        "state_dict": weights,
        "parameter": module.weight,
        "views": [shared, shared.T, shared[1, ::2]],
        "settings": Settings(a=torch.ones(2)),
    }
    found = read(saved(content, tmp_path / "x.pt"), mapped=mapped)
    assert {name: found[name] for name in plain} == plain
    assert list(found["state_dict"]) == ["weight", "bias"]
    for one, other in zip(found["state_dict"].values(), weights.values(), strict=True):
        assert one.dtype == torch.float16 and torch.equal(one, other)
    assert torch.equal(found["parameter"], module.weight)
    for one, other in zip(found["views"], content["views"], strict=True):
        assert torch.equal(one, other)
    assert isinstance(found["settings"], InertObject)


def test_objects_of_all_kinds_do_nothing(tmp_path: Path) -> None:
    """What checkpoints hold beside weights: configurations, random states, paths, counters."""
    settings = Settings(a=1)
    settings.frozen = True  # type: ignore[attr-defined]
    made = defaultdict(list, {"a": [1]})
    objects: dict[str, Any] = {
        "args": argparse.Namespace(lr=1e-5, out=Path("x")),
        "settings": settings,
        "items": Items([1, 2]),
        "numpy": np.random.get_state(),
        "path": Path("x"),
        "deque": deque([1], 3),
        "default": made,
        "partial": partial(max, 1),
        "array": np.arange(3),
        "dtype": torch.float16,
        "class": Settings,
    }
    path = saved(
        objects | {"python": random.getstate(), "weights": OrderedDict(a=torch.ones(2))}, tmp_path / "x.pt"
    )
    with pytest.raises(InputError, match="more than plain data and tensors"):
        read_tensor_file(path, "a checkpoint", InputError)
    found = read(path)
    assert torch.equal(found["weights"]["a"], torch.ones(2))
    assert found["python"] == random.getstate()
    assert isinstance(found["settings"], InertObject)
    for name in set(objects) - {"numpy", "array", "default", "class", "dtype"}:
        assert isinstance(found[name], InertObject), name
    assert found["default"] == {"a": [1]} and as_array(found["array"]).tolist() == [0, 1, 2]
    assert found["args"].name == "argparse.Namespace" and not vars(found["args"])
    assert issubclass(found["class"], InertObject)


def test_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    harmful = [
        Reduced(os.mkdir, "harm"),
        Reduced(subprocess.call, ["mkdir", "harm"]),
        Reduced(eval, "__import__('os').mkdir('harm')"),
        Reduced(exec, "import os; os.mkdir('harm')"),
        Reduced(getattr, Reduced(__import__, "os"), "mkdir"),
        Reduced(torch.load, "x.pt"),
        Reduced(partial, os.mkdir, "harm"),
        Reduced(bytes, 2**60),
    ]
    assert isinstance(read(saved({"a": torch.ones(1), "b": harmful}, tmp_path / "x.pt"))["b"], list)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_a_file_changes_nothing_that_others_use(tmp_path: Path) -> None:
    """A state can set attributes on whatever the file names, functions and classes included."""
    pickled = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x08__name__U\x01xsb."
    archive = tmp_path / "x.pt"
    saved({"a": 1}, archive)
    with zipfile.ZipFile(archive) as old:
        records = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(archive, "w") as new:
        for name, data in records.items():
            new.writestr(name, pickled if name.endswith("data.pkl") else data)
    before = dict(vars(inert_pickle._tensor))
    assert read(archive) is inert_pickle._tensor
    assert inert_pickle._tensor.__name__ == "_tensor" and vars(inert_pickle._tensor) == before


def test_damaged_files_and_programs_are_refused(tmp_path: Path) -> None:
    path = saved({"a": torch.ones(1000), "b": Path("x")}, tmp_path / "x.pt")
    whole = path.read_bytes()
    for end in (3, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"x\.pt: expected a checkpoint, found "):
            read(path)
    path.write_bytes(whole)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/constants.pkl", b"")
    with pytest.raises(InputError, match="found a TorchScript program, which is not read"):
        read(path)
    torch.save({"a": Path("x")}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="more than plain data and tensors"):
        read(path)
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    for mapped in (False, True):  # a file in this form cannot be mapped
        assert torch.equal(read(path, mapped=mapped)["a"], torch.ones(2))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"<!doctype html>", "a file of another kind .it begins with b'<!doctyp'"),
        (pickle.dumps([1]), "a file of another kind"),
    ],
)
def test_files_of_another_kind_are_refused(content: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(InputError, match=f"x.pt: expected a checkpoint, found {found}"):
        read(tmp_path / "x.pt", mapped=True)
