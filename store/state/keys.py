"""Names every key in Redis: `of(client)` has the names for the shard of a client.

docs/redis-keys.md lists type, owner, bound and expiry of each key.
"""

from __future__ import annotations

from typing import Any, final

POPULAR_UNLABELLED = "unlabelled"
"""Name of the popularity of events without a use case."""
HISTORY = ":history"
"""Suffix of `user:{id}` in the key of a history."""


def escape(identifier: str) -> str:
    """The id as part of a key.

    `%` and `:` are percent-encoded, so that no id can name the key of another id.
    """
    if ":" in identifier or "%" in identifier:
        return identifier.replace("%", "%25").replace(":", "%3A")
    return identifier


def unescape(text: str) -> str:
    """The id whose `escape` is `text`."""
    return text.replace("%3A", ":").replace("%25", "%")


def popular(name: str) -> str:
    """As `Keys.popular`, without the prefix of a shard."""
    return f"popular:{name}"


def trending(name: str, length: int, begin: int) -> str:
    """As `Keys.trending`, without the prefix of a shard."""
    return f"trending:{name}:{length}:{begin}"


@final
class Keys:
    """The keys of one shard: with one shard `user:42`, with more `{3}:user:42`.

    The part in braces is the hash tag of the shard: all of its keys are in one slot of a cluster,
    so they may change in one transaction. Shard 0 also has the keys that exist once.
    """

    def __init__(self, shard: int = 0, shards: int = 1) -> None:
        self.shard, self.shards = shard, shards
        self.tag = str(shard)
        """The part of each key that decides its slot."""
        self.prefix = prefix = "" if shards == 1 else f"{{{self.tag}}}:"
        """What all keys of the shard begin with."""

        self.users_deleted = prefix + "users:deleted"
        """HASH: hashed user id -> core.deletions.Place of the user's latest deletion; older
        interactions and profiles are dead.
        """
        self.users_deleted_changes = prefix + "users:deleted:changes"
        """STREAM: the hashed ids of the latest deleted users, about 100,000; the live workers
        follow it.
        """
        self.users_read = prefix + "users:read"
        """ZSET: user -> time of a read (seconds) in the last LIVE_READ_S, for the live workers."""
        self.deletions = prefix + "deletions"
        """HASH: the positions in the topic of deletions, and tokens that change with each deletion.
        Every apply watches it.
        """
        self.halted = prefix + "ingest:halted"
        """HASH: "topic/partition" -> why its state is incomplete. Ingest refuses the partition
        until a rebuild wipes the state.
        """
        self.popularity_removed = prefix + "popularity:removed"
        """HASH: name of a popularity -> the most that the score of one of its items may lack,
        because `streams expire` removed members of low weight.
        """
        self.new_items = prefix + "items:young"
        """ZSET: new item -> time of its latest interaction (seconds); YOUNG_ITEMS members at
        most.
        """

        # once, in shard 0
        self.items = prefix + "items"
        """HASH: item id -> JSON of core.types.Item."""
        self.items_changes = prefix + "items:changes"
        """STREAM: the ids of the latest written or deleted items, about 100,000; readers follow
        it.
        """
        self.items_deleted = prefix + "items:deleted"
        """HASH: hashed item id -> core.deletions.Place of the item's latest deletion; older records
        of the item are dead.
        """
        self.new_item_changes = prefix + "items:young:changes"
        """STREAM: the ids of new items whose factors were written or removed; readers follow it."""
        self.settings = prefix + "ingest:settings"
        """HASH: the settings that shaped the stored numbers."""
        self.running = prefix + "running:ingest"
        """ZSET: ingest process -> expiry of its entry (seconds by the clock of Redis)."""
        self.wipe = prefix + "rebuild:wipe"
        """STRING: exists while a rebuild deletes the keys that are computed from the log."""
        self.model_current = prefix + "model:current"
        """STRING: version of the live bundle, as announced; the pointer file is authoritative."""
        self.experiments = prefix + "experiments"
        """HASH: tag of an experiment -> JSON of core.experiments.Definition."""
        self.retrain_last = prefix + "retrain:last"
        """HASH: the result of the last retrain, or its progress."""

    @property
    def owned(self) -> tuple[str, ...]:
        """Patterns of the keys that are computed from the log and can be computed from it again."""
        return tuple(
            self.prefix + pattern
            for pattern in (
                "user:*",
                "users:*",
                "item:*",
                "items",
                "items:*",
                "popular:*",
                "popularity:removed",
                "trending:*",
                "ingest:*",
                "deletions",
                "experiment:*:events",  # exposures are in no log
                "experiment:*:outcomes",
            )
        )

    def without_prefix(self, key: bytes) -> str:
        """The key as one of an only shard."""
        return key.decode(errors="replace").removeprefix(self.prefix)

    def user_id(self, key: bytes) -> str:
        """The user of a key that `user` or one of the functions below it made."""
        return unescape(key[len(self.prefix) :].decode().split(":", 2)[1])

    def user(self, user_id: str) -> str:
        """HASH: events 17, ev:view 12, first_seen 1732340000."""
        if ":" in user_id or "%" in user_id:  # else without a second call: ingest names every user
            user_id = escape(user_id)
        return f"{self.prefix}user:{user_id}"

    def history(self, user_id: str) -> str:
        """LIST: "1732340000 view startup-9", newest last, in the order of the log."""
        return self.user(user_id) + HISTORY

    def profile(self, user_id: str) -> str:
        """STRING: JSON of core.types.User."""
        return f"{self.prefix}user:{escape(user_id)}:profile"

    def user_als(self, user_id: str) -> str:
        """HASH: version, made_with, as_of 17, vector <f float32>."""
        return f"{self.prefix}user:{escape(user_id)}:als"

    def user_partitions(self, user_id: str) -> str:
        """SET with expiry: partitions with events of the user that murmur2 does not choose."""
        return f"{self.prefix}user:{escape(user_id)}:partitions"

    def user_idle(self, user_id: str) -> str:
        """HASH: the counters of a user who left Redis (store.state.entities.idle_users)."""
        return f"{self.prefix}user:{escape(user_id)}:idle"

    def all_of_user(self, user_id: str) -> tuple[str, ...]:
        """Every key of a user."""
        return (
            self.user(user_id),
            self.history(user_id),
            self.profile(user_id),
            self.user_als(user_id),
            self.user_partitions(user_id),
            self.user_idle(user_id),
        )

    def item_users(self, item_id: str) -> str:
        """ZSET of a new item: user id -> weight of the user's events with it.

        It holds the YOUNG_ITEM_USERS largest weights.
        """
        return f"{self.prefix}item:{escape(item_id)}:users"

    def item_als(self, item_id: str) -> str:
        """HASH of a new item: version, made_with, as_of (number of users), vector <f float32>."""
        return f"{self.prefix}item:{escape(item_id)}:als"

    def popular(self, name: str) -> str:
        """ZSET: item id -> forward-decayed weight, by use case or `unlabelled`."""
        return self.prefix + popular(name)

    def trending(self, name: str, length: int, begin: int) -> str:
        """ZSET with expiry: item id -> weight of the events at [begin, begin + length), in
        seconds since 1970.
        """
        return self.prefix + trending(name, length, begin)

    def experiment_events(self, variant: str) -> str:
        """HASH: ev:view 12, ev:like 5: outcomes of `variant` (blend-3f2a91.half)."""
        return f"{self.prefix}experiment:{variant}:events"

    def experiment_outcomes(self, variant: str) -> str:
        """ZSET: user id -> weight of the user's outcomes of `variant`."""
        return f"{self.prefix}experiment:{variant}:outcomes"

    def experiment_exposed(self, variant: str) -> str:
        """ZSET: user id -> exposures of the user to `variant`."""
        return f"{self.prefix}experiment:{variant}:exposed"

    def position(self, topic: str, partition: int) -> str:
        """HASH: position 182734 (the first offset that is not in the state), topic_id, errors, ...

        store/state/apply/positions.py and transactions.py read its fields.
        """
        return f"{self.prefix}ingest:{topic}:{partition}"

    def layout(self, topic: str) -> str:
        """HASH: partitions 8, since 1732340000.5.

        From `since` on (0: from the log's beginning) producers must use this number of partitions.
        """
        return f"{self.prefix}layout:{topic}"

    def lease(self, name: str) -> str:
        """STRING with expiry: the holder of the lease."""
        return f"{self.prefix}lease:{name}"


ONLY = Keys()
"""The keys where there is one shard."""


def of(client: Any) -> Keys:
    """The keys of the shard to which a client of `store.state.shards` belongs.

    Any other client belongs to the only shard.
    """
    return getattr(client, "shard_keys", ONLY)
