"""The model plane as processes: ingest names who changed, live workers fold them in, whatever dies meanwhile."""

from __future__ import annotations

import pytest
from redis import Redis

from core.settings import Settings
from store import keys, log
from tests.conftest import Spawn
from tests.live.world import event, is_fresh, live_model, publish
from tests.support import eventually


@pytest.mark.process
def test_ten_events_of_a_user_all_reach_the_vector(settings: Settings, redis: Redis, spawn: Spawn, broker: object) -> None:
    log.ensure_topics(settings)
    publish(settings, seed=1)
    children = [spawn("streams", "live"), spawn("streams", "ingest")]
    with log.Producer(settings) as producer:
        for number in range(10):
            producer.interaction(event("ann", f"item-{number}"))
    model = live_model(settings)

    def there() -> bool:
        for child in children:
            child.check()
        return redis.hget(keys.user("ann"), "events") == b"10" and is_fresh(redis, settings, model, "ann")

    eventually(there, "a vector of all ten events")
