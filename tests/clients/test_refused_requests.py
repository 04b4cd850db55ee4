"""`EventProducer` sends events again that a broker has refused."""

from __future__ import annotations

import pytest

from core.settings import Settings
from eddyline_client import Event, EventProducer
from store.log.client import ensure_topics
from testing.apache import KafkaBroker
from tests.clients.kafka import count
from tests.store.log.refusing_proxy import RefusingProxy
from tests.support import eventually


@pytest.mark.apache
def test_an_accepted_event_is_in_the_log_after_the_broker_refused_the_first(
    settings: Settings, broker: KafkaBroker
) -> None:
    """As a broker does that does not lead a new partition yet."""
    ensure_topics(settings)
    topic = settings.interactions_topic
    events = [Event(user_id="42", item_id=str(item), event_type="like") for item in range(5)]
    with (
        RefusingProxy(broker.port) as proxy,
        EventProducer(proxy.address, interactions_topic=topic) as publisher,
    ):
        publisher.send(events[0])
        eventually(proxy.has_request.is_set, "the first event is under way")
        publisher.send(*events[1:])
        publisher.flush()
    assert proxy.has_refused.is_set()
    assert count(settings, topic) == len(events)
