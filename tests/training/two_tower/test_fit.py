"""A fit learns which item comes next, and numpy serves what torch trained."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from core.errors import DatasetError
from core.types import Item
from models.two_tower import ages
from tests.training.two_tower.world import (
    DAY,
    ONE_THREAD,
    RING,
    SEED,
    SMALL,
    correct_next_items,
    fit,
    items,
    next_item,
    ring,
    ring_inputs,
    steps_along_the_ring,
    table,
    training_data,
)
from training.two_tower import fit as two_tower
from training.two_tower.network import Towers

OUT_OF_TIME = replace(ONE_THREAD, seconds=0.0)


def test_a_fit_learns_which_item_comes_next() -> None:
    assert correct_next_items(fit(ring(), items()).model) >= RING - 2


def test_a_fit_with_sampled_candidates_learns_which_item_comes_next() -> None:
    sampled = msgspec.structs.replace(SMALL, candidates=8)
    assert correct_next_items(fit(ring(), hyperparameters=sampled).model) >= RING - 2


def test_numpy_serves_the_vectors_that_torch_computes() -> None:
    """Within 1e-4, for full and short histories, with interests and a role."""
    sequences, content, facts = ring_inputs()
    torch.manual_seed(3)
    towers = Towers(facts, content.features, 0.3).eval()
    with torch.no_grad():
        for name, parameter in towers.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if "norm" not in name else 1.0))
    model = two_tower.serving_model(facts, sequences.items, content, towers.export())
    rng = np.random.default_rng(0)
    interests = model.vocabulary.profile_from_interests(["low"])
    for n in (0, 1, 3, 6):
        rows, times = (
            rng.integers(0, RING, n),
            np.sort(rng.integers(0, 5, n)) * 10.0 ** rng.integers(0, 7, n),
        )
        before = rng.integers(0, RING, 9 if n == 6 else 0)
        batch_ages = torch.from_numpy(ages(times)[None])
        with torch.no_grad():
            vectors = towers.item_vectors(torch.from_numpy(rows))[None]
            types = torch.zeros(1, n, dtype=torch.int64)
            profile = torch.from_numpy((interests @ content.axes)[None])
            older = (
                towers.item_vectors(torch.from_numpy(before)).mean(0, keepdim=True)
                if n == 6
                else torch.zeros(1, 16)
            )
            expected = towers.users(vectors, types, batch_ages, profile, torch.ones(1, 1), older)[
                0, -1
            ].numpy()
        profile_vector = model.profile_vector(["low"], ["developer"]) + model.older_part(
            model.item_vectors[before]
        )
        served = model.user_vector(
            model.item_vectors[rows], np.zeros(n, np.int64), times, profile_vector
        )
        np.testing.assert_allclose(served, expected, atol=1e-4)
    np.testing.assert_allclose(
        model.item_vectors, towers.item_vectors(torch.arange(RING)).detach().numpy(), atol=1e-5
    )


def test_items_without_events_get_vectors_from_their_categories() -> None:
    model = fit(ring(), items()).model
    low, high = model.content_vectors(
        [Item(item_id=name, item_type="startup", categories=[name]) for name in ("low", "high")]
    )
    assert low.any()
    assert not np.allclose(low, high, atol=1e-3)
    assert not model.content_vectors(
        [Item(item_id="x", item_type="startup", categories=["unknown"])]
    ).any()


def test_a_refresh_keeps_what_the_fit_learned_and_adds_items_that_came_later() -> None:
    later = table(
        [
            *steps_along_the_ring(),
            *(
                (f"n{user}", item, "like", 1e9 + DAY)
                for user in range(20)
                for item in ("i0", "new")
            ),
        ]
    )
    fitted = fit(ring(), items())
    data = training_data(later, items())
    refreshed = two_tower.refresh(fitted, data, SMALL, SEED, ONE_THREAD).model
    assert set(refreshed.item_ids.ids) == {*fitted.model.item_ids.ids, "new"}
    old_items = refreshed.item_vectors[refreshed.item_ids.rows(fitted.model.item_ids.ids)]
    assert 0 < float(np.abs(old_items - fitted.model.item_vectors).max()) < 0.5
    assert correct_next_items(refreshed) >= RING - 4


def test_an_epoch_without_a_finite_loss_is_not_in_the_curve() -> None:
    assert fit(ring(24), options=OUT_OF_TIME).curve == []
    diverging = msgspec.structs.replace(SMALL, epochs=3, learning_rate=1e30)
    curve = fit(ring(24), hyperparameters=diverging).curve
    assert all(np.isfinite(row["loss"]) for row in curve), "a report cannot draw it"


def test_a_fit_that_runs_out_of_time_returns_a_model_that_serves() -> None:
    assert 0 <= next_item(fit(ring(), items(), options=OUT_OF_TIME).model, 1, 2) < RING


def test_events_of_weight_zero_alone_raise_an_error() -> None:
    with pytest.raises(DatasetError, match="nothing to learn"):
        fit(table([("u", "i", "dismiss", 1.0)]))
