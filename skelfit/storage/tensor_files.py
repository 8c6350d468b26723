"""Files of plain data and tensors (torch.save, safetensors), read without running code from them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from skelfit.errors import InputError
from skelfit.storage.path_checks import require_regular_file


def read_tensor_file(
    path: str | Path, expected: str, error: type[InputError], advice: str = "", *, mapped: bool = False
) -> Any:
    """The content of a file, with tensors on the CPU. Raises the error.

    expected: for its message. advice: added to the message about a file with objects. mapped: tensors are
    memory-mapped: each is read when it is used, and the file must not change meanwhile (no effect for safetensors).
    """
    require_regular_file(path, expected, error)
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise error(path, None, expected, "no such file") from None
    except pickle.UnpicklingError:
        actual = f"more than plain data and tensors, which is not read{advice}"
        raise error(path, None, expected, actual) from None
    except Exception as problem:  # torch and safetensors have no error of their own for a damaged file
        raise error(path, None, expected, " ".join(str(problem).split())[:200]) from None
