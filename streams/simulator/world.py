"""The simulated marketplace's people and startups: a pure function of a seed, block by block,
without an end.

A startup's place in taste space comes from its sectors and skills (what a content engine can see),
from a hidden community (what only co-occurrence shows), and from noise. A user's taste is made of
the same parts, and moves from one such point to another over DRIFT_DAYS. So content and ALS both
find something, and neither finds everything.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.types import Item, User

F32 = npt.NDArray[np.float32]

BLOCK = 256
"""Users or startups that are drawn together: number n is the same whatever the size of the world.
"""
DIMENSIONS = 24
COMMUNITIES = 12
DRIFT_DAYS = 90.0
"""Days in which a fast drifter's taste has become another one."""

SECTORS = {
    "fintech": "payments banking lending fraud-detection accounting",
    "healthtech": "telemedicine diagnostics medical-imaging patient-records wearables",
    "edtech": "tutoring course-design assessment language-learning classrooms",
    "climate": "carbon-accounting batteries solar grid-software heat-pumps",
    "gaming": "game-engines multiplayer level-design animation monetization",
    "logistics": "routing warehousing fleet-telematics last-mile customs",
    "devtools": "compilers observability ci-pipelines databases api-design",
    "security": "cryptography identity threat-detection pentesting compliance",
    "biotech": "genomics protein-design lab-automation bioinformatics drug-discovery",
    "commerce": "storefronts recommendations pricing loyalty fulfilment",
    "robotics": "motion-planning perception embedded-systems manipulation simulation",
    "media": "video-streaming podcasts editing subtitles creator-tools",
}
SKILLS = [
    "python",
    "rust",
    "typescript",
    "kubernetes",
    "machine-learning",
    "data-engineering",
    "design",
    "product",
    "sales",
    "mobile",
]
STAGES = ["pre-seed", "seed", "series-a", "series-b", "growth"]
CITIES = [
    "berlin",
    "lisbon",
    "nairobi",
    "bangalore",
    "toronto",
    "sao-paulo",
    "tokyo",
    "austin",
    "warsaw",
    "remote",
]
_FIRST = [
    "Blue",
    "North",
    "Bright",
    "Open",
    "River",
    "Quiet",
    "Swift",
    "Stone",
    "Clear",
    "Field",
    "Iron",
    "Amber",
    "Lumen",
    "Delta",
    "Harbor",
    "Cedar",
]
_LAST = [
    "works",
    "loop",
    "forge",
    "labs",
    "path",
    "grid",
    "wave",
    "nest",
    "bridge",
    "desk",
    "leaf",
    "spark",
    "mill",
    "line",
    "port",
    "well",
]
_AIMS = [
    "helps small teams with",
    "rebuilds",
    "makes audits easy in",
    "brings open standards to",
    "cuts the cost of",
    "automates the boring half of",
]


class World:
    """Users and startups by number, drawn when first asked for.

    `user_tastes`, `user_later_tastes` (n_users, DIMENSIONS) and `item_places` (n_items, DIMENSIONS)
    are f32 rows of length 1; `activity` (n_users,) and `appeal` (n_items,) f32 are how often each
    is drawn, relative to others; `is_developer` (n_users,) bool tells developers from investors.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng([seed, 0])
        self._sector_places = _unit(rng.normal(size=(len(SECTORS), DIMENSIONS)))
        self._skill_places = _unit(rng.normal(size=(len(SKILLS), DIMENSIONS)))
        self._community_places = _unit(rng.normal(size=(COMMUNITIES, DIMENSIONS)))
        empty = np.zeros((0, DIMENSIONS), np.float32)
        self.items: list[Item] = []
        self.users: list[User] = []
        self.item_places, self.user_tastes, self.user_later_tastes = empty, empty, empty
        self.appeal, self.activity = np.zeros(0, np.float32), np.zeros(0, np.float32)
        self.is_developer = np.zeros(0, np.bool_)

    def grow(self, n_users: int, n_items: int, created_at: float) -> None:
        """Make sure that there are this many; startups drawn now were founded before `created_at`
        (seconds since 1970).
        """
        while len(self.items) < n_items:
            self._draw_items(created_at)
        while len(self.users) < n_users:
            self._draw_users()

    def _draw_items(self, created_at: float) -> None:
        block = len(self.items) // BLOCK
        rng = np.random.default_rng([self.seed, 1, block])
        names, places = list(SECTORS), []
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
            stage, city = (
                int(rng.choice(len(STAGES), p=[0.3, 0.3, 0.2, 0.12, 0.08])),
                str(rng.choice(CITIES)),
            )
            places.append(self._place(rng, sectors, skills, int(rng.integers(COMMUNITIES))))
            title = f"{rng.choice(_FIRST)}{rng.choice(_LAST)} {number}"
            self.items.append(
                Item(
                    item_id=f"startup-{number}",
                    item_type="startup",
                    title=title,
                    categories=[names[sector] for sector in sectors],
                    tags=[*niches, *(SKILLS[skill] for skill in skills)],
                    text=f"{title} {rng.choice(_AIMS)} {' and '.join(niches)} for "
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
        self.item_places = np.vstack([self.item_places, np.array(places, np.float32)])
        # A heavy tail: the most seen tenth of the startups gets about half of the views before
        # taste has its say.
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
            now.append(self._place(rng, sectors, skills, community))
            later.append(
                self._place(rng, [int(rng.integers(len(names))), sectors[1]], skills, community)
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
        activity[rng.random(BLOCK) < 0.08] = 0  # signed up, said what they like, never came back
        self.activity = np.concatenate([self.activity, activity.astype(np.float32)])
        self.is_developer = np.array([user.roles[0] == "developer" for user in self.users])

    def _place(
        self, rng: np.random.Generator, sectors: list[int], skills: list[int], community: int
    ) -> F32:
        place = (
            1.0 * self._sector_places[sectors].mean(axis=0)
            + 0.5 * self._skill_places[skills].mean(axis=0)
            + 0.7 * self._community_places[community]
            + 0.1 * rng.normal(size=DIMENSIONS)
        )
        unit: F32 = _unit(place[None, :])[0]
        return unit


def _unit(rows: npt.NDArray[np.float64]) -> F32:
    unit: F32 = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit
