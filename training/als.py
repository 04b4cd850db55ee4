"""Fits ALS with the compiled solver of `implicit`.

Sources: Hu, Koren, Volinsky 2008; Takács, Pilászy, Tikk 2011.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import threadpoolctl

from core.errors import ConfigurationError, DatasetError
from core.settings import Settings
from models.als import ALSModel, UserSide
from models.als.confidence import Confidence
from models.id_map import IdMap
from training.data.dataset import Interactions

REFRESH_SWEEPS = 1
"""Sweeps over all events after a fit on the training part (docs/adr/0005-one-fit-and-a-refresh.md).
On ML-1M and RetailRocket one sweep recovers all of the NDCG@10 that the missing tenth of the events
costs.
"""

Sweep = Callable[[int, npt.NDArray[np.float32], npt.NDArray[np.float32]], None]
"""Called after each sweep with its number from 1, user_factors (n_users, f), item_factors (n_items,
f). Raises to stop the fit.
"""


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    """Hyperparameters of a fit.

    `regularization` is the L2 penalty; models/als/confidence.py explains `alpha` and
    `popularity_discount`.
    """

    factors: int = 128
    regularization: float = 0.01
    alpha: float = 40.0
    iterations: int = 20
    popularity_discount: float = 0.0

    def __post_init__(self) -> None:
        if self.factors < 1 or self.iterations < 1 or self.alpha <= 0 or self.regularization < 0:
            raise ValueError(
                f"factors and iterations must be at least 1, alpha above 0, regularization "
                f"at least 0; got {self}"
            )
        if not 0 <= self.popularity_discount <= 1:
            raise ValueError(f"popularity_discount must lie between 0 and 1; got {self}")


def hyperparameters(settings: Settings, path: Path | None = None) -> Hyperparameters:
    """Return the hyperparameters in the JSON file at `path`, or those of the settings.

    `training tune` writes such a file.

    The settings also apply when `tune` wrote the file without tuning ALS. Raises ConfigurationError
    for a file that cannot be read.
    """
    configured = Hyperparameters(
        factors=settings.als_factors,
        regularization=settings.als_regularization,
        alpha=settings.als_alpha,
        iterations=settings.als_iterations,
        popularity_discount=settings.als_popularity_discount,
    )
    if path is None:
        return configured
    try:
        sections = json.loads(path.read_text("utf-8"))
        return (
            configured
            if "tuned" in sections and "als" not in sections
            else msgspec.convert(sections["als"], Hyperparameters)
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{path} holds no ALS hyperparameters ({error!r}); it should look like "
            '{"als": {"factors": 128, "regularization": 0.01, "alpha": 40, "iterations": 20}}'
        ) from None


def fit(
    interactions: Interactions,
    hyperparameters: Hyperparameters,
    seed: int,
    *,
    start: ALSModel | None = None,
    threads: int = 0,
    on_sweep: Sweep | None = None,
) -> ALSModel:
    """Fit a model on weighted interactions.

    `start`: a model whose factors the fit starts from, for the users and items that it
    has. `threads` 0: one a core; the result does not depend on it. `on_sweep` gets the factors of
    users and items with an entry, in their order.

    Returns a model without the users and items that have no entry: a zero vector would rank among
    real ones. Raises DatasetError when there is no entry; the caller reports it.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    user_items, users, items = interactions
    if user_items.shape != (len(users), len(items)):
        raise ValueError(
            f"a matrix of {user_items.shape} does not fit {len(users)} users and {len(items)} items"
        )
    rows = np.flatnonzero(np.diff(user_items.indptr))
    columns = np.flatnonzero(np.bincount(user_items.indices, minlength=len(items)))
    if not len(rows):
        raise DatasetError(
            "no event has a weight above 0, so there is nothing to learn; check the event "
            "weights in USE_CASES_PATH"
        )
    whole = (len(rows), len(columns)) == user_items.shape
    weights = (user_items if whole else user_items[rows][:, columns].tocsr()).astype(
        np.float32, copy=False
    )
    confidence = Confidence()
    if hyperparameters.popularity_discount:
        counts = np.bincount(weights.indices, minlength=len(columns)).astype(np.float32)
        confidence = Confidence(hyperparameters.popularity_discount, counts)
        relative = confidence.relative(counts)
        weights = sp.csr_matrix(
            (weights.data * relative[weights.indices], weights.indices, weights.indptr),
            shape=weights.shape,
        )
    fitted_users = IdMap([users.ids[row] for row in rows.tolist()])
    fitted_items = IdMap([items.ids[column] for column in columns.tolist()])
    # the solver has its own threads; BLAS threads below them make it 10 times slower
    with threadpoolctl.threadpool_limits(1, "blas"):
        solver = AlternatingLeastSquares(
            factors=hyperparameters.factors,
            regularization=hyperparameters.regularization,
            alpha=hyperparameters.alpha,
            iterations=hyperparameters.iterations,
            num_threads=threads,
            random_state=seed,
        )
        if start is not None:
            rng = np.random.default_rng(seed)
            solver.user_factors = _initial_factors(
                fitted_users, start.user_ids, start.user_factors, hyperparameters.factors, rng
            )
            solver.item_factors = _initial_factors(
                fitted_items, start.item_ids, start.item_factors, hyperparameters.factors, rng
            )

        def after_sweep(sweep: int, _seconds: float, _loss: float | None) -> None:
            if on_sweep is not None:
                on_sweep(sweep + 1, solver.user_factors, solver.item_factors)

        solver.fit(weights, show_progress=False, callback=after_sweep)
    return ALSModel(
        item_ids=fitted_items,
        item_factors=np.ascontiguousarray(solver.item_factors),
        users=UserSide.of(fitted_users, np.ascontiguousarray(solver.user_factors)),
        regularization=hyperparameters.regularization,
        alpha=hyperparameters.alpha,
        confidence=confidence,
    )


def _initial_factors(
    ids: IdMap, start_ids: IdMap | None, start: Any, length: int, rng: np.random.Generator
) -> Any:
    """(len(ids), length) f32: the factors of `start` where it has them, else small random ones."""
    factors = rng.random((len(ids), length), dtype=np.float32) * np.float32(0.01)
    if start_ids is not None and start is not None:
        rows = start_ids.rows(ids.ids)
        factors[rows >= 0] = start[rows[rows >= 0]]
    return factors
