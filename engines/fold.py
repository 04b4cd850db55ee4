"""From a history to what a fold-in takes: the one place that the reader, the live worker and the evaluation share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from core.types import HistoryEvent
from core.use_cases import UseCases
from engines.base import item_weights
from models.als import ALSModel, Floats


def made_with(model: ALSModel, use_cases: UseCases, history_cap: int) -> str:
    """Sixteen hex digits that change with anything a user's vector depends on beside the events: factors, event weights, history cap."""
    facts = json.dumps([model.digest, sorted(use_cases.event_types.items()), history_cap])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def matrix(model: ALSModel, use_cases: UseCases, histories: Sequence[Sequence[HistoryEvent]]) -> sp.csr_matrix:
    """Weights (n_users, n_items) f32 CSR of the items that the model knows; a user who touched none has an empty row."""
    indptr, columns, weights = [0], [], []
    for history in histories:
        mine = item_weights(history, use_cases)
        rows = model.item_ids.rows(mine)
        known = rows >= 0
        columns.append(rows[known])
        weights.append(np.fromiter(mine.values(), dtype=np.float32, count=len(mine))[known])
        indptr.append(indptr[-1] + len(columns[-1]))
    shape = (len(histories), len(model.item_ids))
    if not columns:
        return sp.csr_matrix(shape, dtype=np.float32)
    return sp.csr_matrix((np.concatenate(weights), np.concatenate(columns), np.array(indptr)), shape=shape)


def vectors(model: ALSModel, use_cases: UseCases, histories: Sequence[Sequence[HistoryEvent]]) -> Floats:
    """Vectors (n_users, f) f32 of many users by the compiled solver; zeros for a user without an item that the model knows."""
    return model.fold_in_many(matrix(model, use_cases, histories))
