"""`streams produce` checks each event before it sends it, and prints a token for each one sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.errors import NotSent
from core.settings import Settings
from streams import produce
from tests.topics import messages


def events_by_token(settings: Settings) -> dict[str, dict[str, Any]]:
    return {
        f"{message.topic()}:{message.partition()}:{message.offset()}": msgspec.json.decode(
            message.value()
        )
        for message in messages(settings, settings.interactions_topic)
    }


def test_fields_on_the_command_line_become_one_event(
    broker: object, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = ["user_id=42", "item_id=9", "event_type=rating", "value=4.5", 'context={"page": 1}']
    assert produce.run(settings, None, fields) == 1
    output = capsys.readouterr().out.splitlines()
    (token,) = [line for line in output if line.startswith(settings.interactions_topic)]
    event = events_by_token(settings)[token]
    assert (event["user_id"], event["item_id"]) == ("42", "9")
    assert (event["value"], event["context"]) == (4.5, {"page": 1})
    assert event["event_id"]
    assert event["timestamp"] > 1.7e9


def test_invalid_lines_are_counted_and_the_others_are_sent(
    broker: object, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.jsonl"
    valid = (
        b'{"event_id": "e%d", "user_id": "u", "item_id": "i", "event_type": "view", '
        b'"timestamp": 1790000000}\n'
    )
    unknown_type = b'{"user_id": "u", "item_id": "i", "event_type": "teleport"}\n'
    path.write_bytes(valid % 1 + b"\nnot JSON\n" + valid % 2 + unknown_type)
    with pytest.raises(
        NotSent, match=r"2 of 4 lines are no valid event and were not sent; line 2: not_json"
    ):
        produce.run(settings, path, [])
    output = capsys.readouterr().out.splitlines()
    tokens = [line for line in output if line.startswith(settings.interactions_topic)]
    events = events_by_token(settings)
    assert [events[token]["event_id"] for token in tokens] == ["e1", "e2"]
    assert len(events) == 2
