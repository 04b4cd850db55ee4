"""One partition of a topic, from its placement until it is placed again, revoked or lost.

A `Partition` has three offsets: the first one that is not read, not planned and not applied yet
(applied <= planned <= the larger of read and start). It also has the error that ended it. Its
states, and what leads from one to the next:

                 placed at its position in Redis (step 1 of `streams.ingest.loop`)
                                      |
                                      v
             fail               +-----------+
        +-----------------------| REPLAYING |   step 2: records below `start` only fill the
        |                       +-----------+   duplicate window and the popularity
        |                             |
        |                             | read_up_to `start`
        v                             v
    +--------+       fail       +-----------+
    | FAILED |<-----------------| APPLYING  |   steps 3 to 6: records become batches
    +--------+                  +-----------+
        |
        +--> placed again: a new object, which is REPLAYING

- FAILED: none of its records are read, and none of its queued batches are applied. The consumer
  loop places it again, or raises the error where no retry can help.
- Revoked or lost, in any state: the loop drops the object. The batches that are queued are applied
  nevertheless; after another process has moved the position they are stale.

The consumer's thread reads and plans, the apply thread notes what it applied, both may `fail` the
partition. Only the methods below write its attributes.
"""

from __future__ import annotations

import threading
import time
from enum import Enum

from core.dedup import Dedup
from core.deletions import Kind
from core.errors import LogRewound, LogUnavailable, Stale, StoreUnavailable
from store.state.apply.batches import OffsetRange
from store.state.apply.pending import PendingPopularity, Piece
from streams.ingest.placement import Placement

RETRYABLE = (Stale, LogRewound, StoreUnavailable, LogUnavailable)
"""Errors after which a partition is placed again; any other one ends ingest."""


class State(Enum):
    """What ingest does with the records of a partition."""

    REPLAYING = "replaying"
    APPLYING = "applying"
    FAILED = "failed"


class Partition:
    """What partitions of all topics have in common."""

    def __init__(self, placement: Placement) -> None:
        self.topic, self.number = placement.topic, placement.number
        self.topic_id = placement.topic_id
        self.start = self.planned = self.applied = placement.position.offset
        self.read = 0
        """0 until the first record is read, which may lie below `start`."""
        self.read_from = max(placement.low, self.start)
        """The offset at which the consumer starts to read."""
        self.error: BaseException | None = None
        self._failing = threading.Lock()

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"

    @property
    def state(self) -> State:
        """As drawn above."""
        if self.error is not None:
            return State.FAILED
        return State.REPLAYING if self.read < self.start else State.APPLYING

    def read_up_to(self, offset: int) -> None:
        """All records below `offset` are read."""
        self.read = offset

    def plan(self, next_: int) -> OffsetRange:
        """The offsets [planned, next_), of which the caller makes a batch."""
        offsets = OffsetRange(self.topic, self.number, self.planned, next_)
        self.planned = next_
        return offsets

    def applied_up_to(self, offset: int) -> None:
        """Redis holds all records below `offset`."""
        self.applied = offset

    def fail(self, error: BaseException) -> None:
        """Stop reading and applying until the partition is placed again.

        The first error stays, unless a later one is the first that no retry repairs.
        """
        with self._failing:
            if self.error is None or (
                isinstance(self.error, RETRYABLE) and not isinstance(error, RETRYABLE)
            ):
                self.error = error


class EntryPartition(Partition):
    """A partition of the topic of items or of the topic of users."""

    def __init__(self, placement: Placement, kind: Kind) -> None:
        super().__init__(placement)
        self.kind = kind


class InteractionPartition(Partition):
    """A partition of the interactions topic.

    It is read from before its position: as far back as duplicates of new events may lie, and as
    events lie whose popularity is not in Redis yet.
    """

    def __init__(self, placement: Placement, dedup: Dedup, popularity: PendingPopularity) -> None:
        """`popularity`: what Redis lacks, as of the placement's mark."""
        super().__init__(placement)
        self.dedup, self.popularity = dedup, popularity
        self.read_from = max(placement.low, popularity.mark.first - dedup.window)
        self.piece_taken_at = float("-inf")
        """time.monotonic() of the latest piece of popularity."""

    @property
    def has_due_popularity(self) -> bool:
        """Whether popularity is due to be written although no event comes."""
        return self.popularity.due(self.planned)

    def take_piece(self, next_: int) -> Piece:
        """The next piece of popularity, to be written with the batch that ends at `next_`."""
        piece = self.popularity.piece(next_)
        if piece.mark is not None:
            self.piece_taken_at = time.monotonic()
        return piece
