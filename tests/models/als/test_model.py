"""The ALS model: parity with `implicit`, and examples computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from core.errors import ModelCorrupt, ModelError, ModelMissing
from models.als import ALSModel, UserSide
from models.als.new_items import NewItemFactors
from models.id_map import IdMap


def model(factors: np.ndarray, regularization: float = 0.01, alpha: float = 40.0) -> ALSModel:
    return ALSModel(
        IdMap([f"item-{row}" for row in range(len(factors))]),
        factors,
        regularization=regularization,
        alpha=alpha,
    )


@pytest.mark.parametrize("history_size", [1, 8, 16, 17, 60, 200])
@pytest.mark.parametrize("alpha", [1.0, 40.0])
def test_the_fold_in_of_a_user_equals_that_of_implicit(history_size: int, alpha: float) -> None:
    random = np.random.default_rng(history_size)
    factors = random.normal(size=(400, 32)).astype(np.float32)
    rows = random.choice(400, history_size, replace=False).astype(np.int32)
    weights = random.integers(1, 9, history_size).astype(np.float32)
    with threadpool_limits(1):
        reference = AlternatingLeastSquares(
            factors=32, regularization=0.01, alpha=alpha, num_threads=1
        )
    reference.item_factors = factors
    history = csr_matrix((weights, rows, [0, history_size]), shape=(1, 400))
    expected = reference.recalculate_user(0, history)
    als = model(factors, alpha=alpha)
    for vector in (als.fold_in(rows, weights), als.fold_in_many(history)[0]):
        assert np.linalg.norm(vector - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("alpha", [1.0, 40.0])
def test_the_fold_in_of_an_item_equals_that_of_implicit(alpha: float) -> None:
    random = np.random.default_rng(5)
    items, users = (
        random.normal(size=(40, 32)).astype(np.float32),
        random.normal(size=(300, 32)).astype(np.float32),
    )
    als = ALSModel(
        model(items).item_ids,
        items,
        UserSide.of(IdMap([str(row) for row in range(300)]), users),
        regularization=0.01,
        alpha=alpha,
    )
    with threadpool_limits(1):
        reference = AlternatingLeastSquares(
            factors=32, regularization=0.01, alpha=alpha, num_threads=1
        )
    reference.user_factors = users
    item_users = random_weights(random, 25, 300)
    expected = reference.recalculate_item(np.arange(25), item_users)
    folded = als.fold_items_in(item_users, users)
    assert (
        np.linalg.norm(folded - expected, axis=1) <= 1e-4 * np.linalg.norm(expected, axis=1)
    ).all()
    subset = np.array([7, 3, 99])
    assert als.fold_items_in(item_users[:, subset], users[subset]).shape == (25, 32)


def random_weights(random: np.random.Generator, rows: int, columns: int) -> csr_matrix:
    """(rows, columns) f32 CSR: a tenth of the entries are 1 to 8, at least one in each row."""
    dense = random.integers(1, 9, (rows, columns)) * (random.random((rows, columns)) < 0.1)
    dense[:, 0] = 1
    return csr_matrix(dense.astype(np.float32))


def test_the_fold_in_of_a_new_item_by_hand() -> None:
    """One factor: users 1 and 2 have 1 and 2; no regularization, alpha 3.

    Only user 2 has interacted with the item, with weight 2, so c = 6.
    A = X'X + (c - 1) * 2 * 2 = 5 + 20 = 25; b = 6 * 2 = 12; y = 12 / 25.
    """
    gram = np.array([[5]], dtype=np.float32)
    als = ALSModel(
        IdMap(["a"]),
        np.ones((1, 1), dtype=np.float32),
        regularization=0,
        alpha=3,
        users=UserSide(gram),
    )
    folded = als.fold_items_in(
        csr_matrix(np.array([[2], [0]], dtype=np.float32)), np.array([[2]], dtype=np.float32)
    )
    assert folded == pytest.approx(np.array([[12 / 25], [0]]))


def test_a_saved_model_folds_items_in_and_one_without_user_gram_raises(tmp_path: Path) -> None:
    users = np.array([[1, 0], [2, 1]], dtype=np.float32)
    ALSModel(
        IdMap(["a"]),
        users[:1].copy(),
        UserSide.of(IdMap(["u", "v"]), users),
        regularization=0.5,
        alpha=7,
    ).save(tmp_path)
    saved = ALSModel.load(tmp_path)
    assert saved.user_gram == pytest.approx(np.array([[5, 2], [2, 1]]))
    (tmp_path / "user_gram.npy").unlink()
    older = ALSModel.load(tmp_path)
    assert older.user_gram is None
    assert older.digest == saved.digest
    with pytest.raises(ModelError, match="retrain"):
        older.fold_items_in(csr_matrix((1, 1), dtype=np.float32), users[:1].copy())


@pytest.mark.parametrize(
    "vectors",
    [np.zeros((2, 2), dtype=np.float32), np.zeros((1, 3), dtype=np.float32), np.zeros((1, 2))],
)
def test_user_vectors_of_another_shape_are_rejected(vectors: np.ndarray) -> None:
    als = ALSModel(
        IdMap(["a"]),
        np.ones((1, 2), dtype=np.float32),
        regularization=1,
        alpha=1,
        users=UserSide(np.eye(2, dtype=np.float32)),
    )
    with pytest.raises(ValueError, match="user_vectors"):
        als.fold_items_in(csr_matrix((1, 1), dtype=np.float32), vectors)


def test_new_items_need_one_finite_row_for_each_id() -> None:
    new_items = NewItemFactors(IdMap(["n"]), np.ones((1, 2), dtype=np.float32), "0123")
    assert (len(new_items), bool(new_items), bool(NewItemFactors.none())) == (1, True, False)
    for factors in (
        np.ones((2, 2), dtype=np.float32),
        np.ones((1, 2)),
        np.full((1, 2), np.nan, dtype=np.float32),
    ):
        with pytest.raises(ValueError, match="new items"):
            NewItemFactors(IdMap(["n"]), factors, "0123")


def test_fold_in_scores_and_contributions_by_hand() -> None:
    """One factor: items 1 and 2 have 1 and 2; no regularization, alpha 3, weights 1 and 2: c = 3
    and 6.

    A = (1 + 4) + 2 * 1 + 5 * 4 = 27; b = 3 * 1 + 6 * 2 = 15; x = 15 / 27 = 5/9. Scores 5/9 and
    10/9. To the score of item 1, item 1 contributes 3 * 1 * 1 / 27 = 1/9 and item 2 6 * 2 * 1 / 27
    = 4/9. Both contribute twice as much to the score of item 2.
    """
    als = model(np.array([[1], [2]], dtype=np.float32), regularization=0, alpha=3)
    rows, weights = np.array([0, 1], dtype=np.int32), np.array([1, 2], dtype=np.float32)
    assert als.fold_in(rows, weights) == pytest.approx([5 / 9])
    assert als.scores(als.fold_in(rows, weights)) == pytest.approx([5 / 9, 10 / 9])
    assert als.explain(rows, weights, rows) == pytest.approx(
        np.array([[1 / 9, 4 / 9], [2 / 9, 8 / 9]])
    )


def test_a_short_history_by_hand() -> None:
    """Four items on four axes: Y'Y = I.

    With regularization 1 the axis of a history item has A = 2 + (c - 1) = 1 + c, so x = c / (1 +
    c).
    """
    als = model(np.eye(4, dtype=np.float32), regularization=1, alpha=1)
    assert als.fold_in(np.array([2]), np.array([3.0])) == pytest.approx([0, 0, 3 / 4, 0])
    assert als.fold_in(np.array([2, 0]), np.array([3.0, 1.0])) == pytest.approx(
        [1 / 2, 0, 3 / 4, 0]
    )


@pytest.mark.parametrize("history_size", [3, 30])
def test_contributions_sum_to_the_score(history_size: int) -> None:
    random = np.random.default_rng(1)
    als = model(random.normal(size=(100, 16)).astype(np.float32))
    rows = random.choice(100, history_size, replace=False).astype(np.int32)
    weights = random.integers(1, 9, history_size).astype(np.float32)
    shares = als.explain(rows, weights, np.arange(100, dtype=np.int32))
    assert shares.shape == (100, history_size)
    assert shares.sum(axis=1) == pytest.approx(als.scores(als.fold_in(rows, weights)), abs=1e-5)


def test_an_item_with_weight_zero_has_no_effect() -> None:
    als = model(np.eye(3, dtype=np.float32) + 0.1)
    without = als.fold_in(np.array([0]), np.array([2.0]))
    assert als.fold_in(np.array([0, 1]), np.array([2.0, 0.0])) == pytest.approx(without)
    assert als.fold_in_many(csr_matrix(np.array([[2.0, 0, 0]], dtype=np.float32)))[
        0
    ] == pytest.approx(without, rel=1e-5)
    assert als.explain(np.array([0, 1]), np.array([2.0, 0.0]), np.array([2]))[0, 1] == 0


def test_an_ill_conditioned_model_agrees_with_implicit() -> None:
    random = np.random.default_rng(2)
    factors = random.normal(size=(50, 32)).astype(np.float32) * np.logspace(
        0, -4, 32, dtype=np.float32
    )
    als = model(factors, regularization=1e-5)
    assert als._inverse is None
    rows, weights = np.array([1, 2, 3], dtype=np.int32), np.ones(3, dtype=np.float32)
    expected = als.fold_in_many(csr_matrix((weights, rows, [0, 3]), shape=(1, 50)))[0]
    assert als.scores(als.fold_in(rows, weights)) == pytest.approx(als.scores(expected), abs=1e-3)


def test_similar_items_are_sorted_by_cosine() -> None:
    als = model(np.array([[1, 0], [5, 1], [0, 3], [-1, 0]], dtype=np.float32))
    rows, cosines = als.similar(0, 3)
    assert rows.tolist() == [1, 2, 3]
    assert cosines == pytest.approx([5 / 26**0.5, 0, -1])


@pytest.mark.parametrize(
    "factors",
    [
        np.zeros((2, 2)),
        np.zeros((2, 2), dtype=np.float32, order="F"),
        np.zeros((3, 2), dtype=np.float32),
    ],
)
def test_item_factors_of_another_type_or_shape_are_rejected(factors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="item_factors"):
        ALSModel(IdMap(["a", "b"]), factors, regularization=0.1, alpha=1)


@pytest.mark.parametrize(
    ("rows", "weights"),
    [([0, 1], [1]), ([5], [1]), ([-1], [1]), ([0], [-1]), ([0], [np.nan]), ([0], [np.inf])],
)
def test_an_invalid_history_is_rejected(rows: list[int], weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"rows|weights"):
        model(np.eye(2, dtype=np.float32)).fold_in(np.array(rows), np.array(weights))


def test_a_saved_model_loads_unchanged(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    items, users = (
        random.normal(size=(3, 2)).astype(np.float32),
        random.normal(size=(2, 2)).astype(np.float32),
    )
    ALSModel(
        IdMap(["a", "é:%", "c"]),
        items,
        UserSide.of(IdMap(["u", "v"]), users),
        regularization=0.5,
        alpha=7,
    ).save(tmp_path)
    serving, training = ALSModel.load(tmp_path), ALSModel.load(tmp_path, users=True)
    assert (serving.item_ids.ids, serving.alpha, serving.regularization) == (
        ["a", "é:%", "c"],
        7,
        0.5,
    )
    assert (serving.item_factors == items).all()
    assert serving.user_factors is None
    assert training.user_factors is not None
    assert (training.user_factors == users).all()
    assert np.load(tmp_path / "item_factors.npy", allow_pickle=False).shape == (3, 2)


def test_the_error_for_a_damaged_model_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"als\.json"):
        ALSModel.load(tmp_path)
    model(np.eye(2, dtype=np.float32)).save(tmp_path)
    np.save(tmp_path / "item_factors.npy", np.full((2, 2), np.nan, dtype=np.float32))
    with pytest.raises(ModelCorrupt, match=r"item_factors\.npy holds NaN"):
        ALSModel.load(tmp_path)
    np.save(tmp_path / "item_factors.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ModelCorrupt, match=r"item_factors\.npy is not a \.npy array"):
        ALSModel.load(tmp_path)
