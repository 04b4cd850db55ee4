"""Small bundles with nothing but an ALS part, and what a vector in Redis must be."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from redis import Redis

from core.settings import Settings
from core.types import Interaction
from engines import fold
from models import bundle, files
from models.als import ALSModel
from models.id_map import IdMap
from models.registry import Registry
from store import keys, users

ITEMS = 40
FACTORS = 8


def model(seed: int, items: int = ITEMS) -> ALSModel:
    """Random factors; items `item-0`, `item-1`, ..."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(items, FACTORS)).astype(np.float32)
    trained = rng.normal(size=(100, FACTORS)).astype(np.float32)
    return ALSModel(IdMap([f"item-{row}" for row in range(items)]), factors, regularization=0.1, alpha=40, user_gram=trained.T @ trained)


def publish(settings: Settings, seed: int, items: int = ITEMS) -> str:
    """A bundle of `model(seed, items)`, live at once."""

    def write(folder: Path) -> None:
        files.write_json(folder / bundle.CATALOGUE, [])
        (folder / "als").mkdir()
        model(seed, items).save(folder / "als")

    return Registry(settings.models_path).publish(write)


def live_model(settings: Settings) -> ALSModel:
    """That of the live bundle."""
    registry = Registry(settings.models_path)
    loaded: ALSModel = registry.load_part(registry.current() or "", "als")
    return loaded


def is_fresh(redis: Redis, settings: Settings, loaded: ALSModel, user_id: str) -> bool:
    """Whether a user has a vector of `loaded` and of all their events. One that says so must be the fold-in of their history."""
    held = redis.hgetall(keys.user_als(user_id))
    state = users.read(redis, user_id, settings.history_cap)
    here = fold.made_with(loaded, settings.use_cases, settings.history_cap)
    if not held or (held[b"made_with"].decode(), int(held[b"as_of"])) != (here, state.events):
        return False
    expected = fold.vectors(loaded, settings.use_cases, [state.history])[0]
    np.testing.assert_allclose(np.frombuffer(held[b"vector"], dtype="<f4"), expected, rtol=1e-4, atol=1e-5)
    return True


def event(user_id: str, item_id: str, number: int = 0) -> Interaction:
    return Interaction(f"{user_id}-{item_id}-{number}", user_id, item_id, "like", time.time())
