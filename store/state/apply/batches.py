"""Defines what is applied to Redis in one piece: a batch of interactions of one partition.

`planner` makes a batch, `applier` commits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from core.types import Interaction
from store.state.apply.pending import Piece

Command = tuple[str | int | bytes, ...]

NO_POPULARITY = Piece([], None, None)


class OffsetRange(NamedTuple):
    """The offsets [first, next) of a partition."""

    topic: str
    partition: int
    first: int
    next: int

    @property
    def source(self) -> tuple[str, int]:
        """The partition, as topic and number."""
        return self.topic, self.partition

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition} [{self.first}, {self.next})"


class Event(msgspec.Struct, frozen=True, gc=False):
    """An interaction with the broker's time stamp on its record, in seconds."""

    interaction: Interaction
    broker_time: float


class KnownDeletions(NamedTuple):
    """The deletions under which a batch is planned.

    `version`: the version of all deletions. `times`: of the deleted users in the batch, the broker
    time (seconds) up to which their interactions do not count.
    """

    version: str
    times: Mapping[str, float]

    def cover(self, event: Event) -> bool:
        """Whether the event's user was deleted after the event, so that it does not count."""
        return event.broker_time <= self.times.get(event.interaction.user_id, -1.0)


UNKNOWN_DELETIONS = KnownDeletions("", {})
"""No version is empty, so a batch that is planned under it is planned again before EXEC."""


class Batch(NamedTuple):
    """What the events of an offset range change in Redis.

    `events`: those that count, in offset order: valid and no duplicates. `deletions_version`: the
    version of the deletions under which the batch is planned. `payload`: its commands as sent, the
    new position last; `replies`: how many replies they have. `users`: those who have events that
    count; `pushes`: for each of them the index of the reply with the new length of the history.
    `known`: the set to which `new_users` are added once the batch is applied, because they have a
    first_seen then.
    """

    offsets: OffsetRange
    events: list[Event]
    deletions_version: str
    payload: bytes
    replies: int
    users: list[str]
    pushes: list[int]
    new_users: list[str]
    popularity: Piece = NO_POPULARITY
    known: set[str] | None = None
