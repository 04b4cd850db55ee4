"""Names every key in Redis, with one function or constant each.

docs/redis-keys.md lists type, owner, bound and expiry of each key.
"""

from __future__ import annotations

ITEMS = "items"
"""HASH: item id -> JSON of core.types.Item."""
ITEMS_CHANGES = "items:changes"
"""STREAM: the ids of the latest written or deleted items, about 100,000; readers follow it."""
ITEMS_DELETED = "items:deleted"
"""HASH: hashed item id -> core.deletions.Place of the item's latest deletion; older records of the
item are dead.
"""
USERS_DELETED = "users:deleted"
"""HASH: hashed user id -> core.deletions.Place of the user's latest deletion; older interactions
and profiles are dead.
"""
USERS_DELETED_CHANGES = "users:deleted:changes"
"""STREAM: the hashed ids of the latest deleted users, about 100,000; the live workers follow it."""
USERS_READ = "users:read"
"""ZSET: user -> time of a read (seconds) in the last LIVE_READ_S, for the live workers."""
DELETIONS = "deletions"
"""HASH: the positions in the topic of deletions, and tokens that change with each deletion. Every
apply watches it.
"""
INGEST_SETTINGS = "ingest:settings"
"""HASH: the settings that shaped the stored numbers."""
INGEST_HALTED = "ingest:halted"
"""HASH: "topic/partition" -> why its state is incomplete. Ingest refuses the partition until a
rebuild wipes the state.
"""
INGEST_RUNNING = "running:ingest"
"""ZSET: ingest process -> expiry of its entry (seconds by the clock of Redis)."""
WIPE = "rebuild:wipe"
"""STRING: exists while a rebuild deletes the keys that are computed from the log."""
POPULAR_UNLABELLED = "unlabelled"
"""Name of the popularity of events without a use case."""
POPULARITY_REMOVED = "popularity:removed"
"""HASH: name of a popularity -> the most that the score of one of its items may lack, because
`streams expire` removed members of low weight.
"""
MODEL_CURRENT = "model:current"
"""STRING: version of the live bundle, as announced; the pointer file is authoritative."""
NEW_ITEMS = "items:young"
"""ZSET: new item -> time of its latest interaction (seconds); YOUNG_ITEMS members at most."""
NEW_ITEM_CHANGES = "items:young:changes"
"""STREAM: the ids of new items whose factors were written or removed; readers follow it."""
EXPERIMENTS = "experiments"
"""HASH: tag of an experiment -> JSON of core.experiments.Definition."""
OWNED = (
    *(
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
    ),
    *("experiment:*:events", "experiment:*:outcomes"),  # exposures are in no log
)
"""Patterns of the keys that are computed from the log and can be computed from it again."""
RETRAIN_LAST = "retrain:last"
"""HASH: the result of the last retrain, or its progress."""


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


def user(user_id: str) -> str:
    """HASH: events 17, ev:view 12, first_seen 1732340000."""
    if ":" in user_id or "%" in user_id:  # else without a second call: ingest names every user
        user_id = escape(user_id)
    return "user:" + user_id


def history(user_id: str) -> str:
    """LIST: "1732340000 view startup-9", newest last, in the order of the log."""
    return user(user_id) + HISTORY


def profile(user_id: str) -> str:
    """STRING: JSON of core.types.User."""
    return f"user:{escape(user_id)}:profile"


def user_als(user_id: str) -> str:
    """HASH: version, made_with, as_of 17, vector <f float32>."""
    return f"user:{escape(user_id)}:als"


def user_partitions(user_id: str) -> str:
    """SET with expiry: partitions with events of the user that are not the partition by murmur2."""
    return f"user:{escape(user_id)}:partitions"


def user_idle(user_id: str) -> str:
    """HASH: the counters of a user who left Redis (store.state.entities.idle_users)."""
    return f"user:{escape(user_id)}:idle"


def all_of_user(user_id: str) -> tuple[str, ...]:
    """Every key of a user."""
    return (
        user(user_id),
        history(user_id),
        profile(user_id),
        user_als(user_id),
        user_partitions(user_id),
        user_idle(user_id),
    )


def item_users(item_id: str) -> str:
    """ZSET of a new item: user id -> weight of the user's events with it.

    It holds the YOUNG_ITEM_USERS largest weights.
    """
    return f"item:{escape(item_id)}:users"


def item_als(item_id: str) -> str:
    """HASH of a new item: version, made_with, as_of (number of users), vector <f float32>."""
    return f"item:{escape(item_id)}:als"


def popular(name: str) -> str:
    """ZSET: item id -> forward-decayed weight, by use case or `unlabelled`."""
    return "popular:" + name


def trending(name: str, length: int, begin: int) -> str:
    """ZSET with expiry: item id -> weight of the events that happened in [begin, begin + length).

    In seconds since 1970.
    """
    return f"trending:{name}:{length}:{begin}"


def experiment_events(variant: str) -> str:
    """HASH: ev:view 12, ev:like 5: outcomes of `variant` (blend-3f2a91.half)."""
    return f"experiment:{variant}:events"


def experiment_outcomes(variant: str) -> str:
    """ZSET: user id -> weight of the user's outcomes of `variant`."""
    return f"experiment:{variant}:outcomes"


def experiment_exposed(variant: str) -> str:
    """ZSET: user id -> exposures of the user to `variant`."""
    return f"experiment:{variant}:exposed"


def position(topic: str, partition: int) -> str:
    """HASH: position 182734 (the first offset that is not in the state), topic_id, errors, ...

    store/state/apply/positions.py and transactions.py read its fields.
    """
    return f"ingest:{topic}:{partition}"


def layout(topic: str) -> str:
    """HASH: partitions 8, since 1732340000.5.

    From `since` on (0: from the log's beginning) producers must use this number of partitions.
    """
    return "layout:" + topic


def lease(name: str) -> str:
    """STRING with expiry: the holder of the lease."""
    return "lease:" + name
