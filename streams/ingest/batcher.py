"""Makes batches of the messages of all partitions and queues them for the apply thread (steps 3 to
5 of `streams.ingest.loop`).

Small batches of several partitions share a transaction. A batch of items or users has a transaction
of its own: what it deletes must not come back by an older batch of events beside it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence

from core.settings import Settings
from store.state.apply.batches import NO_POPULARITY, KnownDeletions
from store.state.apply.entries import EntryBatch
from store.state.apply.planner import Planner
from streams import metrics
from streams.ingest.apply_thread import ApplyThread, Task
from streams.ingest.foreign_partitions import ForeignPartitions
from streams.ingest.messages import Decoder, Entries, Interactions, Message
from streams.ingest.partition import EntryPartition, InteractionPartition, Partition, State

SHARED_EVENTS = 250
"""Events of several partitions in one transaction, and one piece of popularity: some 3 ms of Redis.
"""

PIECE_S = 0.1
"""Seconds from one piece of a partition's popularity to its next while events are few. PIECES of
them then take as long as their events took to come; written without a pause they would take most of
a core for a second.
"""


class Batcher:
    """Makes batches in the order of each partition. Belongs to the consumer's thread."""

    def __init__(
        self,
        settings: Settings,
        planner: Planner,
        apply_thread: ApplyThread,
        foreign: ForeignPartitions,
    ) -> None:
        self._decoder = Decoder(settings)
        self._planner = planner
        self._apply_thread = apply_thread
        self._foreign = foreign
        self._transaction = _Transaction()

    def add(self, partition: Partition, messages: Sequence[Message]) -> None:
        """Make batches of `messages`, the next ones of the partition; `send` queues the last of
        them.
        """
        if (traces := self._apply_thread.traces) is not None:
            traces.begin(partition, messages)
        if isinstance(partition, InteractionPartition):
            for interactions in self._decoder.interactions(partition, messages):
                self._add_interactions(partition, interactions)
        elif isinstance(partition, EntryPartition):
            for entries in self._decoder.entries(partition, messages):
                self._send_entries(partition, entries)
        partition.read_up_to(messages[-1].offset() + 1)

    def skip_to(self, partition: Partition, offset: int) -> None:
        """Move the position on to `offset`: below it the partition has no more records, only what a
        transaction or compaction left behind.
        """
        partition.read_up_to(offset)
        if offset <= partition.planned:
            return
        if isinstance(partition, InteractionPartition):
            self._add_interactions(partition, Interactions(offset, [], []))
        elif isinstance(partition, EntryPartition):
            self._send_entries(partition, Entries(offset, [], []))

    def flush_popularity(
        self, partitions: Iterable[Partition], besides: Collection[Partition]
    ) -> bool:
        """Plan one piece of the popularity that is due, in partitions other than `besides`, whose
        batches have taken theirs along. Answers whether more is due.

        One at a time, so that an event waits for a piece and never for a whole cut, which takes
        tenths of a second.
        """
        is_more_due = False
        for partition in partitions:
            if (
                not isinstance(partition, InteractionPartition)
                or partition.state is not State.APPLYING
            ):
                continue
            if partition not in besides and self._may_write_popularity(partition, 0):
                self._add_interactions(partition, Interactions(partition.planned, [], []))
            is_more_due = is_more_due or partition.has_due_popularity
        return is_more_due

    def send(self) -> None:
        """Queue the batches that are not queued yet."""
        if self._transaction.tasks:
            transaction, self._transaction = self._transaction, _Transaction()
            self._apply_thread.put(*transaction.tasks)

    def _add_interactions(
        self, partition: InteractionPartition, interactions: Interactions
    ) -> None:
        next_, events, letters = interactions
        has_moved = next_ > partition.planned
        if not has_moved and not partition.has_due_popularity:
            return
        shard = self._apply_thread.shard(partition)
        if not self._transaction.has_room(partition, shard, len(events)):
            self.send()
        piece = NO_POPULARITY
        if self._may_write_popularity(partition, len(events)):
            piece = partition.take_piece(next_)
        if not has_moved and piece.mark is None:
            return
        deletions = KnownDeletions(self._apply_thread.deletions_version(partition), {})
        batch = self._planner.plan(partition.plan(next_), events, deletions, piece)
        self._transaction.add(
            Task(partition, batch, letters), shard, has_piece=piece.mark is not None
        )
        metrics.events.inc(len(events))
        self._foreign.add(partition.number, events)

    def _may_write_popularity(self, partition: InteractionPartition, events: int) -> bool:
        """One piece in a transaction, and one of a partition in PIECE_S: else events would wait for
        piece after piece. A batch of many `events` always takes one along.
        """
        if self._transaction.has_piece:
            return False
        return events >= SHARED_EVENTS or time.monotonic() - partition.piece_taken_at >= PIECE_S

    def _send_entries(self, partition: EntryPartition, entries: Entries) -> None:
        self.send()
        batch = EntryBatch(partition.plan(entries.next), entries.entries)
        self._apply_thread.put(Task(partition, batch, entries.dead_letters))


class _Transaction:
    """Batches that the apply thread will apply together, at most one of each partition of a
    shard.
    """

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self._shard = 0
        self.has_piece = False
        self._partitions: set[Partition] = set()
        self._events = 0

    def has_room(self, partition: Partition, shard: int, events: int) -> bool:
        """Whether a batch of `events` of this partition, which is of `shard`, may be added."""
        if self.tasks and shard != self._shard:
            return False
        return partition not in self._partitions and self._events + events <= SHARED_EVENTS

    def add(self, task: Task, shard: int, *, has_piece: bool) -> None:
        """Add a batch of a shard; `has_piece`: it has a piece of popularity."""
        self.tasks.append(task)
        self._shard = shard
        self._partitions.add(task.partition)
        self._events += len(task.batch.events)
        self.has_piece = self.has_piece or has_piece
