"""Files of plain data and tensors (torch.save, safetensors), read without running anything."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from skelfit.errors import InputError
from skelfit.storage.path_checks import require_regular_file


def read_tensor_file(
    path: str | Path, expected: str, fault: type[InputError], more: str = "", *, mapped: bool = False
) -> Any:
    """The content of a file, on the processor; more: what a message adds of a file with objects. Raises the fault.

    mapped: tensors are read when they are looked at, and only while the file stays as it is (not of safetensors).
    """
    require_regular_file(path, expected, fault)
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise fault(path, None, expected, "no such file") from None
    except pickle.UnpicklingError:
        how = f"more than plain data and tensors, which is not read{more}"
        raise fault(path, None, expected, how) from None
    except Exception as error:  # torch and safetensors have no error of their own for a damaged file
        raise fault(path, None, expected, " ".join(str(error).split())[:200]) from None
