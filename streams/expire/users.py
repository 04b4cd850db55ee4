"""Lets users without an event for USER_IDLE_DAYS leave Redis, and brings back those who returned.

No user leaves before the archive has exactly the events that Redis counts, so that each can be
brought back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import chain, islice
from typing import NamedTuple

import structlog

from core.settings import Settings
from store.state.entities import idle_users
from store.state.entities.idle_users import Counted
from store.state.shards import Shards, users_by_shard
from streams.expire.archived_events import ArchivedEvents

_log = structlog.get_logger(__name__)

_DAY = 86_400.0
_LEAVING = 200_000
"""Users for whom the archive is read once, about 50 MB."""
_RETURNING = 1000
"""Users whose archived events are in memory at once."""


class Moves(NamedTuple):
    """Users who left, who were brought back, and who stay because the archive and Redis differ."""

    left: int = 0
    restored: int = 0
    not_archived: int = 0


def move(settings: Settings, shards: Shards) -> Moves:
    """Bring back the users who returned; with USER_IDLE_DAYS, let idle ones leave.

    Raises StoreError, ArchiveError: what was moved stays moved.
    """
    idle_before = time.time() - settings.user_idle_days * _DAY if settings.user_idle_days else 0.0
    leaving: dict[str, Counted] = {}
    returned: dict[str, int] = {}
    moves = Moves()
    archived = ArchivedEvents(settings, shards)
    for user in chain.from_iterable(map(idle_users.scan, shards)):
        if user.latest < idle_before:
            leaving[user.user_id] = user.counted
        elif user.counted.idle:
            returned[user.user_id] = user.counted.idle
        if len(leaving) == _LEAVING:
            moves = _evict(shards, archived, leaving, moves)
            leaving = {}
    moves = _evict(shards, archived, leaving, moves)
    entries = iter(returned.items())
    while part := dict(islice(entries, _RETURNING)):
        moves = _restore(settings, shards, archived, part, moves)
    if moves.not_archived:
        _log.warning("users_not_archived", users=moves.not_archived)
    return moves


def _evict(
    shards: Shards, archived: ArchivedEvents, leaving: Mapping[str, Counted], moves: Moves
) -> Moves:
    if not leaving:
        return moves
    counts = archived.count(leaving.keys())
    complete = {
        user_id: counted for user_id, counted in leaving.items() if counts[user_id] == counted.all
    }
    missing = len(leaving) - len(complete)
    left = sum(
        idle_users.evict(shards[shard], {user_id: complete[user_id] for user_id in user_ids})
        for shard, user_ids in users_by_shard(complete, len(shards)).items()
    )
    return moves._replace(left=moves.left + left, not_archived=moves.not_archived + missing)


def _restore(
    settings: Settings,
    shards: Shards,
    archived: ArchivedEvents,
    returned: Mapping[str, int],
    moves: Moves,
) -> Moves:
    lines = archived.lines(returned)
    restored = sum(
        idle_users.restore(
            shards.of_user(user_id), user_id, returned[user_id], of_user, settings.history_cap
        )
        for user_id, of_user in lines.items()
    )
    missing = len(returned) - len(lines)
    return moves._replace(
        restored=moves.restored + restored, not_archived=moves.not_archived + missing
    )
