"""Applies a batch of interactions to Redis exactly once: state and position change together.

A batch holds the events of one partition in [first, next). Its way, numbered; the crash tests use these numbers:

1. WATCH the partition's position and the version of the deletions.
2. Read both.
3. Compare: a position other than `first` is Stale(position); with other deletions the batch is planned again.
4. MULTI, the batch's commands, HSET position next, EXEC: sent as one write.
5. The reply. Nil: another writer moved the position between 1 and 4: Stale. An error inside: StoreCorrupt, naming the key,
   because Redis does not undo the commands beside it. A lost connection: nobody knows, so read the position again and seek there.
6. Histories that have grown past their cap are trimmed. Readers never look past the cap, so when, or whether, this happens
   changes no answer; a crash before it costs some bytes until the user's next event.

A process that dies before 4 leaves nothing; one that dies after it leaves all. Whoever takes the partition reads the position and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, cast

import hiredis
import redis

from core.errors import Stale, StoreCorrupt
from core.types import Interaction
from core.use_cases import UseCases
from store import keys
from store.connection import Pipe, named_errors
from store.popularity import growth
from store.users import history_line

Command = tuple[str | int | bytes, ...]
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # its own type says tuples of one

_MULTI = _pack(("MULTI",))
_EXEC = _pack(("EXEC",))
_KNOWN_USERS = 1_000_000
"""Users remembered as having a first_seen: some 100 MB at most, and forgetting costs one HSETNX each."""


class Deletions(NamedTuple):
    """Users who were deleted: their interactions with a broker time up to `times[user_id]` (seconds) never count."""

    version: int
    times: Mapping[str, float]


class Event(NamedTuple):
    """An interaction with the broker's time stamp on its record, in seconds."""

    interaction: Interaction
    broker_time: float


class Batch(NamedTuple):
    """What the events at offsets [first, next) of a partition do. Planned under `deletions_version` (None: they do not matter).

    `events` are the ones that count, in offset order: the valid ones that are no duplicates.
    `payload` is the whole transaction as sent; `replies` how many replies its EXEC holds; `pushes` where among them the new
    lengths of histories stand.
    """

    topic: str
    partition: int
    first: int
    next: int
    events: list[Event]
    deletions_version: int | None
    payload: bytes
    replies: int
    pushes: list[tuple[int, str]]


def transaction(topic: str, partition: int, next_: int, commands: list[Command]) -> tuple[bytes, int]:
    """MULTI, `commands`, the new position, EXEC, as bytes to send; and how many replies EXEC will hold."""
    last = ("HSET", keys.position(topic, partition), "position", str(next_))
    return b"".join([_MULTI, *[_pack(command) for command in commands], _pack(last), _EXEC]), len(commands) + 1


class Planner:
    """Turns events into the fewest commands that have their effect: one user's events of a batch go together."""

    def __init__(self, use_cases: UseCases, half_life_days: float) -> None:
        self._use_cases = use_cases
        self._half_life_days = half_life_days
        self._known: set[str] = set()

    def forget(self) -> None:
        """Call when Redis may hold less than what was planned so far: a failed batch, a deletion, a server rolled back."""
        self._known.clear()

    def plan(self, topic: str, partition: int, first: int, next_: int, events: list[Event], deletions: Deletions) -> Batch:
        """The batch that counts `events` and moves the position of `topic`/`partition` from `first` to `next_`."""
        commands, pushes = self.commands(events, deletions.times)
        return Batch(topic, partition, first, next_, events, deletions.version, *transaction(topic, partition, next_, commands), pushes)

    def commands(self, events: Iterable[Event], deleted: Mapping[str, float]) -> tuple[list[Command], list[tuple[int, str]]]:
        """The commands, and (index, history key) of each one whose reply is a history's new length."""
        by_user: dict[str, list[Interaction]] = {}
        popular: dict[str | None, dict[str, float]] = {}
        weight_of, half_life = self._use_cases.weight, self._half_life_days
        for event, broker_time in events:
            if deleted and broker_time <= deleted.get(event.user_id, -1.0):
                continue
            mine = by_user.get(event.user_id)
            if mine is None:
                by_user[event.user_id] = [event]
            else:
                mine.append(event)
            weight = weight_of(event.event_type, event.value, event.use_case)
            if weight:
                scores = popular.get(event.use_case)
                if scores is None:
                    scores = popular[event.use_case] = {}
                scores[event.item_id] = scores.get(event.item_id, 0.0) + weight * growth(event.timestamp, half_life)
        commands: list[Command] = []
        pushes: list[tuple[int, str]] = []
        known = self._known
        if len(known) > _KNOWN_USERS:
            known.clear()
        for user_id, mine in by_user.items():
            key = keys.user(user_id)
            history = key + ":history"
            if user_id not in known:
                known.add(user_id)
                commands.append(("HSETNX", key, "first_seen", int(mine[0].timestamp)))
            commands.append(("HINCRBY", key, "events", len(mine)))
            if len(mine) == 1:
                event = mine[0]
                commands.append(("HINCRBY", key, "ev:" + event.event_type, 1))
                pushes.append((len(commands), history))
                commands.append(("RPUSH", history, history_line(event.timestamp, event.event_type, event.value, event.item_id)))
                continue
            counts: dict[str, int] = {}
            for event in mine:
                counts[event.event_type] = counts.get(event.event_type, 0) + 1
            for event_type, count in counts.items():
                commands.append(("HINCRBY", key, "ev:" + event_type, count))
            pushes.append((len(commands), history))
            commands.append(
                ("RPUSH", history, *[history_line(event.timestamp, event.event_type, event.value, event.item_id) for event in mine])
            )
        for use_case, scores in popular.items():
            key = keys.popular(use_case or keys.POPULAR_UNLABELLED)
            for item_id, score in scores.items():
                commands.append(("ZINCRBY", key, repr(score), item_id))
        return commands, pushes


class Applier:
    """Applies batches of every topic over one connection of its own. Not thread-safe."""

    def __init__(self, client: redis.Redis, planner: Planner, history_cap: int) -> None:
        self._client = client
        self._planner = planner
        self._cap = history_cap
        self._slack = history_cap // 8 + 16  # trimming a history by a few lines at a time would double its commands
        self._connection: Pipe | None = None
        self._trims: set[str] = set()

    def apply(self, batch: Batch) -> None:
        """Steps 1 to 6. Raises Stale, StoreUnavailable, StoreCorrupt; after any of them the caller reads the position anew."""
        what = f"applying {batch.topic}/{batch.partition} [{batch.first}, {batch.next})"
        try:
            with named_errors(what):
                self._apply(batch, what)
        except BaseException:
            self._planner.forget()
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection; the next `apply` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _apply(self, batch: Batch, what: str) -> None:
        if self._connection is None:
            self._connection = Pipe(self._client)
        connection = self._connection
        key = keys.position(batch.topic, batch.partition)
        trims: list[Command] = [("LTRIM", history, str(-self._cap), "-1") for history in self._trims]
        self._trims.clear()
        opening: list[Command] = [
            *trims,
            ("WATCH", key, keys.USERS_DELETED_VERSION),
            ("HGET", key, "position"),
            ("GET", keys.USERS_DELETED_VERSION),
        ]
        connection.send(b"".join([_pack(command) for command in opening]))
        position, version = connection.receive(len(opening))[-2:]
        stands_at = int(position or 0)
        if stands_at != batch.first:
            raise Stale(stands_at, f"{what}: Redis stands at {stands_at}")
        if batch.deletions_version not in (None, int(version or 0)):
            self._planner.forget()
            batch = self._planner.plan(batch.topic, batch.partition, batch.first, batch.next, batch.events, deletions(self._client))
            if batch.deletions_version != int(version or 0):
                raise Stale(stands_at, f"{what}: users are being deleted right now")
        connection.send(batch.payload)
        *queued, replies = connection.receive(batch.replies + 2)  # OK, QUEUED, QUEUED, ..., and what EXEC answers
        if replies is None:
            raise Stale(stands_at, f"{what}: another process moved the position")
        if isinstance(replies, redis.ResponseError):  # EXECABORT: nothing was done, and an earlier reply says why
            raise next((reply for reply in queued if isinstance(reply, redis.ResponseError)), replies)
        for index, reply in enumerate(replies):
            if isinstance(reply, redis.ResponseError):
                raise self._named(batch, index, reply)
        limit = self._cap + self._slack
        for index, history in batch.pushes:
            if replies[index] > limit:
                self._trims.add(history)

    def _named(self, batch: Batch, index: int, reply: redis.ResponseError) -> StoreCorrupt:
        reader = hiredis.Reader()
        reader.feed(batch.payload)
        commands = [reader.gets() for _ in range(batch.replies + 1)]
        name, key = (part.decode(errors="replace") for part in commands[index + 1][:2])
        return StoreCorrupt(
            f"applying {batch.topic}/{batch.partition} [{batch.first}, {batch.next}): {name} {key} answered {reply}. The batch's other commands "
            f"stand, this one is missing. Look at {key} (TYPE, OBJECT ENCODING), delete it if it is not ours, then run `python -m streams rebuild`"
        )


def deletions(client: redis.Redis) -> Deletions:
    """The deleted users, as they stand. Raises StoreUnavailable, StoreCorrupt."""
    with named_errors("reading deleted users"):
        pipe = client.pipeline(transaction=True)
        pipe.get(keys.USERS_DELETED_VERSION)
        pipe.hgetall(keys.USERS_DELETED)
        version, times = pipe.execute()
    return Deletions(int(version or 0), {user_id.decode(): float(time) for user_id, time in times.items()})
