"""Training examples: which items are answers, and which windows a fit reads."""

from __future__ import annotations

import numpy as np

from tests.training.two_tower.world import USE_CASES, ring, table
from training.two_tower.samples import MISSING, Sequences


def test_answers_are_the_next_new_items_of_weight_above_zero_without_held_out_ones() -> None:
    data = table(
        [
            ("ada", "b", "like", 2.0),
            ("ada", "a", "view", 1.0),
            ("ada", "a", "like", 3.0),
            ("ada", "no", "dismiss", 4.0),
            ("ada", "c", "like", 5.0),
            ("ada", "untimed", "like", None),
            ("bob", "a", "like", 9.0),
        ]
    )
    sequences = Sequences.of(data, None, USE_CASES)
    names = sequences.items.ids

    def answers(user: int, events: Sequences) -> list[str]:
        batch = events.batch(events.latest(np.array([user]), 50))
        return [names[row] if row != MISSING else "-" for row in batch.answers[0].tolist()]

    assert [names[row] for row in sequences.item[:6].tolist()] == [
        "untimed",
        "a",
        "b",
        "a",
        "no",
        "c",
    ]
    assert answers(0, sequences) == ["untimed", "a", "b", "c", "c", "c", "-"]
    shortened, held_out = sequences.without_last(np.random.default_rng(0), 10)
    assert held_out.users.tolist() == [0]
    assert [names[row] for row in held_out.items.tolist()] == ["c"]
    assert answers(0, shortened) == ["untimed", "a", "b", "-", "-", "-"]
    assert answers(1, shortened) == ["a", "-"]


def test_windows_hold_every_event_but_each_users_last_exactly_once() -> None:
    sequences = Sequences.of(ring(users=7, steps=11), None, USE_CASES)
    windows = sequences.windows(4, np.random.default_rng(1))
    covered = np.concatenate(
        [np.arange(start, end) for start, end in zip(windows.start, windows.end, strict=True)]
    )
    followed = [
        row
        for start, end in zip(sequences.start, sequences.end, strict=True)
        for row in range(start, end - 1)
    ]
    assert sorted(covered.tolist()) == followed
    assert (windows.end - windows.start).max() <= 4
    batched = [
        window
        for batch in windows.batches(12, np.random.default_rng(2))
        for window in batch.start.tolist()
    ]
    assert sorted(batched) == sorted(windows.start.tolist())


def test_shuffling_changes_the_order_of_events_and_leaves_held_out_ones_out() -> None:
    sequences, held_out = Sequences.of(ring(users=7, steps=11), None, USE_CASES).without_last(
        np.random.default_rng(0), 5
    )
    shuffled = sequences.shuffled(np.random.default_rng(1))

    assert (shuffled.item != sequences.item).any()
    for user in range(7):
        rows = slice(sequences.start[user], sequences.end[user])
        assert sorted(shuffled.item[rows]) == sorted(sequences.item[rows])
    assert shuffled.item[sequences.end[held_out.users]].tolist() == held_out.items.tolist()
    batch = shuffled.batch(shuffled.latest(np.arange(7), 50))
    for items_read, answers, size in zip(
        batch.items, batch.answers, batch.sizes.tolist(), strict=True
    ):
        assert answers[:size].tolist() == items_read[:size].tolist(), (
            "every item is new to its user, so the answer is the next event"
        )
        assert answers[size] == MISSING
