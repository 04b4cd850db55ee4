"""Small bundles with only an ALS part, and checks of the vectors in Redis."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
from redis import Redis

from core.settings import Settings
from core.types import Interaction
from engines import fold
from models import bundle, files
from models.als import ALSModel, UserSide
from models.id_map import IdMap
from models.registry import Registry
from store.log.producer import Producer
from store.state import keys
from store.state.entities import users
from tests.support import Background

ITEMS = 40
FACTORS = 8


def model(seed: int, items: int = ITEMS) -> ALSModel:
    """Random factors; items `item-0`, `item-1`, ..."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(items, FACTORS)).astype(np.float32)
    trained = rng.normal(size=(100, FACTORS)).astype(np.float32)
    return ALSModel(
        IdMap([f"item-{row}" for row in range(items)]),
        factors,
        regularization=0.1,
        alpha=40,
        users=UserSide(trained.T @ trained),
    )


def publish(settings: Settings, seed: int, items: int = ITEMS) -> str:
    """A bundle of `model(seed, items)`, live at once."""

    def write(folder: Path) -> None:
        files.write_json(folder / bundle.CATALOGUE, [])
        (folder / "als").mkdir()
        model(seed, items).save(folder / "als")

    return Registry(settings.models_path).publish(write)


def live_model(settings: Settings) -> ALSModel:
    """The ALS part of the live bundle."""
    registry = Registry(settings.models_path)
    loaded: ALSModel = registry.load_part(registry.current() or "", "als")
    return loaded


def is_fresh(redis: Redis, settings: Settings, loaded: ALSModel, user_id: str) -> bool:
    """Whether a user has a vector of `loaded` that counts all of the user's events.

    Such a vector must be the fold-in of the history. `redis`: a client of the user's shard.
    """
    stored = redis.hgetall(keys.of(redis).user_als(user_id))
    state = users.read(redis, user_id, settings.history_cap)
    made_with = fold.made_with(loaded, settings.use_cases, settings.history_cap)
    if not stored or (stored[b"made_with"].decode(), int(stored[b"as_of"])) != (
        made_with,
        state.events,
    ):
        return False
    expected = fold.vectors(loaded, settings.use_cases, [state.history])[0]
    np.testing.assert_allclose(
        np.frombuffer(stored[b"vector"], dtype="<f4"), expected, rtol=1e-4, atol=1e-5
    )
    return True


def event(user_id: str, item_id: str, number: int = 0) -> Interaction:
    return Interaction(f"{user_id}-{item_id}-{number}", user_id, item_id, "like", time.time())


class EventStream(Background):
    """Sends events of USERS until the block is left.

    The first bundle does not know `item-40` and later.
    """

    USERS = tuple(f"user-{number}" for number in range(30))

    def __init__(self, settings: Settings, seed: int = 1) -> None:
        self._settings, self._random = settings, random.Random(seed)
        super().__init__()

    def run(self, _thread: int) -> None:
        """Send five events at a time."""
        number = 0
        with Producer(self._settings) as producer:
            while not self.ended.wait(0.02):
                for _ in range(5):
                    number += 1
                    user_id = self._random.choice(self.USERS)
                    item_id = f"item-{self._random.randrange(ITEMS + 5)}"
                    producer.interaction(event(user_id, item_id, number))


def send_last_events(settings: Settings, number: int = 0) -> None:
    """Send one more event of every user of an EventStream."""
    with Producer(settings) as producer:
        for user_id in EventStream.USERS:
            producer.interaction(event(user_id, "item-0", -number))


def vector_problem(
    redis: Redis, settings: Settings, models: dict[str, ALSModel], user_id: str
) -> str | None:
    """What is wrong with a user's vector, or None.

    A vector that counts all events must be the fold-in of the history by the model of its version
    in `models`. No vector, and a vector that counts fewer events, are correct.
    """
    pipe = redis.pipeline(transaction=True)
    pipe.hget(keys.ONLY.user(user_id), "events")
    pipe.lrange(keys.ONLY.history(user_id), -settings.history_cap, -1)
    pipe.hgetall(keys.ONLY.user_als(user_id))
    events, lines, stored = pipe.execute()
    if not stored or int(stored[b"as_of"]) < int(events or 0):
        return None
    if int(stored[b"as_of"]) > int(events or 0):
        return f"{user_id}: the vector counts {stored[b'as_of']!r} events, the user has {events!r}"
    loaded = models[stored[b"version"].decode()]
    expected = fold.vectors(
        loaded, settings.use_cases, [[users.history_event(line) for line in lines]]
    )[0]
    vector = np.frombuffer(stored[b"vector"], dtype="<f4")
    if np.allclose(vector, expected, rtol=1e-3, atol=1e-4):
        return None
    return f"{user_id}: {vector} should be {expected}"
