"""What is lost or counted twice when a processor is killed: `python -m benchmarks.peers --crash`.

Each processor kills itself by SIGKILL once it has counted KILL_AFTER of the events, and is started
again on the same state. At the end the counts of 500 users are compared with the events that were
sent.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.peers.counts import Event, State

SAMPLES = tuple(f"user-{number}" for number in range(500))
KILL_AFTER = 0.6


class Errors(NamedTuple):
    """Events of the compared users: sent, not counted, counted once too often."""

    users: int
    sent: int
    lost: int
    twice: int


def compare(states: dict[str, State], sent: dict[str, list[Event]]) -> Errors:
    """Only users with events after the restart are compared: a processor reports those."""
    users = events = lost = twice = 0
    for user, expected in sent.items():
        counted = sum(states[user].counts.values())
        if not counted:
            continue
        users += 1
        events += len(expected)
        lost += max(0, len(expected) - counted)
        twice += max(0, counted - len(expected))
    return Errors(users, events, lost, twice)
