"""Applies batches of interactions to Redis exactly once: state and position change together.

A batch holds the events of one partition in [first, next). Batches of several partitions may go
together: all of them are applied, or none. Their way, numbered; the crash tests use these numbers:

1. WATCH each partition's position and the state of the deletions (store.state.apply.deletions).
2. Read them; and, if an event is not younger than the newest deletion, the deletions of the users
   of such events.
3. Compare: a position other than `first`, popularity written by another process, or deletions that
   are not complete (Redis was emptied) are Stale(position); a batch with events of a deleted user,
   or planned before the latest deletion, is planned again.
4. MULTI, of each batch the commands and HSET position next, EXEC: sent as one write.
5. The reply. Nil: another writer moved a position or deleted a user between 1 and 4: again from 1.
   An error inside: StoreCorrupt, naming the key, because Redis does not undo the commands beside
   it; store/state/apply/halts.py makes later starts refuse. An error before EXEC: nothing was done.
   A lost connection: nobody knows, so read the position again and seek there.
6. Histories that have grown past their cap are trimmed. Readers never look past the cap, so when,
   or whether, this happens changes no answer; a crash before it costs some bytes until the user's
   next event.

A process that dies before 4 leaves nothing; one that dies after it leaves all. Whoever takes the
partition reads the position and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import hiredis
import redis

from core.deletions import IdHasher
from core.errors import Stale
from core.experiments import NONE, Experiments
from core.types import Interaction
from core.use_cases import UseCases
from store.state import keys
from store.state.apply import deletions, halts
from store.state.apply.pending import MARK_FIELDS, Mark, Piece, read_mark
from store.state.connection import Pipe, named_errors
from store.state.entities import experiments, trending
from store.state.entities.users import history_line

Command = tuple[str | int | bytes, ...]
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # its own type says tuples of one

_MULTI = _pack(("MULTI",))
_EXEC = _pack(("EXEC",))
# The same in the protocol's own form, as `_bulk` writes arguments.
_HINCRBY = "*4\r\n$7\r\nHINCRBY\r\n"
_ZINCRBY = "*4\r\n$7\r\nZINCRBY\r\n"
_EVENTS = "$6\r\nevents\r\n"
_ONE = "$1\r\n1\r\n"
_QUEUED_BYTES = len("+QUEUED\r\n")
_KNOWN_USERS = 1_000_000
"""Users remembered as having a first_seen: some 100 MB at most; one more costs a HSETNX each time.
"""


NOTHING = Piece([], None, None)


_TRIES = 20
"""Times that a transaction is sent again because a user was deleted meanwhile: each takes a
millisecond, deletions are far apart.
"""


class Deletions(NamedTuple):
    """What a batch is planned under: the version of the deletions, and of its users those who were
    deleted, with the broker time (seconds) up to which their interactions do not count.
    """

    version: str
    times: Mapping[str, float]


UNKNOWN = Deletions("", {})
"""No version is empty: a batch that is planned under it is planned again when it is applied."""


class Event(NamedTuple):
    """An interaction with the broker's time stamp on its record, in seconds."""

    interaction: Interaction
    broker_time: float


class Batch(NamedTuple):
    """What the events at offsets [first, next) of a partition do. Planned under `deletions_version`
    of the deletions.

    `events` are the ones that count, in offset order: the valid ones that are no duplicates.
    `payload` is its part of the transaction as sent, the new position last; `replies` how many
    replies that brings; `pushes` where among them stands the new length of which user's history.
    `known`: where to note, once it is applied, that its users have a first_seen.
    """

    topic: str
    partition: int
    first: int
    next: int
    events: list[Event]
    deletions_version: str
    payload: bytes
    replies: int
    pushes: list[tuple[int, str]]
    popularity: Piece = NOTHING
    known: set[str] | None = None


def transaction(batches: Sequence[Batch]) -> bytes:
    """Step 4, as bytes to send.

    It has `replies_of(batches)` replies, what EXEC answers being the last.
    """
    payload = b"".join([batch.payload for batch in batches])
    ranges = [
        halts.Range(batch.topic, batch.partition, batch.first, batch.next) for batch in batches
    ]
    return _MULTI + halts.guarded(ranges, payload) + _EXEC


def replies_of(batches: Sequence[Batch]) -> int:
    """Replies of `transaction`: to MULTI, one QUEUED a command, and to EXEC."""
    return 2 + halts.GUARDS + sum(batch.replies for batch in batches)


class Planner:
    """Turns events into the fewest commands that have their effect: one user's events of a batch go
    together.

    The commands are written out as the protocol's text at once: as tuples for `pack_command` they
    cost three times as much Python.
    """

    def __init__(self, use_cases: UseCases, running: Experiments = NONE) -> None:
        """`running`: the experiments whose outcomes are counted."""
        self._known: set[str] = set()
        self._deletions_version = UNKNOWN.version
        self._use_cases, self.running = use_cases, running
        self._type_fields = {name: _bulk("ev:" + name) for name in use_cases.event_types}

    def forget(self) -> None:
        """Call when Redis may hold less than what was applied so far: a deletion, a server set
        back.

        A new set, not a cleared one: a batch under way adds its users to the set it was planned
        with.
        """
        self._known = set()

    def plan(
        self,
        topic: str,
        partition: int,
        first: int,
        next_: int,
        events: list[Event],
        known: Deletions,
        popularity: Piece = NOTHING,
    ) -> Batch:
        """The batch that counts `events`, writes a piece of the sums and moves the position of
        `topic`/`partition` to `next_`.
        """
        if known.version != self._deletions_version:  # somebody's first_seen is gone
            self.forget()
            self._deletions_version = known.version
        by_user: dict[str, list[Interaction]] = {}
        for event, broker_time in events:
            if known.times and broker_time <= known.times.get(event.user_id, -1.0):
                continue
            mine = by_user.get(event.user_id)
            if mine is None:
                by_user[event.user_id] = [event]
            else:
                mine.append(event)
        lines: list[str] = []
        pushes: list[tuple[int, str]] = []
        replies = 0
        for user_id, mine in by_user.items():
            replies = self._user(user_id, mine, lines, replies)
            pushes.append((replies - 1, user_id))
        if self.running.all:
            replies += self._outcomes(events, known, lines)
        replies = _sums(popularity, lines, replies)
        payload = "".join(lines).encode() + _moved(topic, partition, next_, popularity.mark)
        return Batch(
            topic,
            partition,
            first,
            next_,
            events,
            known.version,
            payload,
            replies + 1,
            pushes,
            popularity,
            self._known,
        )

    def restore(self, events: Mapping[str, list[Event]]) -> tuple[bytes, int]:
        """Commands that count `events` (by user) again after the keys of their users were deleted,
        and how many replies they bring.

        What is a sum over all users (popularity, the events of experiments) holds them already.
        """
        lines: list[str] = []
        replies = 0
        for user_id, mine in events.items():
            replies = self._user(
                user_id, [event.interaction for event in mine], lines, replies, first=True
            )
            found = experiments.outcomes(self.running, self._use_cases, mine, {}).users
            replies += _user_outcomes(found, lines)
        return "".join(lines).encode(), replies

    def _user(
        self,
        user_id: str,
        mine: list[Interaction],
        lines: list[str],
        replies: int,
        *,
        first: bool = False,
    ) -> int:
        """Counters and history of one user; answers how many replies there are by now, the
        history's new length being the last.

        `first`: whether these are the user's first events, whatever was known before.
        """
        key = keys.user(user_id)
        user = _bulk(key)
        if first or user_id not in self._known:
            lines.append(
                f"*4\r\n$6\r\nHSETNX\r\n{user}$10\r\nfirst_seen\r\n{_bulk(str(int(mine[0].timestamp)))}"
            )
            replies += 1
        if len(mine) == 1:  # by far the most: a batch holds few events of a user
            event = mine[0]
            lines.append(
                f"{_HINCRBY}{user}{_EVENTS}{_ONE}{_HINCRBY}{user}{self._type_fields[event.event_type]}{_ONE}*3\r\n$5\r\nRPUSH\r\n"
                f"{_bulk(key + keys.HISTORY)}{_bulk(history_line(event.timestamp, event.event_type, event.value, event.item_id))}"
            )
            return replies + 3
        counts: dict[str, int] = {}
        for event in mine:
            counts[event.event_type] = counts.get(event.event_type, 0) + 1
        lines.append(f"{_HINCRBY}{user}{_EVENTS}{_bulk(str(len(mine)))}")
        for event_type, count in counts.items():
            lines.append(f"{_HINCRBY}{user}{self._type_fields[event_type]}{_bulk(str(count))}")
        lines.append(f"*{2 + len(mine)}\r\n$5\r\nRPUSH\r\n{_bulk(key + keys.HISTORY)}")
        lines.extend(
            [
                _bulk(history_line(event.timestamp, event.event_type, event.value, event.item_id))
                for event in mine
            ]
        )
        return replies + 2 + len(counts)

    def _outcomes(self, events: list[Event], known: Deletions, lines: list[str]) -> int:
        """What events that answers of experiments led to add to their variants; answers how many
        replies that will bring.
        """
        found = experiments.outcomes(self.running, self._use_cases, events, known.times)
        for (variant, event_type), count in found.events.items():
            lines.append(
                f"{_HINCRBY}{_bulk(keys.experiment_events(variant))}{self._type_fields[event_type]}{_bulk(str(count))}"
            )
        return len(found.events) + _user_outcomes(found.users, lines)


def _user_outcomes(weights: Mapping[tuple[str, str], float], lines: list[str]) -> int:
    """Add to the outcomes of users, by (variant, user); answers how many replies that will
    bring.
    """
    for (variant, user_id), weight in weights.items():
        lines.append(
            f"{_ZINCRBY}{_bulk(keys.experiment_outcomes(variant))}{_bulk(repr(weight))}{_bulk(user_id)}"
        )
    return len(weights)


def _bulk(text: str) -> str:
    """One argument of a command, as the protocol writes it (RESP bulk string; its length counts
    bytes).
    """
    return f"${len(text) if text.isascii() else len(text.encode())}\r\n{text}\r\n"


def _sums(piece: Piece, lines: list[str], replies: int) -> int:
    """A piece of popularities and of buckets, whose expiry goes with each.

    Answers how many replies there are by now.
    """
    touched: dict[str, str] = {}
    for (key, item_id), score in piece.sums:
        bulk = touched.get(key)
        if bulk is None:
            bulk = touched[key] = _bulk(key)
        lines.append(f"{_ZINCRBY}{bulk}{_bulk(repr(score))}{_bulk(item_id)}")
    expiries = [
        (bulk, expiry)
        for key, bulk in touched.items()
        if (expiry := trending.expires(key)) is not None
    ]
    lines.extend(
        [f"*3\r\n$8\r\nEXPIREAT\r\n{bulk}{_bulk(str(expiry))}" for bulk, expiry in expiries]
    )
    return replies + len(piece.sums) + len(expiries)


def _moved(topic: str, partition: int, next_: int, mark: Mark | None = None) -> bytes:
    fields: tuple[str, ...] = ("position", str(next_))
    if mark is not None:
        fields += (
            "popularity_first",
            str(mark.first),
            "popularity_next",
            str(mark.next),
            "popularity_after",
            " ".join(mark.after),
        )
    return _pack(("HSET", keys.position(topic, partition), *fields))


class Applier:
    """Applies batches of interactions over one connection of its own. Not thread-safe."""

    def __init__(
        self, client: redis.Redis, planner: Planner, history_cap: int, hasher: IdHasher
    ) -> None:
        self._client = client
        self._planner = planner
        self._hasher = hasher
        self._cap = history_cap
        # trimming a history by a few lines at a time would double its commands
        self._slack = history_cap // 8 + 16
        self._connection: Pipe | None = None
        self._trims: set[str] = set()
        self.deletions_version = UNKNOWN.version
        """Of the deletions, as of the latest transaction: what is planned under it is most often
        not planned again.
        """

    def apply(self, *batches: Batch) -> None:
        """Steps 1 to 6 for batches of as many partitions, in one transaction.

        Raises Stale: none of them is applied; StoreUnavailable: nobody knows; StoreCorrupt. The
        caller reads the positions anew.
        """
        what = f"applying {', '.join(_name(batch) for batch in batches)}"
        try:
            with named_errors(what):
                self._apply(batches, what)
        except BaseException:
            self._planner.forget()
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection; the next `apply` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _apply(self, batches: Sequence[Batch], what: str) -> None:
        for _ in range(_TRIES):
            if self._try(batches, what):
                return
        raise Stale(
            batches[0].first, f"{what}: other processes changed what it watches {_TRIES} times"
        )

    def _try(self, batches: Sequence[Batch], what: str) -> bool:
        """Steps 1 to 6; False: nothing is applied, because another process changed a watched
        key.
        """
        if self._connection is None:
            self._connection = Pipe(self._client)
        connection = self._connection
        positions = [keys.position(batch.topic, batch.partition) for batch in batches]
        trims: list[Command] = [
            ("LTRIM", keys.history(user_id), str(-self._cap), "-1") for user_id in self._trims
        ]
        self._trims.clear()
        opening: list[Command] = [
            *trims,
            ("WATCH", *positions, keys.DELETIONS),
            *[("HMGET", key, "position", *MARK_FIELDS) for key in positions],
            ("HMGET", keys.DELETIONS, *deletions.STATE_FIELDS),
        ]
        replies = self._ask(opening)
        halts.check_opening(self._client, [batch[:2] for batch in batches], what, opening, replies)
        *stands, values = replies[-1 - len(batches) :]
        state = deletions.parse_state(values)
        for batch, stood in zip(batches, stands, strict=True):
            _check(batch, stood, state)
        times = self._deletion_times(batches, state.newest, what)
        self.deletions_version = state.version
        batches = [self._planned(batch, Deletions(state.version, times)) for batch in batches]
        connection.send(transaction(batches))
        expected = replies_of(batches)
        *queued, replies = connection.receive(expected, _QUEUED_BYTES * (expected - 2))
        if replies is None:
            return False
        # EXECABORT: nothing was done, and an earlier reply says why
        if isinstance(replies, redis.ResponseError):
            raise next(
                (reply for reply in queued if isinstance(reply, redis.ResponseError)), replies
            )
        self._check_replies(batches, replies, what)
        at = 1
        for batch in batches:
            self._note(batch, replies[at : at + batch.replies])
            at += batch.replies
        return True

    def _check_replies(
        self, batches: Sequence[Batch], replies: Sequence[object], what: str
    ) -> None:
        """Raise the first error among the replies inside EXEC.

        One of a batch's commands: the state of all batches is incomplete.
        """
        at = 1
        for batch in batches:
            for index, reply in enumerate(replies[at : at + batch.replies]):
                if isinstance(reply, redis.ResponseError):
                    error = halts.partial(f"applying {_name(batch)}", batch.payload, index, reply)
                    halts.note(self._client, [each[:2] for each in batches], str(error))
                    raise error
            at += batch.replies
        halts.check_guards(what, replies)

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """One reply a command; an error reply is a redis.ResponseError among them."""
        connection = cast("Pipe", self._connection)
        connection.send(b"".join([_pack(command) for command in commands]))
        return connection.receive(len(commands))

    def _deletion_times(
        self, batches: Sequence[Batch], newest: float, what: str
    ) -> dict[str, float]:
        """Step 2: of the users with an event that is not younger than any deletion, those who were
        deleted, and when.
        """
        events = [
            event for batch in batches for event in batch.events if event.broker_time <= newest
        ]
        if not events:
            return {}
        users = list(dict.fromkeys(event.interaction.user_id for event in events))
        command = (
            "HMGET",
            keys.USERS_DELETED,
            *[self._hasher("user", user_id) for user_id in users],
        )
        replies = self._ask([command])
        halts.check_opening(
            self._client, [batch[:2] for batch in batches], what, [command], replies
        )
        places = [deletions.parse(keys.USERS_DELETED, value) for value in replies[0]]
        return {
            user_id: place.time
            for user_id, place in zip(users, places, strict=True)
            if place is not None
        }

    def _planned(self, batch: Batch, known: Deletions) -> Batch:
        """The batch, planned again if what it was planned under is not `known`."""
        if batch.deletions_version == known.version and not (
            known.times and any(_is_dead(event, known) for event in batch.events)
        ):
            return batch
        return self._planner.plan(*batch[:5], known, batch.popularity)

    def _note(self, batch: Batch, replies: list[int]) -> None:
        """Step 6, and who has a first_seen now."""
        limit = self._cap + self._slack
        self._trims.update([user_id for index, user_id in batch.pushes if replies[index] > limit])
        if batch.known is not None and len(batch.known) < _KNOWN_USERS:
            batch.known.update([user_id for _, user_id in batch.pushes])


def _name(batch: Batch) -> str:
    return f"{batch.topic}/{batch.partition} [{batch.first}, {batch.next})"


def _check(batch: Batch, stood: list[bytes | None], state: deletions.State) -> None:
    """Step 3 for one batch, by what Redis holds for its partition. Raises Stale."""
    position, *mark = stood
    stands_at = int(position or 0)
    if stands_at != batch.first:
        raise Stale(stands_at, f"applying {_name(batch)}: Redis stands at {stands_at}")
    if batch.popularity.before not in (None, read_mark(mark)):  # it moves without the position, too
        raise Stale(
            stands_at,
            (
                f"applying {_name(batch)}: another process has written popularity up to "
                f"{read_mark(mark)}"
            ),
        )
    if not state.ready:
        raise Stale(
            stands_at,
            f"applying {_name(batch)}: Redis was emptied, or its deletions are being recovered",
        )


def _is_dead(event: Event, known: Deletions) -> bool:
    return event.broker_time <= known.times.get(event.interaction.user_id, -1.0)
