"""Popularity at the time of a retrain, which the popular engine uses while Redis is away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import ModelCorrupt
from models import files

Popularity = Mapping[str, Sequence[tuple[str, float]]]
"""Use case name (or "unlabelled") -> (item_id, forward-decayed score), best first.

Each event counts under one name."""

MOST = 1000
"""Items under each name that have a popularity; all others count 0. Redis, the dataset of a retrain
and the bundle share this limit, so that engines see the same popularity when they serve and when
they are evaluated."""

UNLABELLED = "unlabelled"
"""Name for the popularity of events without a use case."""


class PopularModel:
    """A snapshot of popularity. Immutable."""

    def __init__(self, scores: Popularity) -> None:
        """Raises ValueError for a score that is negative or not finite."""
        self.scores: dict[str, list[tuple[str, float]]] = {
            name: sorted(
                ((item_id, float(score)) for item_id, score in entries),
                key=lambda entry: (-entry[1], entry[0]),
            )
            for name, entries in scores.items()
        }
        for name, entries in self.scores.items():
            if not all(0 <= score < math.inf for _, score in entries):
                raise ValueError(f"a score under {name!r} is negative or not finite")

    def save(self, folder: Path) -> None:
        """Write popular.json."""
        files.write_json(folder / "popular.json", self.scores)

    @classmethod
    def load(cls, folder: Path) -> PopularModel:
        """Read what `save` wrote. Raises ModelMissing, ModelCorrupt."""
        path = folder / "popular.json"
        try:
            return cls(files.read_json(path, dict[str, list[tuple[str, float]]]))
        except ValueError as error:
            raise ModelCorrupt(f"{path}: {error}") from None
