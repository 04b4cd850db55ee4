"""Applies batches of interactions to Redis exactly once: state and position change together.

A batch holds the events of one partition at the offsets [first, next). Batches of several
partitions may share a transaction: all of them are applied, or none. The steps have numbers, which
the crash tests use as names:

1. WATCH the position of each partition and the state of the deletions
   (store.state.apply.deletions).
2. Read them. If an event is not younger than the newest deletion, also read the deletions of the
   users of such events.
3. Compare. The batch is stale, Stale(position), if the position is not `first`, if another process
   has written popularity, or if the deletions are not complete (Redis was emptied). A batch that
   holds events of a deleted user, or was planned before the latest deletion, is planned again.
4. MULTI, the commands of each batch with HSET position next, EXEC: sent as one write.
5. Read the reply.
   - Nil: another client moved a position or deleted a user after step 1. Start again at step 1.
   - An error inside EXEC: StoreCorrupt, which names the key, because Redis does not undo the other
     commands. store/state/apply/transactions.py makes later starts refuse the partition.
   - An error before EXEC: no command was executed.
   - A lost connection: the outcome is unknown. The caller reads the position and seeks there.
6. Trim the histories that have grown past their cap. Readers never read past the cap, so no answer
   depends on this step; a crash before it leaves some bytes until the user's next event.

A process that dies before step 4 leaves nothing in Redis, one that dies after it leaves the whole
batch. The next owner of the partition reads the position and continues there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
import redis

from core.deletions import IdHasher
from core.errors import Stale
from store.state import keys
from store.state.apply import deletions, halts
from store.state.apply.batches import UNKNOWN_DELETIONS, Batch, Command, KnownDeletions
from store.state.apply.pending import MARK_FIELDS, read_mark
from store.state.apply.planner import Planner
from store.state.apply.transactions import Transactions
from store.state.connection import named_errors

_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # its own type says tuples of one

_KNOWN_USERS = 1_000_000
"""Users remembered as having a first_seen, about 100 MB; each further one costs a HSETNX a batch.
"""
_TRIES = 20
"""Attempts when other clients delete users meanwhile: an attempt takes a millisecond, and deletions
are far apart.
"""


class Applier:
    """Applies batches of interactions of one shard over its own connection. Not thread-safe."""

    def __init__(
        self, client: redis.Redis, planner: Planner, history_cap: int, hasher: IdHasher
    ) -> None:
        self._client, self._keys = client, keys.of(client)
        self._planner = planner
        self._hasher = hasher
        self._cap = history_cap
        # trimming a history by a few lines at a time would double its commands
        self._slack = history_cap // 8 + 16
        self._connection: Transactions | None = None
        self._trims: set[str] = set()
        self.deletions_version = UNKNOWN_DELETIONS.version
        """Version of the deletions at the latest transaction. A batch planned under it is most
        often not planned again.
        """

    def apply(self, *batches: Batch) -> None:
        """Steps 1 to 6 for batches of different partitions, in one transaction.

        Raises Stale: none is applied. Raises StoreUnavailable: the outcome is unknown. Raises
        StoreCorrupt. After an error the caller reads the positions again.
        """
        what = f"applying {', '.join(str(batch.offsets) for batch in batches)}"
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
            batches[0].offsets.first,
            f"{what}: other processes changed the watched keys {_TRIES} times",
        )

    def _try(self, batches: Sequence[Batch], what: str) -> bool:
        """Steps 1 to 6. False: nothing is applied, because another process changed a watched
        key.
        """
        if self._connection is not None and self._connection.pipe.is_old:
            self.close()
        state = self._open(batches, what)
        times = self._deletion_times(batches, state.newest, what)
        self.deletions_version = state.version
        known = KnownDeletions(state.version, times)
        batches = [self._planned(batch, known) for batch in batches]
        replies = self._connected().run(
            [batch.offsets for batch in batches],
            _payload(batches),
            sum(batch.replies for batch in batches),
            what,
        )
        if replies is None:
            return False
        self._check_replies(batches, replies)
        start = 0
        for batch in batches:
            self._note(batch, replies[start : start + batch.replies])
            start += batch.replies
        return True

    def _open(self, batches: Sequence[Batch], what: str) -> deletions.State:
        """Steps 1 to 3, after step 6 of earlier batches; the state of the deletions.

        Raises Stale.
        """
        positions = [
            self._keys.position(batch.offsets.topic, batch.offsets.partition) for batch in batches
        ]
        trims: list[Command] = [
            ("LTRIM", self._keys.history(user_id), str(-self._cap), "-1") for user_id in self._trims
        ]
        self._trims.clear()
        commands: list[Command] = [
            *trims,
            ("WATCH", *positions, self._keys.deletions),
            *[("HMGET", key, "position", *MARK_FIELDS) for key in positions],
            ("HMGET", self._keys.deletions, *deletions.STATE_FIELDS),
        ]
        replies = self._read(batches, what, commands)
        *positions_read, values = replies[-1 - len(batches) :]
        state = deletions.parse_state(values)
        for batch, position in zip(batches, positions_read, strict=True):
            _check(batch, position, state)
        return state

    def _read(self, batches: Sequence[Batch], what: str, commands: Sequence[Command]) -> list[Any]:
        """One reply for each command before MULTI. Raises the error of the first error reply."""
        pipe = self._connected().pipe
        pipe.send(b"".join([_pack(command) for command in commands]))
        replies = pipe.receive(len(commands))
        sources = [batch.offsets.source for batch in batches]
        halts.check_opening(self._client, sources, what, commands, replies)
        return replies

    def _connected(self) -> Transactions:
        if self._connection is None:
            self._connection = Transactions(self._client)
        return self._connection

    def _deletion_times(
        self, batches: Sequence[Batch], newest: float, what: str
    ) -> dict[str, float]:
        """Step 2: user -> time of the deletion, of the deleted users who have an event that is not
        younger than the newest deletion.
        """
        events = [
            event for batch in batches for event in batch.events if event.broker_time <= newest
        ]
        if not events:
            return {}
        user_ids = list(dict.fromkeys(event.interaction.user_id for event in events))
        digests = [self._hasher("user", user_id) for user_id in user_ids]
        replies = self._read(batches, what, [("HMGET", self._keys.users_deleted, *digests)])
        places = [deletions.parse(self._keys.users_deleted, value) for value in replies[0]]
        return {
            user_id: place.time
            for user_id, place in zip(user_ids, places, strict=True)
            if place is not None
        }

    def _planned(self, batch: Batch, known: KnownDeletions) -> Batch:
        """The batch, planned again if it was planned under other deletions than `known`."""
        if batch.deletions_version == known.version and not (
            known.times and any(known.cover(event) for event in batch.events)
        ):
            return batch
        return self._planner.plan(batch.offsets, batch.events, known, batch.popularity)

    def _check_replies(self, batches: Sequence[Batch], replies: Sequence[object]) -> None:
        """Raise StoreCorrupt for the first error reply to a batch's command inside EXEC.

        The state of all batches of the transaction is then incomplete.
        """
        if not any(issubclass(kind, redis.ResponseError) for kind in set(map(type, replies))):
            return
        start = 0
        for batch in batches:
            for index, reply in enumerate(replies[start : start + batch.replies]):
                if isinstance(reply, redis.ResponseError):
                    error = halts.partial(f"applying {batch.offsets}", batch.payload, index, reply)
                    sources = [one.offsets.source for one in batches]
                    halts.note(self._client, sources, str(error))
                    raise error
            start += batch.replies

    def _note(self, batch: Batch, replies: list[int]) -> None:
        """Note the histories for step 6, and the users who have a first_seen now."""
        lengths, limit = [replies[index] for index in batch.pushes], self._cap + self._slack
        if max(lengths, default=0) > limit:
            lengths_of_users = zip(batch.users, lengths, strict=True)
            self._trims.update([user_id for user_id, length in lengths_of_users if length > limit])
        if batch.known is not None and len(batch.known) < _KNOWN_USERS:
            batch.known.update(batch.new_users)


def _payload(batches: Sequence[Batch]) -> bytes:
    return b"".join([batch.payload for batch in batches])


def _check(batch: Batch, values: list[bytes | None], state: deletions.State) -> None:
    """Step 3 for one batch and the values of its partition's position. Raises Stale."""
    position, *mark_values = values
    offset = int(position or 0)
    if offset != batch.offsets.first:
        raise Stale(offset, f"applying {batch.offsets}: the position in Redis is {offset}")
    # the mark of popularity can move while the position stays
    if batch.popularity.before not in (None, read_mark(mark_values)):
        raise Stale(
            offset,
            f"applying {batch.offsets}: another process has written popularity up to "
            f"{read_mark(mark_values)}",
        )
    if not state.ready:
        raise Stale(
            offset,
            f"applying {batch.offsets}: Redis was emptied, or its deletions are being recovered",
        )
