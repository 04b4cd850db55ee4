"""Defines batches of records of the topics `items` and `users`, and what their records come to.

`entry_applier` commits them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from core.deletions import Kind, Place
from store.state.apply.batches import Event, OffsetRange
from store.state.keys import Keys

HashedId = tuple[Kind, str]
"""Kind and hashed id of a user or an item."""
Deletion = tuple[Kind, str, Place]
"""Kind, hashed id, and the place of the record that deletes it."""


class Entry(NamedTuple):
    """A record: its id, its place in the log and its value.

    `value` None: a deletion. `identifier` None: only the hashed id is known.
    """

    kind: Kind
    digest: str
    identifier: str | None
    place: Place
    value: bytes | None


class EntryBatch(NamedTuple):
    """The records of an offset range, in offset order.

    `of_deletions`: they are records of the topic of deletions itself.
    """

    offsets: OffsetRange
    entries: list[Entry]
    of_deletions: bool = False

    @property
    def events(self) -> list[Event]:
        """No interactions, as in `Batch.events`."""
        return []

    def position(self, names: Keys) -> tuple[str, str]:
        """Key and field of the position in the shard with these keys."""
        if self.of_deletions:
            return names.deletions, f"position:{self.offsets.partition}"
        return names.position(self.offsets.topic, self.offsets.partition), "position"


class EntryResult(NamedTuple):
    """Numbers of a batch: new deletions, dead records, and events that were counted again after a
    deletion.
    """

    deletions: int
    dead: int
    restored: int


class LaterEvents(Protocol):
    """Finds interactions in the log."""

    def partitions(self) -> Sequence[tuple[str, int]]:
        """The partitions of the interactions topic that have users of the shard, as topic and
        number. Raises LogUnavailable.
        """
        ...

    def find(self, times: Mapping[str, float], positions: Sequence[int]) -> dict[str, list[Event]]:
        """The events that count and have a later broker time than their user has in `times` (user
        id -> seconds), by user, in the order of the log.

        `positions`: for each partition of `partitions`, the offset at which the search ends. Raises
        LogUnavailable.
        """
        ...


Publish = Callable[[Sequence[Deletion]], None]
"""Publishes deletions and waits until they are acknowledged. Raises LogUnavailable."""


class Outcome(NamedTuple):
    """The effect of a batch's records.

    `new`: new deletions; `identifiers`: the ids of their hashes, where known; `values`: the entries
    to write; `dead`: the number of dead records.
    """

    new: dict[HashedId, Place]
    identifiers: dict[HashedId, str]
    values: list[Entry]
    dead: int

    def deleted_users(self) -> dict[str, float]:
        """User -> broker time of the new deletion, of the users whose id is known."""
        return {
            user_id: place.time
            for (kind, digest), place in self.new.items()
            if kind == "user" and (user_id := self.identifiers.get((kind, digest))) is not None
        }


def resolve(entries: Sequence[Entry], known: Mapping[HashedId, Place | None]) -> Outcome:
    """What the records come to in the order of the log: of each id the latest record that is not
    dead wins.

    `known`: the latest deletion of each id that Redis holds.
    """
    new: dict[HashedId, Place] = {}
    identifiers: dict[HashedId, str] = {}
    values: dict[HashedId, Entry] = {}
    dead = 0
    for entry in entries:
        hashed = entry.kind, entry.digest
        deletion = new.get(hashed, known.get(hashed))
        if entry.place.is_dead(deletion):
            dead += entry.value is not None
        elif entry.value is not None:
            values[hashed] = entry
        else:
            new[hashed] = entry.place.later(deletion)
            values.pop(hashed, None)
            if entry.identifier is not None:
                identifiers[hashed] = entry.identifier
    return Outcome(new, identifiers, list(values.values()), dead)
