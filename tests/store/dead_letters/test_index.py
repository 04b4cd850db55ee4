"""The index of dead letters keeps the newest ones, and those that the topic still holds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from core.settings import Settings
from store.dead_letters import index
from store.dead_letters.index import LetterIndex
from store.log import client as log
from tests.streams.dead_letters.world import letter_of, write
from tests.topics import messages, trim


@pytest.fixture
def letters(broker: object, settings: Settings) -> LetterIndex:
    """The index of an empty topic."""
    log.ensure_topics(settings, [settings.dlq_topic])
    return LetterIndex(settings)


def send(settings: Settings, offsets: Sequence[int]) -> None:
    write(settings, *(letter_of(settings, offset, b"not JSON") for offset in offsets))


def listed(letters: LetterIndex) -> list[int]:
    """The offsets of the letters that wait, newest first, after a refresh."""
    letters.refresh(10.0)
    return [entry.letter.offset for entry in letters.page(100).entries]


def test_the_oldest_letters_leave_when_there_are_too_many(
    settings: Settings, letters: LetterIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "NEWEST", 4)
    monkeypatch.setattr(index, "MOST", 3)
    send(settings, range(1, 4))
    assert listed(letters) == [3, 2, 1]
    send(settings, [4, 5])
    assert listed(letters) == [5, 4, 3]
    assert letters.letter((settings.interactions_topic, 0, 1)) is None


@pytest.mark.apache  # Tansu lists an end that is too low
def test_a_first_refresh_of_a_large_topic_reads_its_newest_records_only(
    settings: Settings, letters: LetterIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(settings, range(1, 6))
    monkeypatch.setattr(index, "NEWEST", 2)
    assert listed(letters) == [5, 4]
    assert letters.complete


@pytest.mark.apache
def test_a_letter_that_retention_removed_is_listed_no_more(
    settings: Settings, letters: LetterIndex
) -> None:
    send(settings, range(1, 4))
    assert listed(letters) == [3, 2, 1]
    second = next(
        message
        for message in messages(settings, settings.dlq_topic)
        if dict(message.headers())["offset"] == b"2"
    )
    trim(settings, settings.dlq_topic, {second.partition(): second.offset()})
    assert listed(letters) == [3, 2]
