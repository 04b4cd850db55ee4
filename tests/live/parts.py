"""The parts of a live worker without Kafka and without processes."""

from __future__ import annotations

from redis import Redis

from core.settings import Settings
from store.state import keys
from store.state.connection import connect
from store.state.entities.users import history_line
from store.state.entities.vectors import LiveStore
from streams.live.fold import UserFolder
from streams.live.model import Space
from streams.live.new_items import NewItemFolder
from tests.live.world import model


def add_likes(redis: Redis, user_id: str, *item_ids: str, times: int = 1) -> None:
    """Write likes of the items as ingest does."""
    for item_id in item_ids * times:
        redis.hincrby(keys.ONLY.user(user_id), "events", 1)
        redis.rpush(keys.ONLY.history(user_id), history_line(1.7e9, "like", None, item_id))


class Worker:
    """The parts of a live worker, without Kafka, on the test's Redis."""

    def __init__(self, settings: Settings, seed: int = 1, **overrides: float) -> None:
        """Folds in every user with an event, unless `overrides` sets LIVE_READ_S."""
        self.settings = settings.model_copy(update={"live_read_s": 0.0, **overrides})
        client = connect(self.settings)
        self.store = LiveStore(client, self.settings.history_cap, self.settings.young_item_users)
        self.users = UserFolder(self.settings, self.store)
        self.new_items = NewItemFolder(self.settings, client, self.store, self.users)
        self.space = Space(f"version-{seed}", 0.0, model(seed), self.settings)

    def fold(self, *pairs: tuple[str, str]) -> None:
        """Process a hint that names these users and items, without refolding new items."""
        self.new_items.mark_changed(self.users.fold(self.space, pairs))

    def maintain(self) -> None:
        """Check all new items, as the leader does, and refold those that need it."""
        for chunk in self.new_items.chunks_to_check(self.space):
            self.new_items.check(self.space, chunk)
        while self.new_items.has_due():
            self.new_items.refold(self.space)
