"""Draws the users and startups of the simulated marketplace, as many as are needed.

They are a pure function of a seed. A startup's vector in taste space is the sum of vectors of its
sectors and skills (which a content engine sees), of a hidden community (which only co-occurrence
shows), and of noise. A user's taste is made of the same parts, and changes from one such vector to
another over DRIFT_DAYS. So content and ALS both find relevant startups, and neither finds all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.types import Item, User
from streams.simulator.names import (
    CITIES,
    PURPOSES,
    SECTORS,
    SKILLS,
    STAGES,
    TITLE_FIRST,
    TITLE_LAST,
)

F32 = npt.NDArray[np.float32]

BLOCK = 256
"""Users or startups drawn together: number n is the same in a world of any size."""
DIMENSIONS = 24
COMMUNITIES = 12
DRIFT_DAYS = 90.0
"""Days in which the taste of the fastest users becomes another one."""


class World:
    """Users and startups by number, drawn when `grow` first needs them.

    `user_tastes`, `user_later_tastes` (n_users, DIMENSIONS) and `item_vectors` (n_items,
    DIMENSIONS) are f32 rows of length 1. `activity` (n_users,) and `appeal` (n_items,) f32 are
    relative weights with which they are drawn. `is_developer` (n_users,) bool tells developers from
    investors.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng([seed, 0])
        self._sector_vectors = _unit(rng.normal(size=(len(SECTORS), DIMENSIONS)))
        self._skill_vectors = _unit(rng.normal(size=(len(SKILLS), DIMENSIONS)))
        self._community_vectors = _unit(rng.normal(size=(COMMUNITIES, DIMENSIONS)))
        empty = np.zeros((0, DIMENSIONS), np.float32)
        self.items: list[Item] = []
        self.users: list[User] = []
        self.item_vectors, self.user_tastes, self.user_later_tastes = empty, empty, empty
        self.appeal, self.activity = np.zeros(0, np.float32), np.zeros(0, np.float32)
        self.is_developer = np.zeros(0, np.bool_)

    def grow(self, n_users: int, n_items: int, created_at: float) -> None:
        """Draw until there are at least this many.

        New startups were founded before `created_at` (seconds since 1970).
        """
        while len(self.items) < n_items:
            self._draw_items(created_at)
        while len(self.users) < n_users:
            self._draw_users()

    def _draw_items(self, created_at: float) -> None:
        block = len(self.items) // BLOCK
        rng = np.random.default_rng([self.seed, 1, block])
        names, vectors = list(SECTORS), []
        for number in range(len(self.items), len(self.items) + BLOCK):
            sectors = [
                int(sector)
                for sector in rng.choice(
                    len(names), size=1 + int(rng.random() < 0.3), replace=False
                )
            ]
            skills = [
                int(skill)
                for skill in rng.choice(len(SKILLS), size=int(rng.integers(2, 4)), replace=False)
            ]
            niches = [str(rng.choice(SECTORS[names[sector]].split())) for sector in sectors]
            stage = int(rng.choice(len(STAGES), p=[0.3, 0.3, 0.2, 0.12, 0.08]))
            city = str(rng.choice(CITIES))
            vectors.append(self._vector(rng, sectors, skills, int(rng.integers(COMMUNITIES))))
            title = f"{rng.choice(TITLE_FIRST)}{rng.choice(TITLE_LAST)} {number}"
            self.items.append(
                Item(
                    item_id=f"startup-{number}",
                    item_type="startup",
                    title=title,
                    categories=[names[sector] for sector in sectors],
                    tags=[*niches, *(SKILLS[skill] for skill in skills)],
                    text=f"{title} {rng.choice(PURPOSES)} {' and '.join(niches)} for "
                    f"{names[sectors[0]]} companies, with "
                    f"{' and '.join(SKILLS[skill] for skill in skills)}.",
                    attributes={
                        "sector": names[sectors[0]],
                        "stage": STAGES[stage],
                        "location": city,
                        "remote": bool(rng.random() < 0.4),
                        "employees": int(3 * 3.0**stage * rng.lognormal(0, 0.4)) + 1,
                    },
                    available=bool(rng.random() > 0.02),
                    created_at=float(int(created_at - rng.exponential(60 * 86400))),
                )
            )
        self.item_vectors = np.vstack([self.item_vectors, np.array(vectors, np.float32)])
        # A heavy tail: a tenth of the startups gets about half of the views, before tastes count.
        self.appeal = np.concatenate(
            [self.appeal, np.minimum(rng.pareto(1.1, BLOCK) + 0.2, 30).astype(np.float32)]
        )

    def _draw_users(self) -> None:
        block = len(self.users) // BLOCK
        rng = np.random.default_rng([self.seed, 2, block])
        names, now, later = list(SECTORS), [], []
        for number in range(len(self.users), len(self.users) + BLOCK):
            sectors = [int(sector) for sector in rng.choice(len(names), size=2, replace=False)]
            skills = [int(skill) for skill in rng.choice(len(SKILLS), size=2, replace=False)]
            community = int(rng.integers(COMMUNITIES))
            now.append(self._vector(rng, sectors, skills, community))
            later.append(
                self._vector(rng, [int(rng.integers(len(names))), sectors[1]], skills, community)
            )
            is_developer = rng.random() < 0.7
            attributes = (
                {"experience_years": int(rng.integers(0, 25))}
                if is_developer
                else {"ticket_thousands": int(rng.choice([10, 25, 50, 100, 250, 1000]))}
            )
            self.users.append(
                User(
                    user_id=f"{'dev' if is_developer else 'inv'}-{number}",
                    roles=["developer" if is_developer else "investor"],
                    interests=[
                        *(names[sector] for sector in sectors),
                        *(SKILLS[skill] for skill in skills),
                    ]
                    if rng.random() < 0.9
                    else [],
                    attributes={**attributes, "location": str(rng.choice(CITIES))},
                )
            )
        self.user_tastes = np.vstack([self.user_tastes, np.array(now, np.float32)])
        self.user_later_tastes = np.vstack([self.user_later_tastes, np.array(later, np.float32)])
        activity = np.minimum(rng.pareto(1.0, BLOCK) + 0.05, 40)
        activity[rng.random(BLOCK) < 0.08] = 0  # declared interests, but no events
        self.activity = np.concatenate([self.activity, activity.astype(np.float32)])
        self.is_developer = np.array([user.roles[0] == "developer" for user in self.users])

    def _vector(
        self, rng: np.random.Generator, sectors: list[int], skills: list[int], community: int
    ) -> F32:
        vector = (
            1.0 * self._sector_vectors[sectors].mean(axis=0)
            + 0.5 * self._skill_vectors[skills].mean(axis=0)
            + 0.7 * self._community_vectors[community]
            + 0.1 * rng.normal(size=DIMENSIONS)
        )
        unit: F32 = _unit(vector[None, :])[0]
        return unit


def _unit(rows: npt.NDArray[np.float64]) -> F32:
    unit: F32 = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit
