"""The popularity discount: examples by hand, and the same effect on every fold-in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from core.errors import ModelCorrupt, ModelMissing
from models.als import ALSModel, UserSide
from models.als.confidence import Confidence
from models.id_map import IdMap


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def discounted(items: int = 60, discount: float = 0.4) -> ALSModel:
    random = np.random.default_rng(3)
    factors, users = (random.normal(size=(count, 16)).astype(np.float32) for count in (items, 30))
    return ALSModel(
        IdMap([f"item-{row}" for row in range(items)]),
        factors,
        regularization=0.5,
        alpha=4,
        confidence=Confidence(discount, random.integers(1, 500, items).astype(np.float32)),
        users=UserSide(users.T @ users),
    )


def test_the_relative_confidence_by_hand() -> None:
    """One item has one user, another has four.

    With a discount of 1/2, s = (1 + 4) / (1 + 2) = 5/3, which gives 5/3 and 5/6: the mean of the
    five pairs is 1.
    """
    counts = floats(1, 4)
    assert Confidence(0.5, counts).relative(counts) == pytest.approx([5 / 3, 5 / 6])
    assert Confidence(1, counts).relative(counts) == pytest.approx([5 / 2, 5 / 8])
    assert Confidence(0.5, counts).relative(floats(9, 0)) == pytest.approx([5 / 9, 5 / 3]), (
        "no user counts as one"
    )
    assert Confidence().relative(counts).tolist() == [1, 1]


@pytest.mark.parametrize("discount", [0.1, 0.4, 1.0])
def test_alpha_stays_the_mean_confidence(discount: float) -> None:
    counts = np.random.default_rng(1).zipf(1.5, 500).clip(max=10_000).astype(np.float32)
    relative = Confidence(discount, counts).relative(counts)
    assert np.average(relative, weights=counts) == pytest.approx(1)
    assert (np.diff(relative[np.argsort(counts)]) <= 0).all()


@pytest.mark.parametrize(
    ("discount", "counts"),
    [
        (-0.1, floats(1)),
        (1.1, floats(1)),
        (0.5, None),
        (0.5, floats(0)),
        (0.5, floats(np.inf)),
        (0.5, floats()),
    ],
)
def test_invalid_discounts_and_counts_are_rejected(
    discount: float, counts: np.ndarray | None
) -> None:
    with pytest.raises(ValueError, match=r"discount|item_counts"):
        Confidence(discount, counts)


@pytest.mark.parametrize("history_size", [2, 30])
def test_every_fold_in_of_a_user_discounts_popular_items(history_size: int) -> None:
    """Equal to the fold-in of weights that were discounted before, by `implicit`."""
    model = discounted()
    counts = model.confidence.counts
    assert counts is not None
    random = np.random.default_rng(history_size)
    rows = random.choice(60, history_size, replace=False).astype(np.int32)
    weights = random.integers(1, 9, history_size).astype(np.float32)
    with threadpool_limits(1):
        reference = AlternatingLeastSquares(factors=16, regularization=0.5, alpha=4, num_threads=1)
    reference.item_factors = model.item_factors
    relative = model.confidence.relative(counts)[rows]
    expected = reference.recalculate_user(
        0, csr_matrix((weights * relative, rows, [0, history_size]), shape=(1, 60))
    )
    many = model.fold_in_many(csr_matrix((weights, rows, [0, history_size]), shape=(1, 60)))[0]
    for vector in (model.fold_in(rows, weights), many):
        assert np.linalg.norm(vector - expected) <= 1e-4 * np.linalg.norm(expected)
    shares = model.explain(rows, weights, rows)
    assert shares.sum(axis=1) == pytest.approx(model.scores(many)[rows], abs=1e-4), (
        "contributions add up to the score"
    )


def test_a_new_item_is_discounted_by_its_users_so_far() -> None:
    """The counts of the first test, and a new item with two users, whose factor is 1.

    With alpha 3 each user has c = 3 * 5/3 / sqrt(2). y = 2 c / (gram + 2 (c - 1)) with the gram 5.
    """
    model = ALSModel(
        IdMap(["a", "b"]),
        np.ones((2, 1), np.float32),
        regularization=0,
        alpha=3,
        confidence=Confidence(0.5, floats(1, 4)),
        users=UserSide(np.array([[5]], np.float32)),
    )
    confidence = 5 / 2**0.5
    folded = model.fold_items_in(
        csr_matrix(np.ones((1, 2), np.float32)), np.ones((2, 1), np.float32)
    )
    assert folded == pytest.approx(np.array([[2 * confidence / (5 + 2 * (confidence - 1))]]))


def test_the_digest_changes_with_the_discount() -> None:
    plain, default = discounted(discount=0), discounted()
    assert (
        plain.digest
        == ALSModel(plain.item_ids, plain.item_factors, regularization=0.5, alpha=4).digest
    ), "stored vectors stay valid"
    assert len({plain.digest, default.digest, discounted(discount=0.5).digest}) == 3


def test_a_loaded_model_has_the_same_discount(tmp_path: Path) -> None:
    model = discounted()
    model.save(tmp_path)
    loaded = ALSModel.load(tmp_path)
    assert loaded.digest == model.digest
    assert loaded.fold_in(np.array([3]), floats(1)) == pytest.approx(
        model.fold_in(np.array([3]), floats(1))
    )
    np.save(tmp_path / "item_counts.npy", floats(1, 2))
    with pytest.raises(ModelCorrupt, match="item_counts"):
        ALSModel.load(tmp_path)
    (tmp_path / "item_counts.npy").unlink()
    with pytest.raises(ModelMissing, match=r"item_counts\.npy"):
        ALSModel.load(tmp_path)
