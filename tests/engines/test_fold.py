"""Fold-in: weights from the lines of a history, and vectors as implicit computes them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from core.settings import Settings
from core.types import HistoryEvent
from engines import fold
from store.state.entities.users import history_event, history_line
from tests.live.world import model

USE_CASES = Settings(_env_file=None).use_cases  # type: ignore[call-arg]

HISTORY = [
    ("like", None, "item-1"),
    ("view", None, "item-2"),
    ("like", None, "item-1"),
    ("rating", 4.5, "item-3"),
    ("rating", 0.0, "item-4"),
    ("view", None, "an unknown item"),
    ("gone_type", None, "item-5"),
    ("dismiss", None, "item-6"),
]


@pytest.fixture
def lines() -> fold.Lines:
    return fold.Lines(model(1), USE_CASES, history_event)


def test_a_vector_equals_the_one_that_implicit_computes(lines: fold.Lines) -> None:
    history = [history_line(1.7e9, kind, value, item).encode() for kind, value, item in HISTORY]
    weights = lines.matrix([history])
    vector = lines.model.fold_in_many(weights)[0]
    with threadpool_limits(1):  # implicit warns of BLAS threads
        reference = AlternatingLeastSquares(
            factors=lines.model.factors,
            regularization=lines.model.regularization,
            alpha=lines.model.alpha,
        )
    reference.item_factors = lines.model.item_factors
    reference.user_factors = np.zeros((1, lines.model.factors), dtype=np.float32)
    expected = reference.recalculate_user(np.array([0]), sp.csr_matrix(weights))
    np.testing.assert_allclose(vector, np.ravel(expected), rtol=1e-4, atol=1e-6)


def test_long_and_short_histories_of_one_batch_have_the_same_vectors_as_one_solver_gives() -> None:
    """Long ones are solved one by one, short ones together; only the time differs."""
    lines = fold.Lines(model(1, items=900), USE_CASES, history_event)
    assert lines.model.factors * 900 > fold.ONE_BY_ONE > lines.model.factors * 500
    histories = [
        [history_line(1.7e9, "like", None, f"item-{row}").encode() for row in range(count)]
        for count in (900, 3, 0, 560, 700, 1)
    ]
    vectors, has_items = lines.vectors(histories)
    expected = lines.model.fold_in_many(lines.matrix(histories))
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)
    assert has_items.tolist() == [True, True, False, True, True, True]


@pytest.mark.parametrize("spaces", [False, True])
@pytest.mark.parametrize("time", [0, 7.0, 12345.0, 999999999.5, 1.7e9, 253402300799.0, None])
def test_weights_from_lines_are_those_of_the_events(
    lines: fold.Lines, time: float | None, spaces: bool
) -> None:
    items = [
        "item-1",
        "item-2",
        "x",
        "item=4",
        "item-39",
        *(["item 3", "like item-2", " "] if spaces else []),
    ]
    kinds = [
        ("view", None),
        ("like", None),
        ("rating", 4.5),
        ("rating", 1 / 3),
        ("dismiss", None),
        ("gone_type", None),
        ("gone_type", 2.0),
    ]
    times = [12345.0, 1.7e9, 7.0, 1.8e9] if time is None else [time]
    history = [
        history_line(time, kind, value, item).encode()
        for item in items
        for kind, value in kinds
        for time in times
    ] * 3
    histories = [history, [], history[:1], history[::2]]
    events: list[list[HistoryEvent]] = [
        [history_event(line) for line in history] for history in histories
    ]
    expected = fold.matrix(lines.model, USE_CASES, events)
    for _ in range(2):  # the second time from the cache
        assert (abs(lines.matrix(histories) - expected)).nnz == 0


@pytest.mark.parametrize(
    "line",
    [
        b"yesterday",
        b"1700000000",
        b"1700000000 view",
        b"view item-1",
        b"170000000012 view",
        b"17 like=x item-1",
    ],
)
def test_a_line_that_is_no_event_is_rejected(lines: fold.Lines, line: bytes) -> None:
    good = history_line(1.7e9, "like", None, "item-1").encode()
    for _ in range(2):
        with pytest.raises(ValueError):
            lines.matrix([[good, line, good]])
    assert lines.matrix([[good]]).nnz == 1
