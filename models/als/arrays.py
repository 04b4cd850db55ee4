"""Checks the arrays that an ALS model is made of or computes with."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int32]


def positive_csr(weights: sp.csr_matrix) -> sp.csr_matrix:
    """A copy as f32 CSR without duplicate pairs and zeros. Raises ValueError."""
    matrix = sp.csr_matrix(weights, dtype=np.float32, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    if matrix.nnz and not (np.isfinite(matrix.data).all() and matrix.data.min() > 0):
        raise ValueError("weights must be finite and not negative")
    return matrix


def check_history(rows: Any, weights: Any, items: int) -> tuple[Rows, Floats]:
    """`rows` int32 and `weights` f32 of a history, without weights of 0. Raises ValueError.

    `items`: the number of items of the model.
    """
    rows, weights = np.asarray(rows, dtype=np.int32), np.asarray(weights, dtype=np.float32)
    if rows.ndim != 1 or rows.shape != weights.shape:
        raise ValueError(f"rows {rows.shape} and weights {weights.shape} must have the same length")
    if not len(rows):
        return rows, weights
    if not (rows.min() >= 0 and rows.max() < items):
        raise ValueError(f"rows must lie within [0, {items})")
    lowest = weights.min()
    if not (lowest >= 0 and weights.max() < np.inf):
        raise ValueError("weights must be finite and not negative")
    return (rows, weights) if lowest > 0 else (rows[weights > 0], weights[weights > 0])


def check_matrix(name: str, matrix: Any, rows: int, columns: int | None = None) -> None:
    """Raises ValueError unless `matrix` is (rows, columns) f32, C-contiguous.

    `columns` None: any number above 0.
    """
    if (
        not isinstance(matrix, np.ndarray)
        or matrix.ndim != 2
        or matrix.dtype != np.float32
        or not matrix.flags.c_contiguous
    ):
        raise ValueError(f"{name} must be a C-contiguous float32 matrix")
    if matrix.shape[0] != rows or matrix.shape[1] < 1:
        raise ValueError(f"{name} is {matrix.shape} for {rows} ids")
    if columns is not None and matrix.shape[1] != columns:
        raise ValueError(f"{name} has {matrix.shape[1]} factors, the model {columns}")
