"""Measures the parts of one ALS read, one thread, medians in microseconds.

The parts: fold-in by three solvers, scoring, top-k, reasons, and the whole read.

python -m benchmarks.als_read --items 10000 --factors 128 --history 50
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix

from benchmarks.measurements import record
from core.process import logs
from core.settings import Settings
from core.types import HistoryEvent, Item, Request, UserState
from engines.base import eligible
from engines.builder import build
from engines.explain import explain
from models.als import ALSModel
from models.als.fold import Fold
from models.bundle import Bundle
from models.content import ContentModel
from models.id_map import IdMap


def report(name: str, call: Callable[[], object], repeats: int = 300) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    microseconds = float(np.median(times)) * 1e6
    print(f"{name:44s} {microseconds:8.0f}")
    return microseconds


def solution(factors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The fold-in in float64, of weights of 1 at alpha 40 and regularization 0.01."""
    history = factors[rows]
    return np.linalg.solve(
        factors.T @ factors + 0.01 * np.eye(factors.shape[1]) + 39 * history.T @ history,
        40 * history.sum(axis=0),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("items", 10_000), ("factors", 128), ("history", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    logs.configure("info")
    random = np.random.default_rng(1)
    items = [
        Item(
            item_id=f"startup-{row}",
            item_type="startup",
            categories=[f"sector-{row % 30}"],
            tags=[f"tag-{row % 300}", f"tag-{row * 7 % 300}"],
            text=" ".join(f"word{word}" for word in random.integers(0, 3000, 15)),
        )
        for row in range(arguments.items)
    ]
    factors = random.normal(size=(arguments.items, arguments.factors)).astype(np.float32)
    model = ALSModel(
        IdMap([item.item_id for item in items]), factors, regularization=0.01, alpha=40
    )
    recommender = build(
        Bundle.of("benchmark", items, als=model, content=ContentModel.fit(items)),
        settings=Settings(),
    )
    rows = np.sort(random.choice(arguments.items, arguments.history, replace=False)).astype(
        np.int32
    )
    weights = np.ones(arguments.history, dtype=np.float32)
    history = [
        HistoryEvent(1_700_000_000 + at, "view", f"startup-{row}")
        for at, row in enumerate(rows.tolist())
    ]
    state = UserState(user_id="u", events=arguments.history, history=history)

    theirs = AlternatingLeastSquares(
        factors=arguments.factors, regularization=0.01, alpha=40, num_threads=1
    )
    theirs.item_factors = factors
    touched = csr_matrix((weights, rows, [0, len(rows)]), shape=(1, arguments.items))
    report("fold-in: implicit recalculate_user", lambda: theirs.recalculate_user(0, touched))
    report("fold-in: f x f Cholesky", lambda: Fold(model._gram, None, factors[rows], 40 * weights))
    report("fold-in: ALSModel.fold (n x n when n <= f/2)", lambda: model.fold(rows, weights))
    vector = model.fold_in(rows, weights)
    exact = solution(factors.astype(np.float64), rows)
    cholesky = Fold(model._gram, None, factors[rows], 40 * weights).vector
    for name, solved in (
        ("implicit", theirs.recalculate_user(0, touched)),
        ("Cholesky", cholesky),
        ("ALSModel.fold", vector),
    ):
        print(
            f"{'  error against float64: ' + name:44s} "
            f"{np.linalg.norm(solved - exact) / np.linalg.norm(exact):8.0e}"
        )
    report("scores of all items", lambda: model.scores(vector))
    request, engine = Request(limit=10, engine="als"), recommender.engines["als"]
    scoring, allowed = engine.score(state, request), eligible(recommender.catalogue, state, request)
    best = scoring.top(allowed, 10)
    report("filters and seen items", lambda: eligible(recommender.catalogue, state, request))
    report("top 10", lambda: scoring.top(allowed, 10))
    report("reasons of 10", lambda: scoring.reasons(best))
    library = report(
        "top 10 of the bare library, fold-in included",
        lambda: theirs.recommend(0, touched, N=10, recalculate_user=True),
    )

    def ours() -> None:
        scores = engine.score(state, request)
        scores.top(eligible(recommender.catalogue, state, request), 10)

    whole = report("top 10 of ours, fold-in and filters included", ours)
    record(
        "top-k",
        whole,
        "us of one thread",
        "implicit's recommend(recalculate_user=True)",
        library,
        "python -m benchmarks.als_read",
    )
    for name in ("als", "content_based", "popular"):
        report(
            f"whole read: {name}",
            partial(recommender.recommend, state, Request(limit=10, engine=name)),
        )
    report("explain one item", lambda: explain(recommender, state, items[0].item_id, request), 50)


if __name__ == "__main__":
    main()
