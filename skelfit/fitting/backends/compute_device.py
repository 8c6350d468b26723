"""Which device of this machine fits."""

from __future__ import annotations

import platform

import torch

from skelfit.errors import DeviceError


def find_device(name: str) -> str:
    """'cpu' or 'cuda' of this machine; 'auto' is a GPU where there is one. Raises DeviceError."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise DeviceError(
            f"device cuda: {platform.node()} has no CUDA device that torch {torch.__version__} can use"
        )
    return name if name != "auto" else "cuda" if there else "cpu"
