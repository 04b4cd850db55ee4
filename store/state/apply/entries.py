"""Applies records of the topics `items` and `users` to Redis exactly once: what they write, and
what they delete.

A batch holds the records of one partition in [first, next). Its way, numbered:

1. WATCH the partition's position and the state of the deletions; read both, and the deletions known
   of the ids in the batch.
2. Compare: a position other than `first`, or deletions that are not complete, are Stale. A record
   that is not after the known deletion of its id is dead; a record without value that is after it
   is a new deletion.
3. New deletions are published to their own topic and acknowledged, so that they outlive this Redis
   and the compaction of `users`.
4. WATCH the counters of the users that are deleted: they change only when an event of that very
   user is applied. For a user who has events, find those that the broker took after the deletion
   and that are applied already (`LaterEvents`): they stay.
5. MULTI; of a deleted user every key goes and the later events are counted again; the latest
   values; the deletions; the position; EXEC. Nil: another process changed what is watched: again
   from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import hiredis
import redis
import structlog

from core.deletions import Kind, Place
from core.errors import Stale
from store.state import keys
from store.state.apply import deletions, halts
from store.state.apply.batches import Command, Event, Planner
from store.state.connection import Pipe, named_errors
from store.state.entities import experiments

_log = structlog.get_logger(__name__)
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # its own type says tuples of one

ITEM_CHANGES = 100_000
"""Changes of items kept for readers that follow; one that falls further behind reads everything
again.
"""
_TRIES = 100
"""Times that a batch starts again because another process changed what it watches; each takes some
milliseconds.
"""


class Entry(NamedTuple):
    """A record: what it says of which id, and where it lies.

    `value` None: a deletion. `identifier` None: only its hash is known.
    """

    kind: Kind
    digest: str
    identifier: str | None
    place: Place
    value: bytes | None


class EntryBatch(NamedTuple):
    """The records at offsets [first, next) of a partition, in offset order.

    `of_deletions`: of the topic of deletions itself.
    """

    topic: str
    partition: int
    first: int
    next: int
    entries: list[Entry]
    of_deletions: bool = False

    @property
    def events(self) -> list[Event]:
        """No interaction is in it."""
        return []

    @property
    def position(self) -> tuple[str, str]:
        """Key and field of the position."""
        if self.of_deletions:
            return keys.DELETIONS, f"position:{self.partition}"
        return keys.position(self.topic, self.partition), "position"


class LaterEvents(Protocol):
    """Finds interactions in the log."""

    def partitions(self) -> Sequence[tuple[str, int]]:
        """Every partition of the interactions topic, as topic and number. Raises LogUnavailable."""
        ...

    def find(self, times: Mapping[str, float], positions: Sequence[int]) -> dict[str, list[Event]]:
        """The events that count of the users in `times` (user id -> seconds) with a later broker
        time, by user, in the log's order.

        `positions`: of each partition, in the order of `partitions`, the offset below which they
        are looked for. Raises LogUnavailable.
        """
        ...


Publish = Callable[[Sequence[tuple[Kind, str, Place]]], None]
"""Publishes deletions (kind, hashed id, place) and waits until they are acknowledged.

Raises LogUnavailable.
"""


class Applied(NamedTuple):
    """What a batch did: deletions that were new, dead records, and events that were counted again
    after a deletion.
    """

    deletions: int
    dead: int
    restored: int


class EntryApplier:
    """Applies batches of entries over one connection of its own. Not thread-safe."""

    def __init__(
        self,
        client: redis.Redis,
        planner: Planner,
        history_cap: int,
        publish: Publish,
        later: LaterEvents,
    ) -> None:
        """`planner` plans what is counted again; it shares nothing with the one that plans batches
        of interactions.
        """
        self._client, self._planner, self._cap = client, planner, history_cap
        self._publish, self._later = publish, later
        self._connection: Pipe | None = None

    def apply(self, batch: EntryBatch) -> Applied:
        """Steps 1 to 5.

        Raises Stale: nothing is applied; StoreUnavailable: nobody knows; LogUnavailable: nothing is
        applied; StoreCorrupt.
        """
        what = f"applying {batch.topic}/{batch.partition} [{batch.first}, {batch.next})"
        published: set[tuple[Kind, str, Place]] = set()
        try:
            with named_errors(what):
                for _ in range(_TRIES):
                    applied = self._try(batch, what, published)
                    if applied is not None:
                        return applied
        except BaseException:
            self.close()
            raise
        self.close()
        raise Stale(batch.first, f"{what}: other processes changed what it watches {_TRIES} times")

    def close(self) -> None:
        """Drop the connection; the next `apply` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _try(
        self, batch: EntryBatch, what: str, published: set[tuple[Kind, str, Place]]
    ) -> Applied | None:
        """None: another process was faster, start again."""
        key, field = batch.position
        digests = {
            kind: list(dict.fromkeys(entry.digest for entry in batch.entries if entry.kind == kind))
            for kind in deletions.HASHES
        }
        looked_up = [(kind, each) for kind, each in digests.items() if each]
        opening: list[Command] = [
            ("WATCH", key, keys.DELETIONS),
            ("HMGET", key, field),
            ("HMGET", keys.DELETIONS, *deletions.STATE_FIELDS),
            *[("HMGET", deletions.HASHES[kind], *each) for kind, each in looked_up],
        ]
        _, (position,), values, *places = self._ask(batch, what, opening)
        state = deletions.parse_state(values)
        if int(position or 0) != batch.first:
            raise Stale(int(position or 0), f"{what}: Redis stands at {int(position or 0)}")
        if not state.ready and not batch.of_deletions:
            raise Stale(
                batch.first, f"{what}: Redis was emptied, or its deletions are being recovered"
            )
        known = {
            (kind, digest): deletions.parse(deletions.HASHES[kind], value)
            for (kind, each), answers in zip(looked_up, places, strict=True)
            for digest, value in zip(each, answers, strict=True)
        }
        outcome = _outcome(batch.entries, known)
        if not batch.of_deletions:
            unpublished = [
                each
                for (kind, digest), place in outcome.new.items()
                if (each := (kind, digest, place)) not in published
            ]
            if unpublished:
                self._publish(unpublished)
                published.update(unpublished)
        restored = self._restorable(batch, what, outcome)
        commands = self._commands(batch, state, outcome)
        payload, replies = self._planner.restore(restored)
        trims: list[Command] = [
            ("LTRIM", keys.history(user_id), str(-self._cap), "-1") for user_id in restored
        ]
        packed = b"".join([*map(_pack, commands), payload, *map(_pack, trims)])
        if not self._transact(batch, what, packed, len(commands) + replies + len(trims)):
            return None
        later = sum(len(events) for events in restored.values())
        if outcome.new:
            # a recovery tells its sum
            level = _log.debug if batch.of_deletions and not later else _log.info
            level(
                "deletions_applied",
                topic=batch.topic,
                partition=batch.partition,
                deletions=len(outcome.new),
                later_events=later,
            )
        return Applied(len(outcome.new), outcome.dead, later)

    def _restorable(
        self, batch: EntryBatch, what: str, outcome: _Outcome
    ) -> dict[str, list[Event]]:
        """Step 4: by user, the events that are applied already and stay."""
        times = {
            user_id: place.time
            for (kind, digest), place in outcome.new.items()
            if kind == "user" and (user_id := outcome.names.get((kind, digest))) is not None
        }
        if not times:
            return {}
        counters = [keys.user(user_id) for user_id in times]
        _, *events = self._ask(
            batch, what, [("WATCH", *counters), *[("HGET", key, "events") for key in counters]]
        )
        times = {
            user_id: time
            for (user_id, time), count in zip(times.items(), events, strict=True)
            if count is not None
        }
        if not times:
            return {}
        partitions = self._later.partitions()
        positions = self._ask(
            batch,
            what,
            [("HGET", keys.position(*partition), "position") for partition in partitions],
        )
        return self._later.find(times, [int(position or 0) for position in positions])

    def _commands(
        self, batch: EntryBatch, state: deletions.State, outcome: _Outcome
    ) -> list[Command]:
        """Step 5, without what is counted again."""
        commands: list[Command] = []
        kinds = {kind for kind, _ in outcome.new}
        sets = (
            experiments.sets_of_users(self._client, self._planner.running)
            if "user" in kinds
            else []
        )
        for (kind, digest), place in outcome.new.items():
            identifier = outcome.names.get((kind, digest))
            commands.append(("HSET", deletions.HASHES[kind], digest, place.text()))
            if kind == "user":
                commands.append(
                    (
                        "XADD",
                        keys.USERS_DELETED_CHANGES,
                        "MAXLEN",
                        "~",
                        str(deletions.CHANGES),
                        "*",
                        "user",
                        digest,
                    )
                )
                if identifier is not None:
                    commands.append(("DEL", *keys.all_of_user(identifier)))
                    commands.extend([("ZREM", key, identifier) for key in sets])
            elif identifier is not None:
                commands.append(("HDEL", keys.ITEMS, identifier))
                commands.append(_item_changed(identifier))
        for entry in outcome.values:
            identifier = cast("str", entry.identifier)
            value = cast("bytes", entry.value)
            if entry.kind == "user":
                commands.append(("SET", keys.profile(identifier), value))
            else:
                commands.append(("HSET", keys.ITEMS, identifier, value))
                commands.append(_item_changed(identifier))
        commands += [
            ("HSET", keys.DELETIONS, deletions.TOKENS[kind], deletions.token()) for kind in kinds
        ]
        newest = max(
            [
                state.newest,
                *(place.time for (kind, _), place in outcome.new.items() if kind == "user"),
            ]
        )
        if newest > state.newest:
            commands.append(("HSET", keys.DELETIONS, "newest", repr(newest)))
        key, field = batch.position
        commands.append(("HSET", key, field, str(batch.next)))
        return commands

    def _transact(self, batch: EntryBatch, what: str, commands: bytes, count: int) -> bool:
        """MULTI, `count` packed commands, EXEC; False: nothing is applied.

        Raises StoreCorrupt, StoreMisconfigured.
        """
        connection = cast("Pipe", self._connection)
        guarded = halts.guarded([halts.Range(*batch[:4])], commands)
        connection.send(b"".join([_pack(("MULTI",)), guarded, _pack(("EXEC",))]))
        *queued, replies = connection.receive(2 + halts.GUARDS + count)
        if replies is None:
            return False
        # EXECABORT: nothing was done, and an earlier reply says why
        if isinstance(replies, redis.ResponseError):
            raise next(
                (reply for reply in queued if isinstance(reply, redis.ResponseError)), replies
            )
        for index, reply in enumerate(replies[1:-1]):
            if isinstance(reply, redis.ResponseError):
                error = halts.partial(what, commands, index, reply)
                halts.note(self._client, [batch[:2]], str(error))
                raise error
        halts.check_guards(what, replies)
        return True

    def _ask(self, batch: EntryBatch, what: str, commands: Sequence[Command]) -> list[Any]:
        """One reply a command."""
        if self._connection is None:
            self._connection = Pipe(self._client)
        self._connection.send(b"".join(map(_pack, commands)))
        replies = self._connection.receive(len(commands))
        halts.check_opening(self._client, [batch[:2]], what, commands, replies)
        return replies


class _Outcome(NamedTuple):
    """What a batch comes to: new deletions with the id that each hash stands for, the values that
    stay, and how many records are dead.
    """

    new: dict[tuple[Kind, str], Place]
    names: dict[tuple[Kind, str], str]
    values: list[Entry]
    dead: int


def _outcome(entries: Sequence[Entry], known: Mapping[tuple[Kind, str], Place | None]) -> _Outcome:
    """Step 2, in the order of the log: the latest record of an id that is not dead wins."""
    new: dict[tuple[Kind, str], Place] = {}
    names: dict[tuple[Kind, str], str] = {}
    values: dict[tuple[Kind, str], Entry] = {}
    dead = 0
    for entry in entries:
        each = entry.kind, entry.digest
        before = new.get(each, known.get(each))
        if entry.place.is_dead(before):
            dead += entry.value is not None
        elif entry.value is not None:
            values[each] = entry
        else:
            new[each] = entry.place.later(before)
            values.pop(each, None)
            if entry.identifier is not None:
                names[each] = entry.identifier
    return _Outcome(new, names, list(values.values()), dead)


def _item_changed(item_id: str) -> Command:
    return ("XADD", keys.ITEMS_CHANGES, "MAXLEN", "~", str(ITEM_CHANGES), "*", "item", item_id)
