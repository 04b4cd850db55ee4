"""ALS: parity with `implicit`, and numbers that a reader can redo by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from core.errors import ModelCorrupt, ModelError, ModelMissing
from models.als import ALSModel
from models.id_map import IdMap
from models.young import YoungItems


def model(factors: np.ndarray, regularization: float = 0.01, alpha: float = 40.0) -> ALSModel:
    return ALSModel(IdMap([f"item-{row}" for row in range(len(factors))]), factors, regularization=regularization, alpha=alpha)


@pytest.mark.parametrize("touched", [1, 8, 16, 17, 60, 200])
@pytest.mark.parametrize("alpha", [1.0, 40.0])
def test_a_folded_in_user_is_what_implicit_recalculates(touched: int, alpha: float) -> None:
    random = np.random.default_rng(touched)
    factors = random.normal(size=(400, 32)).astype(np.float32)
    rows = random.choice(400, touched, replace=False).astype(np.int32)
    weights = random.integers(1, 9, touched).astype(np.float32)
    with threadpool_limits(1):
        theirs = AlternatingLeastSquares(factors=32, regularization=0.01, alpha=alpha, num_threads=1)
    theirs.item_factors = factors
    history = csr_matrix((weights, rows, [0, touched]), shape=(1, 400))
    expected = theirs.recalculate_user(0, history)
    ours = model(factors, alpha=alpha)
    for vector in (ours.fold_in(rows, weights), ours.fold_in_many(history)[0]):
        assert np.linalg.norm(vector - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("alpha", [1.0, 40.0])
def test_a_folded_in_item_is_what_implicit_recalculates(alpha: float) -> None:
    random = np.random.default_rng(5)
    items, users = random.normal(size=(40, 32)).astype(np.float32), random.normal(size=(300, 32)).astype(np.float32)
    ours = ALSModel(model(items).item_ids, items, IdMap([str(row) for row in range(300)]), users, regularization=0.01, alpha=alpha)
    with threadpool_limits(1):
        theirs = AlternatingLeastSquares(factors=32, regularization=0.01, alpha=alpha, num_threads=1)
    theirs.user_factors = users
    item_users = random_weights(random, 25, 300)
    expected = theirs.recalculate_item(np.arange(25), item_users)
    folded = ours.fold_items_in(item_users, users)
    assert (np.linalg.norm(folded - expected, axis=1) <= 1e-4 * np.linalg.norm(expected, axis=1)).all()
    some = np.array([7, 3, 99])
    assert ours.fold_items_in(item_users[:, some], users[some]).shape == (25, 32)


def random_weights(random: np.random.Generator, rows: int, columns: int) -> csr_matrix:
    """(rows, columns) f32: a tenth of the entries hold 1 to 8, at least one a row."""
    dense = random.integers(1, 9, (rows, columns)) * (random.random((rows, columns)) < 0.1)
    dense[:, 0] = 1
    return csr_matrix(dense.astype(np.float32))


def test_a_young_item_by_hand() -> None:
    """Users 1 and 2 with the single factors 1 and 2, no regularization, alpha 3; only user 2, weight 2, touched the item: c = 6.

    A = X'X + (c - 1) * 2 * 2 = 5 + 20 = 25; b = 6 * 2 = 12; y = 12 / 25. The model never saw the item, the gram holds both users.
    """
    gram = np.array([[5]], dtype=np.float32)
    ours = ALSModel(IdMap(["a"]), np.ones((1, 1), dtype=np.float32), regularization=0, alpha=3, user_gram=gram)
    folded = ours.fold_items_in(csr_matrix(np.array([[2], [0]], dtype=np.float32)), np.array([[2]], dtype=np.float32))
    assert folded == pytest.approx(np.array([[12 / 25], [0]]))


def test_items_fold_in_from_a_saved_model_and_an_older_one_says_why_not(tmp_path: Path) -> None:
    users = np.array([[1, 0], [2, 1]], dtype=np.float32)
    ALSModel(IdMap(["a"]), users[:1].copy(), IdMap(["u", "v"]), users, regularization=0.5, alpha=7).save(tmp_path)
    saved = ALSModel.load(tmp_path)
    assert saved.user_gram == pytest.approx(np.array([[5, 2], [2, 1]]))
    (tmp_path / "user_gram.npy").unlink()
    older = ALSModel.load(tmp_path)
    assert older.user_gram is None
    assert older.digest == saved.digest
    with pytest.raises(ModelError, match="retrain"):
        older.fold_items_in(csr_matrix((1, 1), dtype=np.float32), users[:1].copy())


@pytest.mark.parametrize("vectors", [np.zeros((2, 2), dtype=np.float32), np.zeros((1, 3), dtype=np.float32), np.zeros((1, 2))])
def test_user_vectors_of_another_shape_are_refused(vectors: np.ndarray) -> None:
    ours = ALSModel(IdMap(["a"]), np.ones((1, 2), dtype=np.float32), regularization=1, alpha=1, user_gram=np.eye(2, dtype=np.float32))
    with pytest.raises(ValueError, match="user_vectors"):
        ours.fold_items_in(csr_matrix((1, 1), dtype=np.float32), vectors)


def test_young_items_hold_one_finite_row_an_id() -> None:
    young = YoungItems(IdMap(["n"]), np.ones((1, 2), dtype=np.float32), "0123")
    assert (len(young), bool(young), bool(YoungItems.none())) == (1, True, False)
    for factors in (np.ones((2, 2), dtype=np.float32), np.ones((1, 2)), np.full((1, 2), np.nan, dtype=np.float32)):
        with pytest.raises(ValueError, match="young"):
            YoungItems(IdMap(["n"]), factors, "0123")


def test_one_factor_by_hand() -> None:
    """Items 1 and 2 with the single factors 1 and 2, no regularization, alpha 3, weights 1 and 2: c = 3 and 6.

    A = (1 + 4) + 2 * 1 + 5 * 4 = 27; b = 3 * 1 + 6 * 2 = 15; x = 15 / 27 = 5/9. Scores 5/9 and 10/9.
    Item 1 gives 3 * 1 * 1 / 27 = 1/9 of item 1's score, item 2 gives 6 * 2 * 1 / 27 = 4/9; twice that for item 2.
    """
    ours = model(np.array([[1], [2]], dtype=np.float32), regularization=0, alpha=3)
    rows, weights = np.array([0, 1], dtype=np.int32), np.array([1, 2], dtype=np.float32)
    assert ours.fold_in(rows, weights) == pytest.approx([5 / 9])
    assert ours.scores(ours.fold_in(rows, weights)) == pytest.approx([5 / 9, 10 / 9])
    assert ours.explain(rows, weights, rows) == pytest.approx(np.array([[1 / 9, 4 / 9], [2 / 9, 8 / 9]]))


def test_a_short_history_by_hand() -> None:
    """Four items along four axes: Y'Y = I, so with regularization 1 a touched axis has A = 2 + (c - 1) = 1 + c, x = c / (1 + c)."""
    ours = model(np.eye(4, dtype=np.float32), regularization=1, alpha=1)
    assert ours.fold_in(np.array([2]), np.array([3.0])) == pytest.approx([0, 0, 3 / 4, 0])
    assert ours.fold_in(np.array([2, 0]), np.array([3.0, 1.0])) == pytest.approx([1 / 2, 0, 3 / 4, 0])


@pytest.mark.parametrize("touched", [3, 30])
def test_contributions_sum_to_the_score(touched: int) -> None:
    random = np.random.default_rng(1)
    ours = model(random.normal(size=(100, 16)).astype(np.float32))
    rows = random.choice(100, touched, replace=False).astype(np.int32)
    weights = random.integers(1, 9, touched).astype(np.float32)
    shares = ours.explain(rows, weights, np.arange(100, dtype=np.int32))
    assert shares.shape == (100, touched)
    assert shares.sum(axis=1) == pytest.approx(ours.scores(ours.fold_in(rows, weights)), abs=1e-5)


def test_a_weight_of_nothing_changes_nothing() -> None:
    ours = model(np.eye(3, dtype=np.float32) + 0.1)
    without = ours.fold_in(np.array([0]), np.array([2.0]))
    assert ours.fold_in(np.array([0, 1]), np.array([2.0, 0.0])) == pytest.approx(without)
    assert ours.fold_in_many(csr_matrix(np.array([[2.0, 0, 0]], dtype=np.float32)))[0] == pytest.approx(without, rel=1e-5)
    assert ours.explain(np.array([0, 1]), np.array([2.0, 0.0]), np.array([2]))[0, 1] == 0


def test_a_model_whose_equation_float32_cannot_invert_still_agrees_with_implicit() -> None:
    random = np.random.default_rng(2)
    factors = random.normal(size=(50, 32)).astype(np.float32) * np.logspace(0, -4, 32, dtype=np.float32)
    ours = model(factors, regularization=1e-5)
    assert ours._inverse is None
    rows, weights = np.array([1, 2, 3], dtype=np.int32), np.ones(3, dtype=np.float32)
    expected = ours.fold_in_many(csr_matrix((weights, rows, [0, 3]), shape=(1, 50)))[0]
    assert ours.scores(ours.fold_in(rows, weights)) == pytest.approx(ours.scores(expected), abs=1e-3)


def test_the_most_similar_item_is_the_one_in_the_same_direction() -> None:
    ours = model(np.array([[1, 0], [5, 1], [0, 3], [-1, 0]], dtype=np.float32))
    rows, cosines = ours.similar(0, 3)
    assert rows.tolist() == [1, 2, 3]
    assert cosines == pytest.approx([5 / 26**0.5, 0, -1])


@pytest.mark.parametrize("factors", [np.zeros((2, 2)), np.zeros((2, 2), dtype=np.float32, order="F"), np.zeros((3, 2), dtype=np.float32)])
def test_arrays_of_another_kind_are_refused_where_they_enter(factors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="item_factors"):
        ALSModel(IdMap(["a", "b"]), factors, regularization=0.1, alpha=1)


@pytest.mark.parametrize(("rows", "weights"), [([0, 1], [1]), ([5], [1]), ([-1], [1]), ([0], [-1]), ([0], [np.nan]), ([0], [np.inf])])
def test_an_impossible_history_is_refused(rows: list[int], weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"rows|weights"):
        model(np.eye(2, dtype=np.float32)).fold_in(np.array(rows), np.array(weights))


def test_a_saved_model_comes_back_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    items, users = random.normal(size=(3, 2)).astype(np.float32), random.normal(size=(2, 2)).astype(np.float32)
    ALSModel(IdMap(["a", "é:%", "c"]), items, IdMap(["u", "v"]), users, regularization=0.5, alpha=7).save(tmp_path)
    serving, training = ALSModel.load(tmp_path), ALSModel.load(tmp_path, users=True)
    assert (serving.item_ids.ids, serving.alpha, serving.regularization) == (["a", "é:%", "c"], 7, 0.5)
    assert (serving.item_factors == items).all()
    assert serving.user_factors is None
    assert training.user_factors is not None
    assert (training.user_factors == users).all()
    assert np.load(tmp_path / "item_factors.npy", allow_pickle=False).shape == (3, 2)


def test_a_damaged_model_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"als\.json"):
        ALSModel.load(tmp_path)
    model(np.eye(2, dtype=np.float32)).save(tmp_path)
    np.save(tmp_path / "item_factors.npy", np.full((2, 2), np.nan, dtype=np.float32))
    with pytest.raises(ModelCorrupt, match=r"item_factors\.npy holds NaN"):
        ALSModel.load(tmp_path)
    np.save(tmp_path / "item_factors.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ModelCorrupt, match=r"item_factors\.npy is no \.npy array"):
        ALSModel.load(tmp_path)
