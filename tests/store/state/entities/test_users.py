"""Checks that the fast parser of histories equals the parser of single lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.state.entities.users import history_event, history_events, history_line

IDS = st.text("ab= é7", min_size=1, max_size=6)
EVENTS = st.tuples(
    st.integers(0, 2_000_000_000),
    st.sampled_from(["view", "like"]),
    st.sampled_from([None, 4.0, 0.5]),
    IDS,
)
PLAIN = st.tuples(
    st.integers(0, 2_000_000_000),
    st.sampled_from(["view", "like"]),
    st.none(),
    st.text("abé7", min_size=1),
)


@given(st.lists(EVENTS, max_size=6) | st.lists(PLAIN, max_size=6))
def test_the_events_of_a_history_are_those_of_its_lines(
    events: list[tuple[int, str, float | None, str]],
) -> None:
    lines = [history_line(*event).encode() for event in events]
    parsed = history_events(lines)
    assert parsed == [history_event(line) for line in lines]
    assert [
        (event.timestamp, event.event_type, event.value, event.item_id) for event in parsed
    ] == events


@pytest.mark.parametrize(
    "lines",
    [
        [b""],
        [b"x"],
        [b"5 view"],
        [b"view 5 startup-1"],
        [b"5 view startup-1", b"6 view"],
        [b"5 view", b"6 view startup 1"],
    ],
)
def test_a_line_that_is_not_an_event_is_an_error(lines: list[bytes]) -> None:
    with pytest.raises(ValueError):
        history_events(lines)
