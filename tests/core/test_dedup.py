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
    assert len(dedup) <= 2 * 100 + 1000
