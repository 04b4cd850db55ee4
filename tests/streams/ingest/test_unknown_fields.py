"""A producer's field that the contract does not have is ignored, but not without a word."""

from __future__ import annotations

import pytest
import structlog
from prometheus_client import REGISTRY

from core.codec import encode_json
from core.settings import Settings
from core.types import Interaction
from streams.ingest.messages import Decoder
from streams.unknown_fields import MOST_NAMES, SAMPLED
from tests.streams.ingest import partitions
from tests.streams.ingest.partitions import Message

EVENT = {
    "user_id": "u",
    "item_id": "i",
    "event_type": "view",
    "timestamp": 1.76e9,
}


def counted(topic: str, field: str) -> float:
    labels = {"topic": topic, "field": field}
    return REGISTRY.get_sample_value("eddyline_ingest_unknown_fields_total", labels) or 0.0


def read(decoder: Decoder, settings: Settings, events: list[dict[str, object]]) -> int:
    """Decode one batch; answers how many events count."""
    partition = partitions.interactions(settings, 0)
    topic = partition.topic
    messages = [
        Message(topic, 0, offset, encode_json({"event_id": f"e{offset}", **EVENT, **event}))
        for offset, event in enumerate(events)
    ]
    return sum(len(batch.events) for batch in decoder.interactions(partition, messages))


def test_a_misspelt_field_counts_and_is_logged_once_with_the_nearest_known_one(
    settings: Settings,
) -> None:
    decoder, topic = Decoder(settings), settings.interactions_topic
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert read(decoder, settings, [{"usecase": "x", "recomendation_id": "y"}, {}]) == 2
    assert (counted(topic, "usecase"), counted(topic, "recomendation_id")) == (3, 3)
    named = {log["field"]: log["nearest"] for log in logs if log["event"] == "unknown_field"}
    assert named == {"usecase": "use_case", "recomendation_id": "recommendation_id"}
    assert sum(log["event"] == "unknown_field" for log in logs) == 2


def test_one_message_in_a_hundred_is_looked_at(settings: Settings) -> None:
    read(Decoder(settings), settings, [{"colour": "red"}] * (2 * SAMPLED + 1))
    assert counted(settings.interactions_topic, "colour") == 3


def test_many_names_are_counted_as_other(settings: Settings) -> None:
    names = {f"x{number}": 1 for number in range(MOST_NAMES + 5)}
    decoder = Decoder(settings)
    with structlog.testing.capture_logs() as logs:
        read(decoder, settings, [names])
        read(decoder, settings, [names])
    topic = settings.interactions_topic
    assert counted(topic, "x0") == 2
    assert counted(topic, f"x{MOST_NAMES}") == 0
    assert counted(topic, "other") == 10
    assert sum(log["event"] == "unknown_field" for log in logs) == MOST_NAMES


@pytest.mark.parametrize("event", [{"event_type": "unheard_of", "colour": "red"}, {}])
def test_dead_letters_and_events_of_the_contract_do_not_count(
    settings: Settings, event: dict[str, object]
) -> None:
    full = {name: None for name in Interaction.__struct_fields__ if name in ("value", "context")}
    with structlog.testing.capture_logs() as logs:
        read(Decoder(settings), settings, [full | event])
    assert counted(settings.interactions_topic, "colour") == 0
    assert not [log for log in logs if log["event"] == "unknown_field"]


def test_fields_of_items_and_users_count_by_topic(settings: Settings) -> None:
    decoder = Decoder(settings)
    item = encode_json({"item_id": "u", "item_type": "t", "titel": "x"})
    user = encode_json({"user_id": "u", "intrests": ["x"]})
    with structlog.testing.capture_logs() as logs:
        for partition, value in (
            (partitions.items(settings), item),
            (partitions.users(settings), user),
        ):
            messages = [Message(partition.topic, 0, 0, value)]
            assert [len(batch.entries) for batch in decoder.entries(partition, messages)] == [1]
    assert counted(settings.items_topic, "titel") == 1
    assert counted(settings.users_topic, "intrests") == 1
    nearest = [log["nearest"] for log in logs if log["event"] == "unknown_field"]
    assert nearest == ["title", "interests"]
