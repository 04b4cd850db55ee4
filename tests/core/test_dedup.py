"""A duplicate is an event whose id stood at most `window` offsets before: by hand, and against the
definition.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.dedup import Dedup


def test_an_id_counts_again_once_the_window_has_passed() -> None:
    dedup = Dedup(window=2)
    assert [dedup.seen(*event) for event in [("a", 0), ("b", 1), ("a", 2), ("b", 4), ("a", 5)]] == [
        False,
        False,
        True,
        False,
        False,
    ]


@given(
    st.integers(0, 6),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 3)), max_size=60),
)
def test_it_is_the_definition_whatever_the_gaps(window: int, steps: list[tuple[str, int]]) -> None:
    dedup, offset, past = Dedup(window), 0, list[tuple[str, int]]()
    for event_id, step in steps:
        offset += step
        assert dedup.seen(event_id, offset) == any(
            other == event_id and offset - at <= window for other, at in past
        )
        past.append((event_id, offset))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=80), st.integers(0, 79))
def test_reading_the_window_back_from_the_log_answers_the_same(ids: list[str], start: int) -> None:
    whole, later = Dedup(5), Dedup(5)
    for offset, event_id in enumerate(ids):
        answer = whole.seen(event_id, offset)
        if offset >= start - 5 and later.seen(event_id, offset) != answer:
            # within the window that only fills the memory, answers may differ
            assert offset < start


def test_memory_is_bounded_by_the_window() -> None:
    dedup = Dedup(window=100)
    for offset in range(10_000):
        dedup.seen(f"event-{offset}", offset)
    assert len(dedup._last) <= 2 * 100 + 1000
