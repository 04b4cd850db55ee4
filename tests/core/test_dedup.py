"""A duplicate is an event whose id stood on an event at most `window` offsets before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.dedup import Dedup


def test_an_id_counts_again_once_the_window_has_passed() -> None:
    dedup = Dedup(window=2)
    events = [("a", 0), ("b", 1), ("a", 2), ("b", 4), ("a", 5)]
    assert [dedup.is_duplicate(*event) for event in events] == [False, False, True, False, False]


@given(
    st.integers(0, 6),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 3)), max_size=60),
)
def test_duplicates_follow_the_definition_across_gaps_of_offsets(
    window: int, steps: list[tuple[str, int]]
) -> None:
    dedup, offset, past = Dedup(window), 0, list[tuple[str, int]]()
    for event_id, step in steps:
        offset += step
        assert dedup.is_duplicate(event_id, offset) == any(
            other == event_id and offset - at <= window for other, at in past
        )
        past.append((event_id, offset))


@given(
    st.integers(0, 6),
    st.lists(
        st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 3)), min_size=1), max_size=20
    ),
)
def test_events_that_are_taken_together_have_no_duplicate_and_are_remembered(
    window: int, batches: list[list[tuple[str, int]]]
) -> None:
    dedup, alone, offset = Dedup(window), Dedup(window), 0
    for batch in batches:
        ids, offsets = [event_id for event_id, _ in batch], list[int]()
        for _, step in batch:
            offset += step
            offsets.append(offset)
        expected = list(map(alone.is_duplicate, ids, offsets))
        if dedup.take_new(ids, offsets):
            assert not any(expected)
        else:
            assert list(map(dedup.is_duplicate, ids, offsets)) == expected


def test_new_events_are_taken_together() -> None:
    """Else ingest would be right, but take more processor time."""
    dedup, batches = Dedup(window=1000), 0
    for first in range(0, 100_000, 50):
        offsets = range(first, first + 50)
        ids = [f"event-{offset}" for offset in offsets]
        if dedup.take_new(ids, offsets):
            batches += 1
        else:  # the batch in which a range of the window ends
            assert not any(map(dedup.is_duplicate, ids, offsets))
    assert batches > 0.94 * 2000
    assert len(dedup) <= 2 * 1001


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=80), st.integers(0, 79))
def test_a_window_read_back_from_the_log_gives_the_same_duplicates(
    ids: list[str], start: int
) -> None:
    whole, later = Dedup(5), Dedup(5)
    for offset, event_id in enumerate(ids):
        answer = whole.is_duplicate(event_id, offset)
        if offset >= start - 5 and later.is_duplicate(event_id, offset) != answer:
            # within the window that only fills the memory, answers may differ
            assert offset < start


def test_memory_is_bounded_by_the_window() -> None:
    dedup = Dedup(window=100)
    for offset in range(10_000):
        dedup.is_duplicate(f"event-{offset}", offset)
    assert len(dedup) <= 2 * 101
