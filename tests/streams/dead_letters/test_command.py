"""The commands `streams dlq list | show | replay`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core import codec
from core.errors import BadEvent, ConfigurationError
from core.settings import Settings
from store.dead_letters.letters import format_place, parse_place, read
from store.log import client as log
from store.log import dead_letters
from store.log.dead_letters import DeadLetter
from store.log.message import LogMessage
from store.log.producer import Producer
from streams.dead_letters import command
from streams.inspection import views
from testing.process import Child
from tests.streams.dead_letters.world import VALID, write
from tests.support import eventually


def test_a_mistake_of_the_operator_is_one_clear_error(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    log.ensure_topics(settings)
    with pytest.raises(ConfigurationError, match="not of the form topic:partition:offset"):
        parse_place("interactions-17")
    with pytest.raises(ConfigurationError, match="there is no dead letter interactions:0:17"):
        command.show(settings, "interactions:0:17")
    (tmp_path / "edits.jsonl").write_text(
        '{"place": "interactions:0:17", "value": {}}\n{"value": {}}\n'
    )
    with pytest.raises(ConfigurationError, match="line 2 of the edits"):
        command.corrections_of([], [], None, tmp_path / "edits.jsonl")
    with pytest.raises(ConfigurationError, match="'text' is none of str, number, time"):
        command.corrections_of([], ["user_id=text"], None, None)


@pytest.mark.process
def test_a_refused_message_is_listed_corrected_replayed_and_counted(
    broker: object, settings: Settings, redis: Any, spawn: Callable[..., Child]
) -> None:
    """Ingest refuses it, `dlq list` shows it, `dlq replay --set` corrects it, ingest counts it."""
    log.ensure_topics(settings)
    ingest = spawn("streams", "ingest")
    with Producer(settings) as producer:
        producer.raw(
            settings.interactions_topic, b"u1", codec.encode_json({**VALID, "event_type": "veiw"})
        )
    eventually(lambda: read(settings).select(), "the letter arrives")

    def run(*arguments: str) -> str:
        child = spawn("streams", *arguments)
        assert child.wait(60) == 0, child.tail()
        return child.log.read_text()

    place = format_place(read(settings).select()[0].coordinates)
    listed = run("dlq", "list")
    assert "1 dead letters wait" in listed
    assert "unknown_event_type" in listed
    assert '"veiw"' in run("dlq", "show", place)
    assert "replayed" in run(
        "dlq", "replay", "--code", "unknown_event_type", "--set", "event_type=view"
    )
    eventually(lambda: redis.hget("user:u1", "events") == b"1", "the corrected event counts")
    assert len(read(settings).replayed) == 1
    shown = views.user(settings, "u1")
    assert (shown["events"], shown["counts"], shown["engine"], shown["segment"]) == (
        1,
        {"view": 1},
        "content_based",
        "cold",
    )
    assert shown["why"].startswith("1 events; content_based < 5 <= als < 20 <= ensemble")
    assert [event["item_id"] for event in shown["history"]] == ["i1"]
    assert "i1" in run("inspect", "user", "u1")
    eventually(
        lambda: views.item(settings, "i1")["popularity_now"].get("unlabelled", 0) > 0,
        "its popularity, which is written a little later",
    )
    rows = views.partition_positions(settings)
    assert sum(row["redis"] for row in rows if row["topic"] == settings.interactions_topic) == 2
    assert all(row["redis_lag"] == 0 for row in rows)
    assert msgspec.json.decode(run("inspect", "model", "--json"))["live"] is None
    ingest.check()


@pytest.mark.parametrize("partitions", [1, 4])
def test_show_decodes_one_letter_of_thousands(
    broker: object,
    settings: Settings,
    partitions: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No other letter is decoded, and reading stops at the requested one."""
    settings = settings.model_copy(update={"topic_partitions": partitions})
    log.ensure_topics(settings)
    topic = settings.interactions_topic
    error = BadEvent("not_json", "not JSON")
    records = [
        dead_letters.encode(
            LogMessage(topic, offset % 4, offset, 1.8e9, b"u%d" % offset, b"letter %d" % offset),
            error,
        )
        for offset in range(3000)
    ]
    replayed = DeadLetter(
        topic=topic,
        partition=3,
        offset=2999,
        code="not_json",
        reason="not JSON",
        broker_time=1.8e9,
        size=0,
        truncated=False,
        key=b"u9",
        value=b"",
    )
    write(settings, *records, dead_letters.encode_replay(replayed, "t:0:1"))
    with Producer(settings) as producer:
        producer.raw(settings.dlq_topic, b"foreign", b"no letter")
    decoded: list[bytes | None] = []
    decode = dead_letters.decode

    def recording(key: bytes | None, value: bytes | None, headers: Any) -> DeadLetter:
        decoded.append(value)
        return decode(key, value, headers)

    monkeypatch.setattr(dead_letters, "decode", recording)
    for offset in (0, 1501, 2999):
        decoded.clear()
        command.show(settings, f"{topic}:{offset % 4}:{offset}")
        assert f"letter {offset}" in capsys.readouterr().out
        assert decoded == [b"letter %d" % offset]
    with pytest.raises(ConfigurationError, match="there is no dead letter"):
        command.show(settings, f"{topic}:1:2999")
