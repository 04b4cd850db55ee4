"""Draws the events of the simulated marketplace.

In a session a user views startups, which leads to clicks, likes, applications and investments.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from core.types import Interaction, Item, User
from streams.simulator.world import DRIFT_DAYS, World

SESSIONS = 512
"""Sessions of one chunk; fixed, so that the same seed gives the same events at any rate."""
CANDIDATES = 48
"""Startups drawn by appeal for one session; the user's taste orders them."""
LONGEST = 12
"""Maximum number of startups that a user views in one session."""
TASTE = 7.0
"""Weight of taste: a startup of exactly the user's taste is exp(TASTE) times as likely as one at a
right angle to it.
"""
INITIAL_SHARE = 0.8
"""Share of the users and startups that exist from the start; the others arrive evenly later."""
LIVE_USERS, LIVE_ITEMS = 1 / 150, 1 / 600
"""New users and new startups for each live event."""

TYPES = ["view", "click", "like", "save", "apply", "invest", "message", "dismiss"]
_DELAY = np.array([0, 4, 15, 20, 60, 90, 45, 6], np.float64)
"""Seconds from the view of a startup to each type of event on it."""


class Chunk(msgspec.Struct, frozen=True):
    """Some events in time order, and the items and users that arrived before them."""

    items: list[Item]
    users: list[User]
    events: list[Interaction]


class Simulation:
    """An endless, seeded stream. The same arguments give the same chunks."""

    def __init__(
        self, seed: int, n_users: int, n_items: int, n_events: int, start: float, days: float
    ) -> None:
        """Draw nothing yet.

        `n_events` fill `days` from `start` (seconds since 1970). With the last of them there are
        `n_users` and `n_items`.
        """
        self.world = World(seed)
        self._seed, self._n_users, self._n_items, self._n_events = seed, n_users, n_items, n_events
        self._start, self._seconds = start, days * 86400
        self._rng = np.random.default_rng([seed, 3, int(start)])
        self._prefix = f"sim-{seed}-{int(start)}-"
        self._arrived_users = self._arrived_items = 0
        self._sent = self._sessions = 0

    def chunks(self) -> Iterator[Chunk]:
        """The past: `n_events` events in all. `live` continues."""
        if not self._n_events:
            yield self._arrivals(self._n_users, self._n_items)
        while self._sent < self._n_events:
            share = INITIAL_SHARE + (1 - INITIAL_SHARE) * self._sent / self._n_events
            n_users, n_items = (
                max(1, round(total * share)) for total in (self._n_users, self._n_items)
            )
            yield self._chunk(n_users, n_items, SESSIONS, self._n_events - self._sent)
        yield self._arrivals(self._n_users, self._n_items)

    def live(self) -> Iterator[Chunk]:
        """Endless small chunks, with new users and startups."""
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
        items = self.world.items[self._arrived_items : n_items]
        users = self.world.users[self._arrived_users : n_users]
        self._arrived_items = max(self._arrived_items, n_items)
        self._arrived_users = max(self._arrived_users, n_users)
        return Chunk(items, users, [])

    def _chunk(self, n_users: int, n_items: int, n_sessions: int, most: int) -> Chunk:
        arrivals = self._arrivals(n_users, n_items)
        world, rng = self.world, self._rng
        users = _draw(rng, world.activity[:n_users], n_sessions)
        candidates = _draw(rng, world.appeal[:n_items], n_sessions * CANDIDATES).reshape(
            n_sessions, CANDIDATES
        )
        # users change their taste at different speeds
        drift = np.minimum(1.0, self._elapsed_days() / DRIFT_DAYS) * ((users * 0.618) % 1)
        tastes = (1 - drift)[:, None] * world.user_tastes[users] + drift[
            :, None
        ] * world.user_later_tastes[users]
        affinity = np.einsum("sd,scd->sc", tastes, world.item_vectors[candidates])
        order = np.argsort(-(TASTE * affinity + rng.gumbel(size=affinity.shape)), axis=1)[
            :, :LONGEST
        ]
        items = np.take_along_axis(candidates, order, axis=1)
        affinity = np.take_along_axis(affinity, order, axis=1)
        viewed = np.arange(LONGEST) < np.minimum(rng.geometric(0.28, n_sessions), LONGEST)[:, None]
        for column in range(1, LONGEST):  # a session shows each startup once
            viewed[:, column] &= ~(items[:, :column] == items[:, column : column + 1]).any(axis=1)

        is_developer = world.is_developer[users][:, None]
        chance = rng.random((6, *affinity.shape))
        clicked = viewed & (chance[0] < _sigmoid(5 * affinity - 1.5))
        acted = clicked & (chance[3] < _sigmoid(6 * affinity - 3.5))
        happened = np.stack(
            [
                viewed,
                clicked,
                clicked & (chance[1] < _sigmoid(5 * affinity - 2.5)),
                clicked & (chance[2] < _sigmoid(5 * affinity - 3.5)),
                acted & is_developer,
                acted & ~is_developer & (chance[4] < 0.4),
                acted & ~is_developer & (chance[4] >= 0.4),
                viewed & ~clicked & (chance[5] < 0.08 * (1 - affinity)),
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
        in_order = np.argsort(times, kind="stable")
        last_session = int(np.searchsorted(np.cumsum(counts), most))
        in_order = in_order[sessions[in_order] <= last_session][:most]
        events = [
            self._event(number, user, item, kind, time, self._sessions + session)
            for number, (session, user, item, kind, time) in enumerate(
                zip(
                    *(
                        drawn.tolist()
                        for drawn in (
                            sessions[in_order],
                            users[sessions[in_order]],
                            items[sessions[in_order], columns[in_order]],
                            types[in_order],
                            times[in_order],
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
        profile = self.world.users[user]
        return Interaction(
            f"{self._prefix}{number}",
            profile.user_id,
            self.world.items[item].item_id,
            TYPES[kind],
            round(time, 3),
            None,
            "developer_startup" if profile.roles[0] == "developer" else "investor_startup",
            msgspec.Raw(b'{"session":"%d"}' % session),
        )

    def _elapsed_days(self) -> float:
        return self._seconds * (self._sent / self._n_events if self._n_events else 1.0) / 86400


def _draw(
    rng: np.random.Generator, weights: npt.NDArray[np.float32], count: int
) -> npt.NDArray[np.int64]:
    """`count` indexes, drawn with probabilities in proportion to `weights`."""
    edges = np.cumsum(weights, dtype=np.float64)
    drawn: npt.NDArray[np.int64] = np.searchsorted(
        edges, rng.random(count) * edges[-1], side="right"
    ).clip(max=len(weights) - 1)
    return drawn


def _sigmoid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    probabilities: npt.NDArray[np.float64] = 1 / (1 + np.exp(-values))
    return probabilities
