"""Files of plain data and tensors (torch.save, safetensors), read without running code from them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from skelfit.errors import InputError
from skelfit.storage import inert_pickle
from skelfit.storage.path_checks import require_regular_file

_ZIP = b"PK\x03\x04"
_OLD_FORM = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # a pickled number, before torch 1.6


def read_tensor_file(
    path: str | Path, expected: str, error: type[InputError], *, mapped: bool = False, objects: bool = False
) -> Any:
    """The content of a file, with tensors on the CPU. Raises the error.

    expected: for its message. mapped: tensors are memory-mapped: each is read when it is used, and the file must not
    change meanwhile (no effect for safetensors and the form before torch 1.6). objects: files from elsewhere may hold
    objects of any class; each becomes an `InertObject`, and numpy's arrays become records for `unpickle.as_array`.
    Otherwise such a file is an error.
    """
    require_regular_file(path, expected, error)
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        is_zip = _is_zip(path, expected, error)
        if is_zip and _is_program(path):
            raise error(path, None, expected, "a TorchScript program, which is not read")
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_zip)
        except pickle.UnpicklingError:
            if not (objects and is_zip):
                raise
        # Nothing but tensors and plain containers is made: see inert_pickle.
        return torch.load(path, "cpu", inert_pickle, weights_only=False, mmap=mapped)
    except FileNotFoundError:
        raise error(path, None, expected, "no such file") from None
    except pickle.UnpicklingError:
        raise error(path, None, expected, "more than plain data and tensors, which is not read") from None
    except error:
        raise
    except Exception as problem:  # torch and safetensors have no error of their own for a damaged file
        raise error(path, None, expected, " ".join(str(problem).split())[:200]) from None


def _is_zip(path: str | Path, expected: str, error: type[InputError]) -> bool:
    """Whether torch.load takes a file for a zip: its form since torch 1.6. Raises the error for other kinds."""
    with open(path, "rb") as stream:
        head = stream.read(len(_OLD_FORM))
    if head.startswith(_ZIP) or head == _OLD_FORM:
        return head != _OLD_FORM
    kind = f"a file of another kind (it begins with {head[:8]!r})" if head else "an empty file"
    raise error(path, None, expected, kind)


def _is_program(path: str | Path) -> bool:
    """Whether a zip is one of TorchScript, which torch.load would hand on to torch.jit.load.

    The reader is that of torch.load, since two readers may see different files in a zip that is made so.
    """
    return "constants.pkl" in torch._C.PyTorchFileReader(str(path)).get_all_records()
