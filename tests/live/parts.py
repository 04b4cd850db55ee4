"""The parts of a live worker without Kafka and without processes."""

from __future__ import annotations

from typing import Any

import pytest

from core.settings import Settings
from store.state import keys
from store.state.apply import deletions, positions
from store.state.entities.users import history_line
from store.state.entities.vectors import LiveStore
from store.state.live_shards import LiveShards
from store.state.shards import Shards
from streams.live.fold import UserFolder
from streams.live.model import Space
from streams.live.new_items import NewItemFolder
from tests.live.world import is_fresh, model
from tests.support import delete_user


def add_likes(client: Any, user_id: str, *item_ids: str, times: int = 1) -> None:
    """Write likes of the items as ingest does. `client`: of the user's shard."""
    names = keys.of(client)
    for item_id in item_ids * times:
        client.hincrby(names.user(user_id), "events", 1)
        client.rpush(names.history(user_id), history_line(1.7e9, "like", None, item_id))


SHARDED = pytest.mark.parametrize("worker", [1, 4], indirect=True, ids=["1-shard", "4-shards"])
"""Runs a test with one shard, and with four. Four have these users: eve | cat | ann, bob."""


class Worker:
    """The parts of a live worker, without Kafka, on the test's Redis."""

    def __init__(self, settings: Settings, seed: int = 1, **overrides: float) -> None:
        """Folds in every user with an event, unless `overrides` sets LIVE_READ_S."""
        self.settings = settings.model_copy(update={"live_read_s": 0.0, **overrides})
        self.clients = Shards(self.settings)
        for client in self.clients:
            deletions.mark_ready(client)
        self.shards = LiveShards(
            self.clients, self.settings.history_cap, self.settings.young_item_users
        )
        self.users = UserFolder(self.settings, self.shards)
        self.new_items = NewItemFolder(self.settings, self.clients, self.shards, self.users)
        self.space = Space(f"version-{seed}", 0.0, model(seed), self.settings)

    def close(self) -> None:
        """Close the connections."""
        self.shards.close()
        self.clients.close()

    def add_likes(self, user_id: str, *item_ids: str, times: int = 1) -> None:
        """Write likes of the items as ingest does."""
        add_likes(self.clients.of_user(user_id), user_id, *item_ids, times=times)

    def store_of(self, user_id: str) -> LiveStore:
        """The store of the user's shard."""
        return self.shards.by_shard([user_id])[0][0]

    def user(self, user_id: str) -> dict[bytes, bytes]:
        """The fields of a user's vector."""
        client = self.clients.of_user(user_id)
        return client.hgetall(keys.of(client).user_als(user_id))  # type: ignore[return-value]

    def item(self, item_id: str) -> dict[bytes, bytes]:
        """The fields of a new item's factors."""
        client = self.clients.first
        return client.hgetall(keys.of(client).item_als(item_id))  # type: ignore[return-value]

    def lists(self, item_id: str) -> list[dict[str, float]]:
        """The users of a new item with their weights, by shard."""
        return [store.item_users([item_id])[0] for store in self.shards]

    def is_fresh(self, user_id: str) -> bool:
        """Whether a user has a vector that counts all of the user's events."""
        client = self.clients.of_user(user_id)
        return is_fresh(client, self.settings, self.space.model, user_id)

    def delete(self, user_id: str, broker_time: float = 1.0) -> None:
        """Delete a user in Redis as ingest does."""
        offset = positions.read(self.clients.of_user(user_id), "u", 0).offset
        delete_user(self.settings, user_id, broker_time, offset)

    def fold(self, *pairs: tuple[str, str]) -> None:
        """Process a hint that names these users and items, without refolding new items."""
        self.new_items.mark_changed(self.users.fold(self.space, pairs))

    def maintain(self) -> None:
        """Check all new items, as the leader does, and refold those that need it."""
        for chunk in self.new_items.chunks_to_check(self.space):
            self.new_items.check(self.space, chunk)
        while self.new_items.has_due():
            self.new_items.refold(self.space)
