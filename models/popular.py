"""What was popular when a bundle was made: answers without Redis rest on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import ModelCorrupt
from models import files

Popularity = Mapping[str, Sequence[tuple[str, float]]]
"""Use case name (or "unlabelled") -> (item_id, forward-decayed score), best first. Each event counts under one name."""

MOST = 1000
"""Items by name whose popularity is told, by Redis to readers, by a dataset to a bundle and to those who judge it: engines that go by
popularity see the same wherever they are asked. The rest counts 0."""

UNLABELLED = "unlabelled"
"""Name of the popularity of events that carry no use case."""


class PopularModel:
    """A snapshot of popularity. Immutable."""

    def __init__(self, scores: Popularity) -> None:
        """Raises ValueError unless every score is finite and not negative."""
        self.scores: dict[str, list[tuple[str, float]]] = {
            name: sorted(((item_id, float(score)) for item_id, score in entries), key=lambda entry: (-entry[1], entry[0]))
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
