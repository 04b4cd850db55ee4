"""Runs `python -m streams produce`: checks events and sends them to Kafka.

Prints the token topic:partition:offset of each event.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import structlog

from core import codec
from core.contract import problems
from core.contract.times import parse_iso
from core.contract.tolerance import INTERACTION, ITEM
from core.errors import BadEvent, NotSent
from core.settings import Settings
from store.log.access import permissions
from store.log.producer import Producer

_log = structlog.get_logger(__name__)

IN_FLIGHT = 1000
"""Maximum number of events that are sent and whose tokens are not printed yet."""


def run(settings: Settings, path: Path | None, fields: Sequence[str]) -> int:
    """Send the event made of `fields` (name=value), or each line of `path`.

    `path` None or `-` is standard input. Returns how many events were sent. A line without event_id
    gets a new id, one without timestamp the current time. Raises LogUnavailable. When all valid
    lines were sent, raises NotSent with the first invalid line.
    """
    lines = [_from_fields(fields)] if fields else _lines(path)
    permissions.prepare_to_send(settings, "produce", settings.interactions_topic)
    waiting: deque[Future[str]] = deque()
    sent, invalid, first_error = 0, 0, ""
    with Producer(settings, delivery_timeout_s=settings.kafka_timeout_s) as producer:
        for number, line in enumerate(lines, 1):
            try:
                key, value = checked(settings, line)
            except BadEvent as error:
                invalid += 1
                first_error = first_error or f"line {number}: {error.code}: {error}"
                _log.warning("event_not_sent", line=number, code=error.code, reason=str(error))
                continue
            waiting.append(producer.publish(settings.interactions_topic, key, value))
            sent += 1
            while len(waiting) >= IN_FLIGHT or (waiting and waiting[0].done()):
                _print(waiting.popleft())
        while waiting:
            _print(waiting.popleft())
    if invalid:
        raise NotSent(
            f"{invalid} of {sent + invalid} lines are no valid event and were not sent; "
            f"{first_error}"
        )
    return sent


def checked(settings: Settings, line: bytes) -> tuple[bytes, bytes]:
    """Key and value of the event in `line`; adds an event_id and a timestamp if it has none.

    Raises BadEvent.
    """
    now = time.time()
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadEvent("not_json", problems.in_words(error)) from None
    if isinstance(fields, dict):
        line = codec.encode_json(
            {"event_id": str(uuid.uuid4()), "timestamp": round(now, 3), **fields}
        )
    event = codec.decode_interaction(line, now, settings.use_cases, settings.tolerance)
    return event.user_id.encode(), line


def _print(token: Future[str]) -> None:
    print(token.result())


def _lines(path: Path | None) -> Iterator[bytes]:
    if path is None or str(path) == "-":
        yield from (line for line in sys.stdin.buffer if line.strip())
        return
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.strip())
    except OSError as error:
        raise NotSent(f"{path} cannot be read: {error.strerror}") from None


def _from_fields(fields: Sequence[str]) -> bytes:
    """The JSON event of `user_id=42 value=4.5`. Raises NotSent."""
    event: dict[str, Any] = {}
    for field in fields:
        name, equals, text = field.partition("=")
        if not equals:
            raise NotSent(f"{field!r} is not of the form field=value")
        event[name] = parse_field(name, text)
    return codec.encode_json(event)


def parse_field(name: str, text: str) -> Any:
    """The value of the field `name` that `text` on the command line means.

    It is a number or a JSON object where the event contract says so, else text; a time may be ISO
    8601 text. Raises NotSent.
    """
    if name not in ("timestamp", "created_at", "value", "context", "schema_version"):
        return text
    if name in INTERACTION.times + ITEM.times and (seconds := parse_iso(text)) is not None:
        return seconds
    try:
        return msgspec.json.decode(text.encode())
    except msgspec.DecodeError:
        raise NotSent(
            f"{name}={text} is no JSON {'object' if name == 'context' else 'number'}"
        ) from None
