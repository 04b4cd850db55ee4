"""Reads and writes what live workers compute, in all shards.

The vector of a user is in the user's shard, and is written there in one transaction
(`store.state.entities.vectors`). A new item has a list of users in every shard that has some, and
an entry in `items:young` of that shard; its users are those of all lists, its time is the latest of
all entries. Its factors are in shard 0, with an entry in `items:young` there.

These rules keep a crash between two shards from leaving something for ever:

- a transaction that writes or deletes a list, or factors, writes or deletes the entry of that
  shard: so nothing is without an entry, and the next check of all new items sees it;
- factors are outdated unless `as_of` is the number of users in all lists, which any user that is
  removed changes;
- items are forgotten shard by shard, their factors (shard 0) first: factors that remained without
  some of their lists could look right again as soon as others had filled the lists. The lists that
  a crash leaves have entries and no factors, so the next check forgets them again or, if the item
  is no longer one too many, computes its factors from them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from core.types import LiveVector
from store.state.connection import Client
from store.state.entities.vectors import READ_USERS, FactorsStatus, LiveStore
from store.state.shards import users_by_shard


class LiveShards:
    """The live stores of all shards, for one thread at a time.

    Every method raises StoreUnavailable or StoreCorrupt; the next call opens another connection.
    """

    def __init__(self, shards: Iterable[Client], history_cap: int, item_users: int) -> None:
        """`item_users`: YOUNG_ITEM_USERS, the most users of an item in one shard."""
        self._stores = [LiveStore(client, history_cap, item_users) for client in shards]

    def __iter__(self) -> Iterator[LiveStore]:
        return iter(self._stores)

    def close(self) -> None:
        """Drop the connections; the next call opens others."""
        for store in self._stores:
            store.close()

    def by_shard(self, user_ids: Sequence[str]) -> list[tuple[LiveStore, Sequence[str]]]:
        """Each shard's store with its users among `user_ids`, in the same order."""
        if len(self._stores) == 1:
            return [(self._stores[0], user_ids)] if user_ids else []
        by_shard = users_by_shard(user_ids, len(self._stores))
        return [(self._stores[shard], of_shard) for shard, of_shard in by_shard.items()]

    def read_at(self, user_ids: Sequence[str]) -> dict[str, float]:
        """When each user was read last, in seconds since 1970; 0 without a note of it."""
        times: dict[str, float] = {}
        for store, of_shard in self.by_shard(user_ids):
            times |= store.read_at(of_shard)
        return times

    def read_since(self, since: float) -> list[str]:
        """The users noted since `since` (seconds since 1970), the latest first.

        READ_USERS at most.
        """
        times: dict[str, float] = {}
        for store in self._stores:
            times |= store.read_since(since)
        return sorted(times, key=times.__getitem__, reverse=True)[:READ_USERS]

    def not_fresh(self, user_ids: Sequence[str], made_with: str) -> list[str]:
        """Those of the users who have no vector of `made_with` that counts all of their events."""
        outdated: set[str] = set()
        for store, of_shard in self.by_shard(user_ids):
            outdated.update(store.not_fresh(of_shard, made_with))
        return [user_id for user_id in user_ids if user_id in outdated]

    def vectors(self, user_ids: Sequence[str], made_with: str) -> dict[str, bytes]:
        """User id -> vector, of the users who have one of the model `made_with`, stale or not."""
        vectors: dict[str, bytes] = {}
        for store, of_shard in self.by_shard(user_ids):
            vectors |= store.vectors(of_shard, made_with)
        return vectors

    def new_items(self) -> list[str]:
        """Every new item, ordered by the time of its latest interaction, oldest first."""
        times: dict[str, float] = {}
        for store in self._stores:
            for item_id, at in store.new_items().items():
                times[item_id] = max(at, times.get(item_id, at))
        return sorted(times, key=times.__getitem__)

    def item_users(self, item_ids: Sequence[str]) -> list[dict[str, float]]:
        """The users of each new item with their weights, up to YOUNG_ITEM_USERS of each shard."""
        users: list[dict[str, float]] = [{} for _ in item_ids]
        for store in self._stores:
            for weights, of_shard in zip(users, store.item_users(item_ids), strict=True):
                weights.update(of_shard)
        return users

    def factors_status(self, item_ids: Sequence[str]) -> list[FactorsStatus]:
        """For each new item, the origin of its factors and the number of users in its lists."""
        first, *others = self._stores
        statuses = first.factors_status(item_ids)
        if not others:
            return statuses
        counts = [store.user_counts(item_ids) for store in others]
        return [
            status._replace(users=status.users + sum(others_users))
            for status, *others_users in zip(statuses, *counts, strict=True)
        ]

    def drop_users(self, item_id: str, user_ids: Collection[str]) -> None:
        """Remove deleted users from the lists of an item."""
        for store, of_shard in self.by_shard(list(user_ids)):
            store.drop_users(item_id, of_shard)

    def write_items(self, factors: Mapping[str, LiveVector]) -> None:
        """Write the factors by item id, and add the items to the stream of changes.

        An item that was forgotten meanwhile becomes a new item again.
        """
        self._stores[0].write_items(factors)

    def forget_items(self, item_ids: Sequence[str]) -> None:
        """Delete the lists and factors of items that are no longer new, or that are too many."""
        for store in self._stores:
            store.forget_items(item_ids)
