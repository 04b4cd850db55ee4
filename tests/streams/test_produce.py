"""`streams produce`: checked here, then in the log, with a token for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.errors import NotSent
from core.settings import Settings
from streams import produce
from streams.dead_letters.letters import _all_messages


def sent(settings: Settings) -> dict[str, dict[str, Any]]:
    messages = _all_messages(settings, settings.interactions_topic)
    return {
        f"{message.topic()}:{message.partition()}:{message.offset()}": msgspec.json.decode(
            message.value()
        )
        for message in messages
    }


def test_one_event_from_words(
    broker: object, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        produce.run(
            settings,
            None,
            ["user_id=42", "item_id=9", "event_type=rating", "value=4.5", 'context={"page": 1}'],
        )
        == 1
    )
    token = capsys.readouterr().out.strip()
    event = sent(settings)[token]
    assert (event["user_id"], event["item_id"], event["value"], event["context"]) == (
        "42",
        "9",
        4.5,
        {"page": 1},
    )
    assert event["event_id"]
    assert event["timestamp"] > 1.7e9


def test_lines_of_which_some_are_wrong(
    broker: object, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.jsonl"
    good = (
        b'{"event_id": "e%d", "user_id": "u", "item_id": "i", "event_type": "view", '
        b'"timestamp": 1790000000}\n'
    )
    path.write_bytes(
        good % 1
        + b"\nnot JSON\n"
        + good % 2
        + b'{"user_id": "u", "item_id": "i", "event_type": "teleport"}\n'
    )
    with pytest.raises(
        NotSent, match=r"2 of 4 lines are no valid event and were not sent; line 2: not_json"
    ):
        produce.run(settings, path, [])
    tokens = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(settings.interactions_topic)
    ]
    found = sent(settings)
    assert [found[token]["event_id"] for token in tokens] == ["e1", "e2"]
    assert len(found) == 2
