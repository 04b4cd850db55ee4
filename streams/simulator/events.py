"""What people do in the simulated marketplace: sessions of views that lead to clicks, likes,
applications and investments.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from core.types import Interaction, Item, User
from streams.simulator.world import DRIFT_DAYS, World

SESSIONS = 512
"""Sessions drawn together; fixed, so that the same seed gives the same events at any rate."""
CANDIDATES = 48
"""Startups that a session's list is drawn from, by appeal; the taste then picks."""
LONGEST = 12
"""Most startups looked at in one session."""
TASTE = 7.0
"""How strongly taste picks: exp(TASTE) to 1 between the best place and one at a right angle."""
ARRIVED = 0.8
"""Part of the people and startups that are there from the start; the others arrive evenly until the
last event.
"""
LIVE_USERS, LIVE_ITEMS = 1 / 150, 1 / 600
"""New users and new startups for each event after that."""

TYPES = ["view", "click", "like", "save", "apply", "invest", "message", "dismiss"]
_DELAY = np.array([0, 4, 15, 20, 60, 90, 45, 6], np.float64)
"""Seconds from the view of a startup to each type of event on it."""


class Chunk(msgspec.Struct, frozen=True):
    """Some events in time order, and who and what arrived before them."""

    items: list[Item]
    users: list[User]
    events: list[Interaction]


class Simulation:
    """An endless, seeded stream. The same arguments give the same chunks."""

    def __init__(
        self, seed: int, n_users: int, n_items: int, n_events: int, start: float, days: float
    ) -> None:
        """`n_events` fill `days` from `start` (seconds since 1970); `n_users` and `n_items` are
        reached with the last of them.
        """
        self.world = World(seed)
        self._seed, self._n_users, self._n_items, self._n_events = seed, n_users, n_items, n_events
        self._start, self._seconds = start, days * 86400
        self._rng = np.random.default_rng([seed, 3, int(start)])
        self._prefix = f"sim-{seed}-{int(start)}-"
        self._told_users = self._told_items = 0
        self._sent = self._sessions = 0

    def chunks(self) -> Iterator[Chunk]:
        """The events of the past: `n_events` in all. Continue with `live`."""
        if not self._n_events:
            yield self._arrivals(self._n_users, self._n_items)
        while self._sent < self._n_events:
            arrived = ARRIVED + (1 - ARRIVED) * self._sent / self._n_events
            n_users, n_items = (
                max(1, round(total * arrived)) for total in (self._n_users, self._n_items)
            )
            yield self._chunk(n_users, n_items, SESSIONS, self._n_events - self._sent)
        yield self._arrivals(self._n_users, self._n_items)

    def live(self) -> Iterator[Chunk]:
        """Without end: small chunks, with new users and startups coming in."""
        while True:
            beyond = self._sent - self._n_events
            yield self._chunk(
                self._n_users + int(beyond * LIVE_USERS),
                self._n_items + int(beyond * LIVE_ITEMS),
                8,
                1_000_000,
            )

    def _arrivals(self, n_users: int, n_items: int) -> Chunk:
        self.world.grow(n_users, n_items, self._start)
        items, users = (
            self.world.items[self._told_items : n_items],
            self.world.users[self._told_users : n_users],
        )
        self._told_items, self._told_users = (
            max(self._told_items, n_items),
            max(self._told_users, n_users),
        )
        return Chunk(items, users, [])

    def _chunk(self, n_users: int, n_items: int, n_sessions: int, most: int) -> Chunk:
        arrivals = self._arrivals(n_users, n_items)
        world, rng = self.world, self._rng
        users = _draw(rng, world.activity[:n_users], n_sessions)
        candidates = _draw(rng, world.appeal[:n_items], n_sessions * CANDIDATES).reshape(
            n_sessions, CANDIDATES
        )
        # each at a pace of their own
        drift = np.minimum(1.0, self._elapsed_days() / DRIFT_DAYS) * ((users * 0.618) % 1)
        tastes = (1 - drift)[:, None] * world.user_tastes[users] + drift[
            :, None
        ] * world.user_later_tastes[users]
        affinity = np.einsum("sd,scd->sc", tastes, world.item_places[candidates])
        order = np.argsort(-(TASTE * affinity + rng.gumbel(size=affinity.shape)), axis=1)[
            :, :LONGEST
        ]
        items, affinity = (
            np.take_along_axis(candidates, order, axis=1),
            np.take_along_axis(affinity, order, axis=1),
        )
        seen = np.arange(LONGEST) < np.minimum(rng.geometric(0.28, n_sessions), LONGEST)[:, None]
        for column in range(1, LONGEST):  # a list shows each startup once
            seen[:, column] &= ~(items[:, :column] == items[:, column : column + 1]).any(axis=1)

        is_developer = world.is_developer[users][:, None]
        chance = rng.random((6, *affinity.shape))
        clicked = seen & (chance[0] < _sigmoid(5 * affinity - 1.5))
        acted = clicked & (chance[3] < _sigmoid(6 * affinity - 3.5))
        happened = np.stack(
            [
                seen,
                clicked,
                clicked & (chance[1] < _sigmoid(5 * affinity - 2.5)),
                clicked & (chance[2] < _sigmoid(5 * affinity - 3.5)),
                acted & is_developer,
                acted & ~is_developer & (chance[4] < 0.4),
                acted & ~is_developer & (chance[4] >= 0.4),
                seen & ~clicked & (chance[5] < 0.08 * (1 - affinity)),
            ]
        )
        types, sessions, columns = np.nonzero(happened)
        pause = np.cumsum(rng.exponential(25.0, affinity.shape), axis=1)

        counts = happened.sum(axis=(0, 2))
        before = np.cumsum(counts) - counts  # events of earlier sessions
        share = (self._sent + before) / max(1, self._n_events)
        times = (
            self._start + self._seconds * share[sessions] + pause[sessions, columns] + _DELAY[types]
        )
        kept = np.argsort(times, kind="stable")
        kept = kept[sessions[kept] < int(np.searchsorted(np.cumsum(counts), most)) + 1][:most]
        events = [
            self._event(number, user, item, kind, time, self._sessions + session)
            for number, (session, user, item, kind, time) in enumerate(
                zip(
                    *(
                        drawn.tolist()
                        for drawn in (
                            sessions[kept],
                            users[sessions[kept]],
                            items[sessions[kept], columns[kept]],
                            types[kept],
                            times[kept],
                        )
                    ),
                    strict=True,
                ),
                self._sent,
            )
        ]
        self._sent += len(events)
        self._sessions += n_sessions
        return Chunk(arrivals.items, arrivals.users, events)

    def _event(
        self, number: int, user: int, item: int, kind: int, time: float, session: int
    ) -> Interaction:
        who = self.world.users[user]
        return Interaction(
            f"{self._prefix}{number}",
            who.user_id,
            self.world.items[item].item_id,
            TYPES[kind],
            round(time, 3),
            None,
            "developer_startup" if who.roles[0] == "developer" else "investor_startup",
            msgspec.Raw(b'{"session":"%d"}' % session),
        )

    def _elapsed_days(self) -> float:
        return self._seconds * (self._sent / self._n_events if self._n_events else 1.0) / 86400


def _draw(
    rng: np.random.Generator, weights: npt.NDArray[np.float32], count: int
) -> npt.NDArray[np.int64]:
    """`count` indexes (int64), each with a chance in proportion to its weight."""
    edges = np.cumsum(weights, dtype=np.float64)
    drawn: npt.NDArray[np.int64] = np.searchsorted(
        edges, rng.random(count) * edges[-1], side="right"
    ).clip(max=len(weights) - 1)
    return drawn


def _sigmoid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    chances: npt.NDArray[np.float64] = 1 / (1 + np.exp(-values))
    return chances
