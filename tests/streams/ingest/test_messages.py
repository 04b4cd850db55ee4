"""Which events of a poll count, and which become dead letters, however many come at once."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from core.settings import Settings
from core.types import Interaction
from store.state.apply.pending import Mark, PendingPopularity
from streams.ingest.messages import Decoder
from tests.streams.ingest import partitions
from tests.streams.ingest.partitions import Message, message

START = 10
BAD = {4, 13}
"""Offsets of messages that are no events."""
REPEATED = {6: "a", 7: "a", 8: "b", 12: "b", 15: "c", 17: "c"}
"""Offset -> id, which another offset has, too."""
DUPLICATES = {12, 17}
"""The duplicates from START on."""


def duplicates() -> float:
    return REGISTRY.get_sample_value("eddyline_ingest_duplicates_total") or 0.0


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 7, 20])
def test_events_from_the_position_on_count_once_and_those_below_it_only_fill_the_window(
    settings: Settings, at_once: int
) -> None:
    """The sizes divide the messages so that a duplicate, a bad message and the position each stand
    at the beginning, in the middle and at the end of what is decoded together.
    """
    sums = PendingPopularity(settings.use_cases, 30.0, Mark())
    partition = partitions.interactions(settings, 0, position=START, popularity=sums)
    messages = [
        Message(partition.topic, 0, offset, b"{")
        if offset in BAD
        else message(partition, offset, REPEATED.get(offset))
        for offset in range(20)
    ]
    before = duplicates()
    decoder = Decoder(settings.model_copy(update={"transaction_events": at_once}))
    answers = list(decoder.interactions(partition, messages))
    expected = [
        REPEATED.get(offset, f"e0-{offset}")
        for offset in range(START, 20)
        if offset not in BAD | DUPLICATES
    ]
    assert [event.interaction.event_id for one in answers for event in one.events] == expected
    assert [len(one.events) for one in answers if len(one.events) > at_once] == []
    assert sum(len(one.dead_letters) for one in answers) == len([at for at in BAD if at >= START])
    assert answers[-1].next == 20
    assert duplicates() - before == len(DUPLICATES)
    # all but the bad ones and the duplicates, offset 7 among them, also below the position
    whole = PendingPopularity(settings.use_cases, 30.0, Mark())
    for offset in sorted({*range(20)} - BAD - DUPLICATES - {7}):
        whole.add(offset, Interaction("", "u", "startup-1", "view", 1.76e9), 1.76e9)
    assert sums.piece(20, whole=True).sums == whole.piece(20, whole=True).sums
