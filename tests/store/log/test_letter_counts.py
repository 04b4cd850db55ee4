"""The page counts the dead letters of the last day by code."""

from __future__ import annotations

import pytest

from core import codec
from core.settings import Settings
from store.log import client as log
from store.log import dead_letters
from store.log.letter_counts import LetterCounts
from tests.streams.dead_letters.world import VALID, letter_of, write


@pytest.mark.usefixtures("broker")
def test_letters_count_once_by_code_and_the_note_of_a_replay_does_not(settings: Settings) -> None:
    log.ensure_topics(settings, [settings.dlq_topic])
    counts = LetterCounts(settings)
    assert counts.refresh() == {}
    record = letter_of(settings, 1, b"not JSON")
    letter = dead_letters.decode(
        record.key, record.value, [(name, str(text).encode()) for name, text in record.headers]
    )
    write(settings, record, dead_letters.encode_replay(letter, "interactions:0:9"))
    assert counts.refresh() == {"not_json": 1}
    write(settings, letter_of(settings, 2, codec.encode_json({**VALID, "event_type": "teleport"})))
    assert counts.refresh() == {"not_json": 1, "unknown_event_type": 1}
    counts.close()
    assert counts.refresh() == {"not_json": 1, "unknown_event_type": 1}, "it goes on"
    counts.close()
