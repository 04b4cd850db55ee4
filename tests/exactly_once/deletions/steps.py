"""Steps of the tests of deletions."""

from __future__ import annotations

import time
import uuid

from redis import Redis

from core.experiments import recommendation_id
from core.settings import Settings
from core.types import Interaction, Item, User
from store.log.producer import Producer
from store.state.entities import catalogue


def publish(producer: Producer, *names: str) -> None:
    """Publish a profile and an item of each name."""
    for name in names:
        producer.user(name, User(user_id=name, interests=["energy"]))
        producer.item(name, Item(item_id=name, item_type="startup"))


def delete(producer: Producer, *names: str) -> None:
    """Delete the user and the item of each name, and wait for the acknowledgement."""
    for name in names:
        producer.user(name, None)
        producer.item(name, None)
    producer.flush()
    time.sleep(0.002)  # the broker's time has milliseconds: the next record is later


def view(settings: Settings, user_id: str, event_id: str | None = None) -> Interaction:
    """An event after an answer of an experiment."""
    answer = recommendation_id(settings.experiments.assign(user_id, None))
    return Interaction(
        event_id or uuid.uuid4().hex,
        user_id,
        "startup-1",
        "view",
        time.time(),
        recommendation_id=answer,
    )


def act(producer: Producer, settings: Settings, *users_: str, count: int = 5) -> None:
    """Publish `count` events of each user, and wait for the acknowledgement."""
    for user_id in users_:
        for _ in range(count):
            producer.interaction(view(settings, user_id))
    producer.flush()
    time.sleep(0.002)  # the broker's time has milliseconds: the next record is later


def stored_ids(redis: Redis) -> tuple[set[str], set[str]]:
    """The users with a profile, and the items, in Redis."""
    profiles = {key.decode().split(":")[1] for key in redis.keys("user:*:profile")}
    return profiles, {item.item_id for item in catalogue.changes(redis).items}
