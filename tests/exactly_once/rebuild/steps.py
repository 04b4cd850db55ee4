"""Steps of the tests of rebuilds."""

from __future__ import annotations

from redis import Redis

from core.settings import Settings
from core.types import Item, User
from store.log.producer import Producer
from store.state import keys, running
from tests.exactly_once.traffic import Traffic


def send(settings: Settings, seed: int, count: int) -> None:
    with Producer(settings) as producer:
        Traffic(settings, seed).burst(producer, count)
        for number in range(12):
            producer.item(
                f"startup:{number}", Item(item_id=f"startup:{number}", item_type="startup")
            )
            producer.user(f"user-{number}", User(user_id=f"user-{number}", interests=["energy"]))


def dump(redis: Redis) -> dict[bytes, bytes | None]:
    """A dump of every key of Redis, without the lease and the list of ingest processes."""
    ignored = (keys.ONLY.lease(running.REBUILD_LEASE).encode(), keys.ONLY.running.encode())
    return {key: redis.dump(key) for key in redis.scan_iter(count=1000) if key not in ignored}  # type: ignore[misc]
