"""Applies records of the topics `items` and `users`, values and deletions, to Redis exactly once.

A batch holds the records of one partition at the offsets [first, next). The steps have numbers,
which the crash tests use as names:

1. WATCH the partition's position and the state of the deletions. Read both, and the deletions that
   Redis knows of the ids in the batch.
2. Compare. The batch is stale if the position is not `first` or if the deletions are not complete.
   A record that does not come after the known deletion of its id is dead. A record without value
   that comes after it is a new deletion.
3. Publish new deletions to their own topic and wait until they are acknowledged. They outlive this
   Redis there, and the compaction of `users`.
4. WATCH the counters of the deleted users, which change only when an event of that user is applied.
   For a deleted user who has events, find the applied events that the broker took after the
   deletion (`LaterEvents`): they stay.
5. MULTI; delete every key of a deleted user and count the later events again; write the latest
   values, the deletions and the position; EXEC. Nil: another process changed a watched key. Start
   again at step 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
import redis
import structlog

from core.deletions import KINDS
from core.errors import Stale
from store.state import keys
from store.state.apply import deletions, halts
from store.state.apply.batches import Command, Event
from store.state.apply.entries import (
    Deletion,
    Entry,
    EntryBatch,
    EntryResult,
    LaterEvents,
    Outcome,
    Publish,
    resolve,
)
from store.state.apply.planner import Planner
from store.state.apply.transactions import Transactions
from store.state.connection import named_errors
from store.state.entities import experiments
from store.state.keys import Keys

_log = structlog.get_logger(__name__)
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # its own type says tuples of one

ITEM_CHANGES = 100_000
"""Changes of items that the stream keeps. A reader that falls further behind reads the whole
catalogue again.
"""
_TRIES = 100
"""Attempts when other processes change the watched keys; each takes some milliseconds."""


class EntryApplier:
    """Applies batches of entries over one connection of its own. Not thread-safe."""

    def __init__(
        self,
        client: redis.Redis,
        planner: Planner,
        history_cap: int,
        publish: Publish,
        later: LaterEvents,
        first: redis.Redis | None = None,
    ) -> None:
        """`client`: of the shard of the batches. `planner`: plans the events that are counted
        again. It must not be the planner that plans batches of interactions. `first`: the client
        of shard 0, if that is another one.
        """
        self._first = first or client
        self._client, self._planner, self._cap = client, planner, history_cap
        self._keys = keys.of(client)
        self._publish, self._later = publish, later
        self._connection: Transactions | None = None

    def apply(self, batch: EntryBatch) -> EntryResult:
        """Steps 1 to 5.

        Raises Stale, LogUnavailable: nothing is applied. Raises StoreUnavailable: the outcome is
        unknown. Raises StoreCorrupt.
        """
        what = f"applying {batch.offsets}"
        published: set[Deletion] = set()
        try:
            with named_errors(what):
                for _ in range(_TRIES):
                    result = self._try(batch, what, published)
                    if result is not None:
                        return result
        except BaseException:
            self.close()
            raise
        self.close()
        raise Stale(
            batch.offsets.first, f"{what}: other processes changed the watched keys {_TRIES} times"
        )

    def close(self) -> None:
        """Drop the connection; the next `apply` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _try(self, batch: EntryBatch, what: str, published: set[Deletion]) -> EntryResult | None:
        """Steps 1 to 5. None: another process changed a watched key.

        `published`: the deletions that an earlier attempt has published; this one adds to them.
        """
        if self._connection is not None and self._connection.pipe.is_old:
            self.close()
        state, outcome = self._open(batch, what)
        if not batch.of_deletions:
            self._publish_new(outcome, published)
        restored = self._restorable(batch, what, outcome)
        commands = self._commands(batch, state, outcome)
        payload, replies = self._planner.restore(self._keys, restored)
        trims: list[Command] = [
            ("LTRIM", self._keys.history(user_id), str(-self._cap), "-1") for user_id in restored
        ]
        packed = b"".join([*map(_pack, commands), payload, *map(_pack, trims)])
        if not self._transact(batch, what, packed, len(commands) + replies + len(trims)):
            return None
        later = sum(len(events) for events in restored.values())
        if outcome.new:
            # a recovery logs the sum of its batches
            level = _log.debug if batch.of_deletions and not later else _log.info
            level(
                "deletions_applied",
                topic=batch.offsets.topic,
                partition=batch.offsets.partition,
                deletions=len(outcome.new),
                later_events=later,
            )
        return EntryResult(len(outcome.new), outcome.dead, later)

    def _open(self, batch: EntryBatch, what: str) -> tuple[deletions.State, Outcome]:
        """Steps 1 and 2. Raises Stale."""
        key, field = batch.position(self._keys)
        digests = {
            kind: list(dict.fromkeys(entry.digest for entry in batch.entries if entry.kind == kind))
            for kind in KINDS
        }
        lookups = [(kind, of_kind) for kind, of_kind in digests.items() if of_kind]
        _, (position,), values, *places = self._read(
            batch,
            what,
            [
                ("WATCH", key, self._keys.deletions),
                ("HMGET", key, field),
                ("HMGET", self._keys.deletions, *deletions.STATE_FIELDS),
                *[
                    ("HMGET", deletions.hash_of(self._keys, kind), *of_kind)
                    for kind, of_kind in lookups
                ],
            ],
        )
        state, offset = deletions.parse_state(values), int(position or 0)
        if offset != batch.offsets.first:
            raise Stale(offset, f"{what}: the position in Redis is {offset}")
        if not state.ready and not batch.of_deletions:
            raise Stale(offset, f"{what}: Redis was emptied, or its deletions are being recovered")
        known = {
            (kind, digest): deletions.parse(deletions.hash_of(self._keys, kind), value)
            for (kind, of_kind), replies in zip(lookups, places, strict=True)
            for digest, value in zip(of_kind, replies, strict=True)
        }
        return state, resolve(batch.entries, known)

    def _publish_new(self, outcome: Outcome, published: set[Deletion]) -> None:
        """Step 3. Raises LogUnavailable."""
        unpublished = [
            deletion
            for (kind, digest), place in outcome.new.items()
            if (deletion := (kind, digest, place)) not in published
        ]
        if unpublished:
            self._publish(unpublished)
            published.update(unpublished)

    def _restorable(self, batch: EntryBatch, what: str, outcome: Outcome) -> dict[str, list[Event]]:
        """Step 4: by user, the applied events that stay."""
        times = outcome.deleted_users()
        if not times:
            return {}
        counters = [self._keys.user(user_id) for user_id in times]
        idle = [self._keys.user_idle(user_id) for user_id in times]  # of users who left Redis
        _, *counts = self._read(
            batch,
            what,
            [
                ("WATCH", *counters, *idle),
                *[("HGET", key, "events") for key in (*counters, *idle)],
            ],
        )
        times = {
            user_id: time
            for number, (user_id, time) in enumerate(times.items())
            if not counts[number] is counts[len(times) + number] is None
        }
        if not times:
            return {}
        partitions = self._later.partitions()
        positions = self._read(
            batch,
            what,
            [("HGET", self._keys.position(*partition), "position") for partition in partitions],
        )
        return self._later.find(times, [int(position or 0) for position in positions])

    def _commands(
        self, batch: EntryBatch, state: deletions.State, outcome: Outcome
    ) -> list[Command]:
        """Step 5, without the events that are counted again."""
        kinds = {kind for kind, _ in outcome.new}
        commands = self._deletion_commands(outcome)
        for entry in outcome.values:
            commands += _value_commands(self._keys, entry)
        commands += [
            ("HSET", self._keys.deletions, deletions.TOKENS[kind], deletions.token())
            for kind in kinds
        ]
        times = [place.time for (kind, _), place in outcome.new.items() if kind == "user"]
        if (newest := max(times, default=state.newest)) > state.newest:
            commands.append(("HSET", self._keys.deletions, "newest", repr(newest)))
        key, field = batch.position(self._keys)
        commands.append(("HSET", key, field, str(batch.offsets.next)))
        return commands

    def _deletion_commands(self, outcome: Outcome) -> list[Command]:
        commands: list[Command] = []
        sets = [self._keys.users_read]
        if any(kind == "user" for kind, _ in outcome.new):
            sets += experiments.sets_of_users(self._first, self._client, self._planner.running)
        for (kind, digest), place in outcome.new.items():
            identifier = outcome.identifiers.get((kind, digest))
            commands.append(("HSET", deletions.hash_of(self._keys, kind), digest, place.text()))
            if kind == "user":
                commands.append(
                    _append(self._keys.users_deleted_changes, deletions.CHANGES, "user", digest)
                )
                if identifier is not None:
                    commands.append(("DEL", *self._keys.all_of_user(identifier)))
                    commands.extend([("ZREM", key, identifier) for key in sets])
            elif identifier is not None:
                commands.append(("HDEL", self._keys.items, identifier))
                commands.append(_item_changed(self._keys, identifier))
        return commands

    def _transact(self, batch: EntryBatch, what: str, commands: bytes, count: int) -> bool:
        """MULTI, `count` packed commands, EXEC. False: nothing is applied.

        Raises StoreCorrupt, StoreMisconfigured.
        """
        replies = cast("Transactions", self._connection).run([batch.offsets], commands, count, what)
        if replies is None:
            return False
        for index, reply in enumerate(replies):
            if isinstance(reply, redis.ResponseError):
                error = halts.partial(what, commands, index, reply)
                halts.note(self._client, [batch.offsets.source], str(error))
                raise error
        return True

    def _read(self, batch: EntryBatch, what: str, commands: Sequence[Command]) -> list[Any]:
        """One reply for each command before MULTI. Raises the error of the first error reply."""
        if self._connection is None:
            self._connection = Transactions(self._client)
        pipe = self._connection.pipe
        pipe.send(b"".join(map(_pack, commands)))
        replies = pipe.receive(len(commands))
        halts.check_opening(self._client, [batch.offsets.source], what, commands, replies)
        return replies


def _value_commands(names: Keys, entry: Entry) -> list[Command]:
    identifier, value = cast("str", entry.identifier), cast("bytes", entry.value)
    if entry.kind == "user":
        return [("SET", names.profile(identifier), value)]
    return [("HSET", names.items, identifier, value), _item_changed(names, identifier)]


def _item_changed(names: Keys, item_id: str) -> Command:
    return _append(names.items_changes, ITEM_CHANGES, "item", item_id)


def _append(stream: str, most: int, field: str, value: str) -> Command:
    """XADD to a stream that keeps about `most` entries."""
    return "XADD", stream, "MAXLEN", "~", str(most), "*", field, value
