"""The fit learns what a reader sees, repeats itself, and goes on from where it stood."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from core.errors import ConfigurationError, DatasetError
from core.settings import Settings
from tests.training import world
from tests.training.world import row
from training import als
from training.als import Hyperparameters
from training.data.dataset import Interactions

SMALL = Hyperparameters(factors=4, regularization=5.0, alpha=2.0, iterations=10)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(archive_url=str(tmp_path / "archive"))


def test_users_of_even_items_score_even_items_higher(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    model = als.fit(data.interactions(), SMALL, seed=1)
    scores = model.fold_in_many(data.matrix()[data.users.rows(["u0"])])[0] @ model.item_factors.T
    parity = np.array([int(item[1:]) % 2 for item in model.item_ids.ids])
    assert scores[parity == 0].min() > scores[parity == 1].max()


def test_the_same_seed_gives_the_same_model_whatever_the_threads(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    models = [als.fit(data.interactions(), SMALL, seed=1, threads=threads) for threads in (1, 4)]
    np.testing.assert_array_equal(models[0].item_factors, models[1].item_factors)
    other = als.fit(data.interactions(), SMALL, seed=2)
    assert not np.array_equal(models[0].item_factors, other.item_factors)


def test_an_item_without_a_weight_above_zero_is_not_in_the_model(settings: Settings) -> None:
    data = world.built(
        settings,
        [
            *world.parity(partitions=1),
            row(10_000, "u0", "refused", "dismiss"),
            row(10_001, "grump", "i0", "dismiss"),
        ],
    )
    model = als.fit(data.interactions(), SMALL, seed=1)
    assert "refused" in data.items
    assert "refused" not in model.item_ids
    assert model.user_ids is not None
    assert "grump" not in model.user_ids


def test_a_refresh_learns_new_items_in_the_space_of_the_old_ones(settings: Settings) -> None:
    data = world.built(settings, world.parity())
    before = data.interactions(data.item != data.items.row("i2"))
    old = als.fit(before, SMALL, seed=1)
    assert "i2" not in old.item_ids
    two = Hyperparameters(factors=4, regularization=5.0, alpha=2.0, iterations=als.REFRESH_SWEEPS)
    refreshed = als.fit(data.interactions(), two, seed=1, start=old)
    row_of = refreshed.item_ids.row
    closest = [
        refreshed.item_ids.ids[near] for near in refreshed.similar(row_of("i2"), 5)[0].tolist()
    ]
    assert all(int(item[1:]) % 2 == 0 for item in closest)
    moved = [
        float(
            np.dot(old.item_factors[old.item_ids.row(item)], refreshed.item_factors[row_of(item)])
            / np.linalg.norm(old.item_factors[old.item_ids.row(item)])
            / np.linalg.norm(refreshed.item_factors[row_of(item)])
        )
        for item in old.item_ids.ids
    ]
    assert min(moved) > 0.9, "known items stay where they were: it is a refresh, not another fit"


def test_without_weights_above_zero_an_error_says_so(settings: Settings) -> None:
    data = world.built(settings, [row(0, "ann", "a", "dismiss")])
    with pytest.raises(DatasetError, match="no event has a weight above 0"):
        als.fit(data.interactions(), SMALL, seed=1)


def test_hyperparameters_come_from_the_settings_or_from_a_file(
    settings: Settings, tmp_path: Path
) -> None:
    assert als.hyperparameters(settings) == Hyperparameters(
        factors=128, regularization=0.01, alpha=40.0, iterations=20
    )
    (tmp_path / "found.json").write_text(
        json.dumps(
            {"als": {"factors": 64, "alpha": 2, "iterations": 9, "regularization": 3}, "tuned": {}}
        ),
        "utf-8",
    )
    assert als.hyperparameters(settings, tmp_path / "found.json").factors == 64
    for bad in ("{}", "no", '{"als": {"factors": 0}}', '{"als": {"factors": "many"}}'):
        (tmp_path / "bad.json").write_text(bad, "utf-8")
        with pytest.raises(ConfigurationError, match=r"bad\.json holds no ALS hyperparameters"):
            als.hyperparameters(settings, tmp_path / "bad.json")


def test_a_popularity_discount_equals_a_fit_of_discounted_weights(settings: Settings) -> None:
    """And the model knows by how much, to fold in alike."""
    data = world.built(
        settings,
        [
            *world.parity(),
            *(row(20_000 + user, f"u{user}", "i0") for user in range(0, world.USERS, 2)),
        ],
    )
    matrix = data.matrix()
    counts = matrix.getnnz(axis=0)
    assert counts.max() > 2 * counts.min()
    discounted = msgspec.structs.replace(SMALL, popularity_discount=0.5)
    model = als.fit(data.interactions(), discounted, seed=1)
    assert model.confidence.counts is not None
    assert model.confidence.counts.tolist() == counts.tolist()
    scale = counts.sum() / np.sqrt(counts).sum()
    by_hand = matrix.multiply(scale / np.sqrt(counts)).tocsr().astype(np.float32)
    plain = als.fit(Interactions(by_hand, data.users, data.items), SMALL, seed=1)
    np.testing.assert_allclose(model.item_factors, plain.item_factors, rtol=1e-2, atol=2e-4)
    one_sweep = msgspec.structs.replace(discounted, iterations=1)
    refreshed = als.fit(data.interactions(), one_sweep, seed=1, start=model)
    assert refreshed.confidence.counts is not None
    assert refreshed.confidence.counts.tolist() == counts.tolist()
    np.testing.assert_allclose(
        model.fold_in_many(matrix), plain.fold_in_many(by_hand), rtol=1e-2, atol=2e-4
    )
