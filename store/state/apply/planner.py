"""Plans batches: turns events into the fewest Redis commands that have their effect.

The events of one user in a batch share their commands. The commands are written as text of the
Redis protocol (RESP): as tuples for `pack_command` they take three times as much Python time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import hiredis

from core.experiments import NONE, Experiments
from core.types import Interaction
from core.use_cases import UseCases
from store.state import keys
from store.state.apply.batches import (
    NO_POPULARITY,
    UNKNOWN_DELETIONS,
    Batch,
    Command,
    Event,
    KnownDeletions,
    OffsetRange,
)
from store.state.apply.pending import Mark, Piece
from store.state.entities import experiments, trending
from store.state.entities.users import history_line
from store.state.keys import Keys

_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # its own type says tuples of one

_HINCRBY = "*4\r\n$7\r\nHINCRBY\r\n"
_ZINCRBY = "*4\r\n$7\r\nZINCRBY\r\n"
_HSETNX = "*4\r\n$6\r\nHSETNX\r\n"
_RPUSH_ONE = "*3\r\n$5\r\nRPUSH\r\n"
_EXPIREAT = "*3\r\n$8\r\nEXPIREAT\r\n"
_EVENTS = "$6\r\nevents\r\n"
_FIRST_SEEN = "$10\r\nfirst_seen\r\n"
_ONE = "$1\r\n1\r\n"
_ONE_EVENT = f"{_EVENTS}{_ONE}{_HINCRBY}"
_HISTORY = f"{keys.HISTORY}\r\n"
_HISTORY_BYTES = len(keys.HISTORY)


class _Shard:
    """What the planner knows of a shard."""

    def __init__(self, names: Keys) -> None:
        self.names = names
        self.known: set[str] = set()
        """Users who have a first_seen."""
        self.deletions_version = UNKNOWN_DELETIONS.version

    def forget(self) -> None:
        """Forget the users.

        A new set, not a cleared one: a batch that is not applied yet adds its users to the set
        that it was planned with.
        """
        self.known = set()


class Planner:
    """Plans the batches of one process.

    It remembers users who have a first_seen, so that their batches need no HSETNX.
    """

    def __init__(self, use_cases: UseCases, running: Experiments = NONE, shards: int = 1) -> None:
        """`running`: the experiments whose outcomes are counted. `shards`: REDIS_SHARDS."""
        self._shards = [_Shard(Keys(shard, shards)) for shard in range(shards)]
        self._use_cases, self.running = use_cases, running
        self._type_fields = {name: _bulk("ev:" + name) for name in use_cases.event_types}
        self._one_of_type = {
            name: f"{field}{_ONE}{_RPUSH_ONE}" for name, field in self._type_fields.items()
        }

    def forget(self) -> None:
        """Forget who has a first_seen: Redis may hold less than what was applied so far."""
        for shard in self._shards:
            shard.forget()

    def plan(
        self,
        offsets: OffsetRange,
        events: list[Event],
        deletions: KnownDeletions,
        popularity: Piece = NO_POPULARITY,
    ) -> Batch:
        """The batch that counts `events`, writes a piece of popularity and moves the position."""
        shard = self._shards[offsets.partition % len(self._shards)]
        if deletions.version != shard.deletions_version:  # a deleted user has no first_seen now
            shard.forget()
            shard.deletions_version = deletions.version
        by_user = _by_user(events, deletions)
        names, known, one_of_type = shard.names, shard.known, self._one_of_type
        lines: list[str] = []
        pushes: list[int] = []
        new_users: list[str] = []
        replies = 0
        for user_id, interactions in by_user.items():
            is_new = user_id not in known
            if is_new:
                new_users.append(user_id)
            key = names.user(user_id)
            if is_new or len(interactions) > 1:
                replies += self._user(key, interactions, lines, first=is_new)
            else:  # by far the most: a batch holds few events of a user
                event = interactions[0]
                event_type = event.event_type
                line = history_line(event.timestamp, event_type, event.value, event.item_id)
                size = len(key) if key.isascii() else len(key.encode())
                length = len(line) if line.isascii() else len(line.encode())
                # one text, without a call of _bulk for each argument
                lines.append(
                    f"{_HINCRBY}${size}\r\n{key}\r\n{_ONE_EVENT}${size}\r\n{key}\r\n"
                    f"{one_of_type[event_type]}${size + _HISTORY_BYTES}\r\n{key}{_HISTORY}"
                    f"${length}\r\n{line}\r\n"
                )
                replies += 3
            pushes.append(replies - 1)
        if self.running.all:
            replies += self._outcomes(names, events, deletions, lines)
        replies += _popularity(names.prefix, popularity, lines)
        latest_at = events[-1].broker_time if events else None
        position = names.position(offsets.topic, offsets.partition)
        payload = "".join(lines).encode() + _position(
            position, offsets.next, popularity.mark, latest_at
        )
        return Batch(
            offsets,
            events,
            deletions.version,
            payload,
            replies + 1,
            list(by_user),
            pushes,
            new_users,
            popularity,
            known,
        )

    def restore(self, names: Keys, events: Mapping[str, list[Event]]) -> tuple[bytes, int]:
        """Commands that count `events` (by user) again after the keys of their users were deleted,
        and the number of their replies. The events are those after the deletions; `names`: the keys
        of the users' shard.

        Sums over all users (popularity, events of experiments) still hold them.
        """
        lines: list[str] = []
        replies = 0
        for user_id, user_events in events.items():
            interactions = [event.interaction for event in user_events]
            replies += self._user(names.user(user_id), interactions, lines, first=True)
            outcomes = experiments.outcomes(
                self.running, self._use_cases, user_events, UNKNOWN_DELETIONS
            )
            replies += _user_outcomes(names, outcomes.users, lines)
        return "".join(lines).encode(), replies

    def _user(
        self, key: str, interactions: list[Interaction], lines: list[str], *, first: bool
    ) -> int:
        """Append the commands for the counters of one user, `key`, and the history.

        Returns the number of replies; the last one is the history's new length. `first`: the user
        may have no first_seen yet.
        """
        user, history = _bulk(key), _bulk(key + keys.HISTORY)
        if first:
            seen = _bulk(str(int(interactions[0].timestamp)))
            lines.append(f"{_HSETNX}{user}{_FIRST_SEEN}{seen}")
        counts: dict[str, int] = {}
        for event in interactions:
            counts[event.event_type] = counts.get(event.event_type, 0) + 1
        lines.append(f"{_HINCRBY}{user}{_EVENTS}{_bulk(str(len(interactions)))}")
        for event_type, count in counts.items():
            lines.append(f"{_HINCRBY}{user}{self._type_fields[event_type]}{_bulk(str(count))}")
        lines.append(f"*{2 + len(interactions)}\r\n$5\r\nRPUSH\r\n{history}")
        lines.extend(
            [
                _bulk(history_line(event.timestamp, event.event_type, event.value, event.item_id))
                for event in interactions
            ]
        )
        return 2 + len(counts) + first

    def _outcomes(
        self, names: Keys, events: list[Event], deletions: KnownDeletions, lines: list[str]
    ) -> int:
        """Append what the events add to the variants of experiments whose answers led to them.

        Returns the number of replies.
        """
        outcomes = experiments.outcomes(self.running, self._use_cases, events, deletions)
        for (variant, event_type), count in outcomes.events.items():
            variant_key = _bulk(names.experiment_events(variant))
            lines.append(
                f"{_HINCRBY}{variant_key}{self._type_fields[event_type]}{_bulk(str(count))}"
            )
        return len(outcomes.events) + _user_outcomes(names, outcomes.users, lines)


def _by_user(events: list[Event], deletions: KnownDeletions) -> dict[str, list[Interaction]]:
    """The interactions that count, by user, in the order of each user's first one."""
    if deletions.times:
        events = [event for event in events if not deletions.cover(event)]
    by_user: dict[str, list[Interaction]] = {}
    for event in events:
        interaction = event.interaction
        interactions = by_user.get(interaction.user_id)
        if interactions is None:
            by_user[interaction.user_id] = [interaction]
        else:
            interactions.append(interaction)
    return by_user


def _user_outcomes(names: Keys, weights: Mapping[tuple[str, str], float], lines: list[str]) -> int:
    """Append what is added to the outcomes of users, by (variant, user). Returns the number of
    replies.
    """
    for (variant, user_id), weight in weights.items():
        variant_key = _bulk(names.experiment_outcomes(variant))
        lines.append(f"{_ZINCRBY}{variant_key}{_bulk(repr(weight))}{_bulk(user_id)}")
    return len(weights)


def _popularity(prefix: str, piece: Piece, lines: list[str]) -> int:
    """Append a piece of popularity and trending; each bucket gets its expiry. Returns the number of
    replies.
    """
    bulks: dict[str, str] = {}
    scores: dict[float, str] = {}  # few different ones: most are small sums of the same weights
    for (key, item_id), score in piece.sums:
        bulk = bulks.get(key)
        if bulk is None:
            bulk = bulks[key] = _bulk(prefix + key)
        amount = scores.get(score)
        if amount is None:
            amount = scores[score] = _bulk(repr(score))
        lines.append(f"{_ZINCRBY}{bulk}{amount}{_bulk(item_id)}")
    expiries = [
        (bulk, expiry)
        for key, bulk in bulks.items()
        if (expiry := trending.expires(key)) is not None
    ]
    lines.extend([f"{_EXPIREAT}{bulk}{_bulk(str(expiry))}" for bulk, expiry in expiries])
    return len(piece.sums) + len(expiries)


def _position(key: str, next_: int, mark: Mark | None, latest_at: float | None) -> bytes:
    """The command that moves the position `key` to `next_`, and the mark of popularity with it.

    `latest_at`: the broker's time of the batch's latest event, by which people see how old the
    state is.
    """
    fields: tuple[str, ...] = ("position", str(next_))
    if latest_at is not None:
        fields += ("latest_at", repr(latest_at))
    if mark is not None:
        fields += ("popularity_first", str(mark.first), "popularity_next", str(mark.next))
        fields += ("popularity_after", " ".join(mark.after))
        fields += ("popularity_default", mark.default or "")
    return _pack(("HSET", key, *fields))


def _bulk(text: str) -> str:
    """One argument of a command as a RESP bulk string; its length counts bytes."""
    return f"${len(text) if text.isascii() else len(text.encode())}\r\n{text}\r\n"
