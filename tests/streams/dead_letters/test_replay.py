"""Dead letters: seen, mended, sent again once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core import codec
from core.deletions import IdHasher, Place
from core.errors import BadEvent, ConfigurationError
from core.settings import Settings
from store.log import client as log
from store.log import dead_letters
from store.log.message import LogMessage
from store.log.producer import Producer
from store.state import connection, keys
from streams import inspect
from streams.dead_letters import command as dlq_command
from streams.dead_letters import letters as dlq
from streams.ingest.deletions import recovery
from testing.process import Child
from tests.support import eventually

GOOD = {
    "event_id": "e1",
    "user_id": "u1",
    "item_id": "i1",
    "event_type": "view",
    "timestamp": 1_790_000_000,
}


def put(
    settings: Settings, offset: int, value: bytes | None, times: int = 1, topic: str | None = None
) -> None:
    """What ingest does with a message that is no event."""
    source = topic or settings.interactions_topic
    try:
        if source == settings.interactions_topic:
            codec.decode_interaction(value, 1_800_000_000.0, settings.use_cases)
        else:
            codec.decode_item(value or b"")
    except BadEvent as error:
        record = dead_letters.encode(
            LogMessage(source, 0, offset, 1_800_000_000.0 + offset, b"u1", value), error
        )
    with Producer(settings) as producer:
        for _ in range(times):
            producer.raw(settings.dlq_topic, record.key, record.value, headers=record.headers)


def events(settings: Settings) -> list[tuple[dict[str, Any], bytes, dict[str, bytes]]]:
    return [(msgspec.json.decode(message.value()), message.key(), dict(message.headers() or ()))
            for message in dlq._all_messages(settings, settings.interactions_topic)]  # fmt: skip


def test_a_letter_keeps_the_original_and_its_coordinates() -> None:
    error = BadEvent("not_json", "what \ud800 is this")
    for value in (b"x", None, b"y" * (dead_letters.MAX_COPY_BYTES + 1)):
        record = dead_letters.encode(LogMessage("t", 3, 17, 12.5, b"key", value), error)
        headers = [
            (name, text.encode() if isinstance(text, str) else text)
            for name, text in record.headers
        ]
        letter = dead_letters.decode(record.key, record.value, headers)
        assert (letter.coordinates, letter.code, letter.broker_time, letter.key) == (
            ("t", 3, 17),
            "not_json",
            12.5,
            b"key",
        )
        assert letter.size == len(value or b"")
        assert letter.truncated == (letter.size > dead_letters.MAX_COPY_BYTES)
        assert letter.value == (
            value and value[: dead_letters.TRUNCATED_BYTES] if letter.truncated else value
        )
    with pytest.raises(BadEvent, match="not a dead letter of Eddyline"):
        dead_letters.decode(None, None, [("topic", b"t")])


def test_a_letter_written_twice_by_a_crashed_ingest_is_one(
    broker: object, settings: Settings
) -> None:
    log.ensure_topics(settings)
    put(settings, 1, b"not JSON", times=2)
    put(settings, 2, codec.encode_json({**GOOD, "event_type": "teleport"}))
    dead = dlq.read(settings)
    assert [letter.code for letter in dead.select()] == ["not_json", "unknown_event_type"]
    assert [letter.offset for letter in dead.select(codes=["not_json"])] == [1]


def test_a_replay_mends_keys_and_marks_and_happens_once(broker: object, settings: Settings) -> None:
    log.ensure_topics(settings)
    put(settings, 1, codec.encode_json({**GOOD, "timestamp": 99_999_999_999}))
    put(settings, 2, b"not JSON")
    put(settings, 3, codec.encode_json({"user_id": "u2", "item_id": "i1", "event_type": "view"}))
    letters = dlq.read(settings).select()
    assert dlq.replay(settings, letters, {"timestamp": 1_790_000_000}, {}, dry_run=True) == {
        "replayed": 2,
        "not_json": 1,
    }
    assert dlq.replay(settings, letters, {"timestamp": 1_790_000_000}, {}) == {
        "replayed": 2,
        "not_json": 1,
    }
    topic = settings.interactions_topic
    found = sorted(events(settings), key=lambda event: event[1])
    assert [(event["event_id"], key, headers) for event, key, headers in found] == [
        ("e1", b"u1", {"replayed_from": f"{topic}:0:1".encode()}),
        (f"replay:{topic}:0:3", b"u2", {"replayed_from": f"{topic}:0:3".encode()}),
    ]
    dead = dlq.read(settings)
    assert [letter.offset for letter in dead.select()] == [2]
    assert len(dead.replayed) == 2
    assert dlq.replay(settings, dead.select(), {}, {(topic, 0, 2): codec.encode_json(GOOD)}) == {
        "replayed": 1
    }
    assert len(events(settings)) == 3
    assert dlq.read(settings).select() == []


def test_an_item_goes_back_to_its_own_topic(broker: object, settings: Settings) -> None:
    log.ensure_topics(settings)
    put(settings, 1, b'{"item_id": "i1"}', topic=settings.items_topic)
    assert dlq.replay(settings, dlq.read(settings).select(), {"item_type": "movie"}, {}) == {
        "replayed": 1
    }
    messages = list(dlq._all_messages(settings, settings.items_topic))
    assert [(message.key(), msgspec.json.decode(message.value())) for message in messages] == [
        (b"i1", {"item_id": "i1", "item_type": "movie"})
    ]


def test_a_cut_letter_is_read_again_from_its_topic(broker: object, settings: Settings) -> None:
    log.ensure_topics(settings)
    huge = codec.encode_json({**GOOD, "context": {"note": "x" * 600_000}})
    places: list[tuple[int, int]] = []
    with Producer(settings) as producer:
        producer.raw(
            settings.interactions_topic,
            b"u1",
            huge,
            on_delivery=lambda _, message: places.append((message.partition(), message.offset())),
        )
    record = dead_letters.encode(
        LogMessage(settings.interactions_topic, *places[0], 1_800_000_000.0, b"u1", huge),
        BadEvent("too_large", "too large"),
    )
    with Producer(settings) as producer:
        producer.raw(settings.dlq_topic, record.key, record.value, headers=record.headers)
    letters = dlq.read(settings).select()
    assert letters[0].truncated
    assert dlq.original(settings, letters[0]) == huge
    assert dlq.replay(settings, letters, {}, {}) == {"too_large": 1}
    assert dlq.replay(settings, letters, {"context": None}, {}) == {"replayed": 1}


def test_mistakes_are_one_line(broker: object, settings: Settings, tmp_path: Path) -> None:
    log.ensure_topics(settings)
    with pytest.raises(ConfigurationError, match="not of the form topic:partition:offset"):
        dlq_command.show(settings, "interactions-17")
    with pytest.raises(ConfigurationError, match="there is no dead letter interactions:0:17"):
        dlq_command.show(settings, "interactions:0:17")
    (tmp_path / "edits.jsonl").write_text(
        '{"place": "interactions:0:17", "value": {}}\n{"value": {}}\n'
    )
    with pytest.raises(ConfigurationError, match="line 2 of the edits"):
        dlq_command.replay(settings, [], [], None, [], tmp_path / "edits.jsonl", False)


@pytest.mark.process
def test_from_a_bad_message_to_a_counted_event(
    broker: object, settings: Settings, redis: Any, spawn: Callable[..., Child]
) -> None:
    """The operator's way: ingest refuses it, `dlq list` shows it, `dlq replay --set` mends it,
    ingest counts it, `inspect` shows that.
    """
    log.ensure_topics(settings)
    ingest = spawn("streams", "ingest")
    with Producer(settings) as producer:
        producer.raw(
            settings.interactions_topic, b"u1", codec.encode_json({**GOOD, "event_type": "veiw"})
        )
    eventually(lambda: dlq.read(settings).select(), "the letter arrives")

    def command(*arguments: str) -> str:
        child = spawn("streams", *arguments)
        assert child.wait(60) == 0, child.tail()
        return child.log.read_text()

    place = ":".join(map(str, dlq.read(settings).select()[0].coordinates))
    listed = command("dlq", "list")
    assert "1 dead letters wait" in listed
    assert "unknown_event_type" in listed
    assert '"veiw"' in command("dlq", "show", place)
    assert "replayed" in command(
        "dlq", "replay", "--code", "unknown_event_type", "--set", "event_type=view"
    )
    eventually(lambda: redis.hget("user:u1", "events") == b"1", "the mended event counts")
    assert len(dlq.read(settings).replayed) == 1
    shown = inspect.user(settings, "u1")
    assert (shown["events"], shown["counts"], shown["engine"], shown["segment"]) == (
        1,
        {"view": 1},
        "content_based",
        "cold",
    )
    assert shown["why"].startswith("1 events; content_based < 5 <= als < 20 <= ensemble")
    assert [event["item_id"] for event in shown["history"]] == ["i1"]
    assert "i1" in command("inspect", "user", "u1")
    eventually(
        lambda: inspect.item(settings, "i1")["popularity_now"].get("unlabelled", 0) > 0,
        "its popularity, which is written a little later",
    )
    rows = inspect.where(settings)
    assert sum(row["redis"] for row in rows if row["topic"] == settings.interactions_topic) == 2
    assert all(row["redis_lag"] == 0 for row in rows)
    assert msgspec.json.decode(command("inspect", "model", "--json"))["live"] is None
    ingest.check()


def test_a_letter_from_before_the_deletion_of_its_user_is_refused(
    broker: object, settings: Settings
) -> None:
    """Sent again it would count as new.

    What the letter itself names counts, and what the mended message names.
    """
    log.ensure_topics(settings)
    bad = {**GOOD, "timestamp": 99_999_999_999}
    put(settings, 1, codec.encode_json(bad))  # of u1, and every letter's key is u1
    item = dead_letters.encode(
        LogMessage(settings.items_topic, 0, 2, 1_800_000_002.0, b"i1", b"not JSON"),
        BadEvent("not_json", "no"),
    )
    own = dead_letters.encode(
        LogMessage(
            settings.interactions_topic,
            0,
            3,
            1_800_000_003.0,
            b"u2",
            codec.encode_json(bad | {"user_id": "u2"}),
        ),
        BadEvent("x", "y"),
    )
    with Producer(settings) as producer:
        for record in (item, own):
            producer.raw(settings.dlq_topic, record.key, record.value, headers=record.headers)
    letters = dlq.read(settings).select()
    assert len(letters) == 3
    fix: dict[str, Any] = {"timestamp": 1_790_000_000}
    edits = {(settings.items_topic, 0, 2): b'{"item_id":"i1","item_type":"startup"}'}
    assert dlq.replay(settings, letters, fix, edits, dry_run=True) == {"replayed": 3}
    far = 1_800_000_100.0  # the letters' times are ahead of the broker's clock
    hasher = IdHasher(settings.deletion_salt)
    with connection.connect(settings) as client:
        recovery.recover(settings, client)
        for kind, key, name in (
            ("user", keys.USERS_DELETED, "u1"),
            ("item", keys.ITEMS_DELETED, "i1"),
        ):
            client.hset(key, hasher(kind, name), Place(far).text())  # type: ignore[arg-type]
    assert dlq.replay(settings, letters, fix, edits, dry_run=True) == {"deleted": 2, "replayed": 1}
    assert dlq.replay(settings, letters, fix | {"user_id": "u3"}, edits, dry_run=True) == {
        "deleted": 2,
        "replayed": 1,
    }, "renamed, still u1's"
    assert dlq.replay(settings, letters, fix | {"user_id": "u1"}, edits) == {"deleted": 3}, (
        "renamed to somebody who was deleted"
    )
    assert events(settings) == []
    assert len(dlq.read(settings).select()) == 3, "they wait on"


@pytest.mark.parametrize("partitions", [1, 4])
def test_show_decodes_one_letter_of_thousands(
    broker: object,
    settings: Settings,
    partitions: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ten megabytes of letters take a fraction of a second: no other letter is decoded, and nothing
    is read past the one sought.
    """
    chosen = settings.model_copy(update={"topic_partitions": partitions})
    log.ensure_topics(chosen)
    error = BadEvent("not_json", "not JSON")
    with Producer(chosen) as producer:
        for offset in range(3000):
            record = dead_letters.encode(
                LogMessage(
                    chosen.interactions_topic,
                    offset % 4,
                    offset,
                    1.8e9,
                    b"u%d" % offset,
                    b"letter %d" % offset,
                ),
                error,
            )
            producer.raw(chosen.dlq_topic, record.key, record.value, headers=record.headers)
        note = dead_letters.note(
            dead_letters.decode(
                b"u9",
                b"",
                [(n, v.encode() if isinstance(v, str) else v) for n, v in record.headers],
            ),
            "t:0:1",
        )
        producer.raw(chosen.dlq_topic, note.key, note.value, headers=note.headers)
        producer.raw(chosen.dlq_topic, b"foreign", b"no letter")
    decoded: list[bytes | None] = []
    original = dead_letters.decode

    def decode(key: bytes | None, value: bytes | None, headers: Any) -> dead_letters.DeadLetter:
        decoded.append(value)
        return original(key, value, headers)

    monkeypatch.setattr(dead_letters, "decode", decode)
    for offset in (0, 1501, 2999):
        decoded.clear()
        dlq_command.show(chosen, f"{chosen.interactions_topic}:{offset % 4}:{offset}")
        assert f"letter {offset}" in capsys.readouterr().out
        assert decoded == [b"letter %d" % offset]
    with pytest.raises(ConfigurationError, match="there is no dead letter"):
        dlq_command.show(chosen, f"{chosen.interactions_topic}:1:2999")
