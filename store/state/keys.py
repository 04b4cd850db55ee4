"""Every key in Redis, named by one function each. docs/redis-keys.md has type, owner, bound and
expiry of each.
"""

from __future__ import annotations

ITEMS = "items"
"""HASH: item id -> JSON of core.types.Item."""
ITEMS_CHANGES = "items:changes"
"""STREAM: the id of each item that was written or deleted, the latest 100,000 or so; readers follow
it.
"""
ITEMS_DELETED = "items:deleted"
"""HASH: hashed item id -> core.deletions.Place of the item's latest deletion; older records of the
item are dead.
"""
USERS_DELETED = "users:deleted"
"""HASH: hashed user id -> core.deletions.Place of the user's latest deletion; older interactions
and profiles are dead.
"""
USERS_DELETED_CHANGES = "users:deleted:changes"
"""STREAM: the hashed id of each deleted user, the latest 100,000 or so; the live workers follow it.
"""
DELETIONS = "deletions"
"""HASH: how far Redis has the topic of deletions, and what changes with each deletion; every apply
watches it.
"""
INGEST_SETTINGS = "ingest:settings"
"""HASH: the settings that shaped the stored numbers."""
INGEST_HALTED = "ingest:halted"
"""HASH: "topic/partition" -> why its state is incomplete; ingest refuses the partition until a
rebuild wipes the state.
"""
INGEST_RUNNING = "running:ingest"
"""ZSET: ingest process -> until when its entry counts (seconds by the clock of Redis)."""
WIPE = "rebuild:wipe"
"""STRING: a rebuild is deleting what is made from the log; gone when it is done."""
POPULAR_UNLABELLED = "unlabelled"
"""Name of the popularity of events without a use case."""
MODEL_CURRENT = "model:current"
"""STRING: the promoted bundle's version, as announced; the pointer file is the truth."""
NEW_ITEMS = "items:young"
"""ZSET: item that the live bundle does not know -> when it was last touched (seconds); YOUNG_ITEMS
at most.
"""
NEW_ITEM_CHANGES = "items:young:changes"
"""STREAM: the id of each new item whose factors were written or removed; readers follow it."""
EXPERIMENTS = "experiments"
"""HASH: tag of an experiment -> JSON of store.state.entities.experiments.Definition."""
OWNED = (
    *(
        "user:*",
        "users:*",
        "item:*",
        "items",
        "items:*",
        "popular:*",
        "trending:*",
        "ingest:*",
        "deletions",
    ),
    *("experiment:*:events", "experiment:*:outcomes"),  # exposures are in no log
)
"""Patterns of every key that is made from the log, and can be made from it again."""
RETRAIN_LAST = "retrain:last"
"""HASH: how the last retrain ended, or how far it is."""


HISTORY = ":history"
"""What follows `user:{id}` in the key of a history."""


def escape(identifier: str) -> str:
    """The id as it stands in a key: `%` and `:` percent-encoded, so that no id can name another
    id's key.
    """
    if ":" in identifier or "%" in identifier:
        return identifier.replace("%", "%25").replace(":", "%3A")
    return identifier


def unescape(text: str) -> str:
    """The id whose `escape` is `text`."""
    return text.replace("%3A", ":").replace("%25", "%")


def user(user_id: str) -> str:
    """HASH: events 17, ev:view 12, first_seen 1732340000."""
    return "user:" + escape(user_id)


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
    """SET with expiry: partitions of the interactions topic that events of the user came through
    though murmur2 chooses another.
    """
    return f"user:{escape(user_id)}:partitions"


def all_of_user(user_id: str) -> tuple[str, ...]:
    """Every key that a user has."""
    return (
        user(user_id),
        history(user_id),
        profile(user_id),
        user_als(user_id),
        user_partitions(user_id),
    )


def item_users(item_id: str) -> str:
    """ZSET of a new item: user id -> weight of the user's events with it; the largest
    YOUNG_ITEM_USERS.
    """
    return f"item:{escape(item_id)}:users"


def item_als(item_id: str) -> str:
    """HASH of a new item: version, made_with, as_of (users behind it), vector <f float32>."""
    return f"item:{escape(item_id)}:als"


def popular(name: str) -> str:
    """ZSET: item id -> forward-decayed weight, by use case or `unlabelled`."""
    return "popular:" + name


def trending(name: str, length: int, begin: int) -> str:
    """ZSET with expiry: item id -> weight of the events that happened in the `length` seconds from
    `begin` on (seconds since 1970).
    """
    return f"trending:{name}:{length}:{begin}"


def experiment_events(variant: str) -> str:
    """HASH: ev:view 12, ev:like 5, of the events that answers of `variant` (blend-3f2a91.half) led
    to.
    """
    return f"experiment:{variant}:events"


def experiment_outcomes(variant: str) -> str:
    """ZSET: user id -> weight of the user's events that answers of `variant` led to."""
    return f"experiment:{variant}:outcomes"


def experiment_exposed(variant: str) -> str:
    """ZSET: user id -> answers of `variant` that the user was given."""
    return f"experiment:{variant}:exposed"


def position(topic: str, partition: int) -> str:
    """HASH: position 182734 (the first offset that is not in the state), topic_id, errors
    (store/state/apply/halts.py).
    """
    return f"ingest:{topic}:{partition}"


def layout(topic: str) -> str:
    """HASH: partitions 8, since 1732340000.5 (from when on producers are held to that number; 0:
    from the log's beginning).
    """
    return "layout:" + topic


def lease(name: str) -> str:
    """STRING with expiry: who holds the lease."""
    return "lease:" + name
