"""Recognises the forms in which clients and connectors wrap an event.

The framing of a schema registry is removed: behind it, a JSON Schema serialiser writes plain JSON.
Every other form has a code of its own, and a reason that says how to publish the event itself.
"""

from __future__ import annotations

from typing import Any

import msgspec

from core.errors import BadEvent

FRAME_BYTES = 5
"""Bytes before the payload: 0, and the id of the schema."""
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_raws = msgspec.json.Decoder(dict[str, msgspec.Raw])
_CHANGE = {"before", "after", "op"}
"""Fields of a Debezium change event."""


def unwrap(data: bytes) -> bytes:
    """`data` without the framing of a schema registry. Raises BadEvent for any other envelope."""
    if data[:1] == b"\0":
        payload = without_frame(data)
        if payload is data:
            raise BadEvent(
                "schema_registry",
                f"the message has the framing of a schema registry (schema "
                f"{int.from_bytes(data[1:FRAME_BYTES], 'big')}) and no JSON behind it; Avro and "
                f"Protobuf are not read: use the JSON Schema serialiser, or publish plain JSON",
            )
        return payload
    if data.startswith(_BYTE_ORDER_MARKS):
        raise BadEvent(
            "byte_order_mark",
            "the message begins with a byte order mark; publish UTF-8 without one (in Python: "
            "utf-8, not utf-8-sig; in .NET: new UTF8Encoding(false))",
        )
    start = data[:64].lstrip()[:1]
    if start == b"{":
        _refuse_envelope(fields_of(data) or {})
    elif start in (b"[", b'"'):
        _refuse_nested(_json(data))
    return data


def without_frame(data: bytes) -> bytes:
    """The JSON object behind the framing of a schema registry; any other message as it is."""
    is_framed = data[:1] == b"\0" and data[FRAME_BYTES:].lstrip()[:1] == b"{"
    return data[FRAME_BYTES:] if is_framed else data


def fields_of(data: bytes) -> dict[str, msgspec.Raw] | None:
    """The undecoded fields of a JSON object; None for anything else."""
    try:
        return _raws.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _refuse_envelope(fields: dict[str, msgspec.Raw]) -> None:
    payload = bytes(fields.get("payload", b""))[:1]
    if ("user_id" in fields or "item_id" in fields) or not (
        payload in (b"{", b'"') or fields.keys() >= _CHANGE
    ):
        return
    raise BadEvent(
        "connect_envelope",
        "the message is an envelope of Debezium or Kafka Connect (payload, or before and after); "
        "publish the row itself: transforms=unwrap with type "
        "io.debezium.transforms.ExtractNewRecordState, and value.converter.schemas.enable=false",
    )


def _refuse_nested(value: Any) -> None:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        raise BadEvent(
            "event_array",
            f"the message is an array of {len(value)}; publish each as a message of its own, "
            f"with its own key",
        )
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        raise BadEvent(
            "json_in_text",
            "the message is a JSON string that holds JSON: it was encoded twice; encode it once "
            "(such as a StringSerializer of the JSON text, or a JsonSerializer of the object)",
        )


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
