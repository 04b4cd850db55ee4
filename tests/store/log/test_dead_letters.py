"""A dead-letter record carries the refused message, its coordinates and the reason."""

from __future__ import annotations

import pytest

from core.errors import BadEvent
from store.log import dead_letters
from store.log.message import LogMessage


@pytest.mark.parametrize(
    "value", [b"x", None, b"y" * (dead_letters.MAX_COPY_BYTES + 1)], ids=["short", "empty", "long"]
)
def test_a_record_keeps_the_message_and_its_coordinates(value: bytes | None) -> None:
    error = BadEvent("not_json", "what \ud800 is this")
    record = dead_letters.encode(LogMessage("t", 3, 17, 12.5, b"key", value), error)
    headers = [
        (name, text.encode() if isinstance(text, str) else text) for name, text in record.headers
    ]
    letter = dead_letters.decode(record.key, record.value, headers)
    assert letter.coordinates == ("t", 3, 17)
    assert (letter.code, letter.broker_time, letter.key) == ("not_json", 12.5, b"key")
    assert letter.size == len(value or b"")
    assert letter.truncated == (letter.size > dead_letters.MAX_COPY_BYTES)
    assert letter.value == (
        value and value[: dead_letters.TRUNCATED_BYTES] if letter.truncated else value
    )


def test_a_record_of_another_producer_is_refused() -> None:
    with pytest.raises(BadEvent, match="not a dead letter of Eddyline"):
        dead_letters.decode(None, None, [("topic", b"t")])
