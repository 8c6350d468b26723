"""Constant sparse tables as tensors."""

from __future__ import annotations

import warnings

import torch
from scipy import sparse
from torch import Tensor


def csr_tensor(matrix: sparse.csr_array, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """A scipy CSR matrix as a torch one. Products with a dense right-hand side are all that we ask of it."""
    with warnings.catch_warnings():
        # "Sparse CSR tensor support is in beta state": sparse @ dense is the stable part of it.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return torch.sparse_csr_tensor(
            torch.tensor(matrix.indptr, dtype=torch.int64),
            torch.tensor(matrix.indices, dtype=torch.int64),
            torch.tensor(matrix.data),
            size=matrix.shape,
            device=device,
            dtype=dtype,
            check_invariants=True,
        )
