"""A search holds out the last item of each user, or a drawn one if events have no order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from core.errors import DatasetError
from core.settings import Settings
from training.data import dataset, events, validation
from training.data.dataset import Dataset


def of(*rows: tuple[str, str, float | None]) -> Dataset:
    """Likes of (user, item, time), in this order."""
    columns = [
        {"user_id": user, "item_id": item, "event_type": "like", "timestamp": time}
        for user, item, time in rows
    ]
    named = [{name: column.get(name) for name in events.COLUMNS} for column in columns]
    return dataset.build(
        [pa.Table.from_pylist(named).select(events.SCHEMA.names).cast(events.SCHEMA)],
        Settings().use_cases,
    )


def held_out(data: Dataset, seed: int = 1) -> dict[str, str]:
    split = validation.leave_one_out(data, seed)
    assert split.user_items.nnz == data.matrix().nnz - len(split.users)
    return {
        data.users.ids[user]: data.items.ids[item]
        for user, item in zip(split.users.tolist(), split.items.tolist(), strict=True)
    }


def test_the_last_item_of_every_user_with_two_items_is_held_out() -> None:
    data = of(("a", "x", 1.0), ("b", "x", 2.0), ("a", "y", 3.0), ("a", "z", 4.0))
    assert held_out(data) == {"a": "z"}
    assert validation.leave_one_out(data, 1).ordered


def test_all_events_of_a_held_out_item_are_removed() -> None:
    assert held_out(of(("a", "z", 1.0), ("a", "y", 2.0), ("a", "z", 3.0))) == {"a": "z"}


def test_without_times_the_held_out_item_is_drawn() -> None:
    """A hundred users with the same ten items, written in the order of the ids: the last row would
    always hold out the same item.
    """
    data = of(*((f"u{user}", f"i{item}", None) for user in range(100) for item in range(10)))
    assert not validation.leave_one_out(data, 1).ordered
    by_user = held_out(data)
    assert len(by_user) == 100
    counts = np.unique(list(by_user.values()), return_counts=True)[1]
    assert len(counts) == 10, "every item is drawn by some user"
    assert counts.max() < 30, "by chance once in a million"
    assert held_out(data) == by_user, "the same seed draws the same"
    assert held_out(data, seed=2) != by_user


def test_an_error_says_that_no_user_has_two_items() -> None:
    with pytest.raises(DatasetError, match="collect more events"):
        validation.leave_one_out(of(("a", "x", 1.0), ("b", "y", None)), 1)
