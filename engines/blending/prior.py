"""The prior of content-based scores: how likely an unknown user interacts with an item.

It is high for popular items. A new item has had no time to become popular, so it has a minimum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from msgspec import structs

from core.types import Reason, Request, UserState
from engines.base import Scores
from engines.popular import PopularEngine, PopularScoring
from engines.selection.explore import NewItems

NEW_ITEM_PRIOR = 0.5
"""Least prior of a new item, on a scale on which the most popular item has 1.
docs/ensemble-guide.md has its effect.
"""


class Prior(NamedTuple):
    """The part of a score, `share` in (0, 1), that popularity and newness decide."""

    popular: PopularEngine
    new_items: NewItems
    share: float

    def score(self, state: UserState, request: Request) -> PriorScores:
        """The prior's part of every item's score."""
        popular, new_rows = self.popular.score(state, request), self.new_items.rows(request.at)
        parts = popular.prior * np.float32(self.share)
        parts[new_rows] = np.maximum(parts[new_rows], np.float32(self.share * NEW_ITEM_PRIOR))
        return PriorScores(parts, popular, self.share)


class PriorScores(NamedTuple):
    """`parts` (n_rows,) f32: `share` times the prior of each item; `popular` gives the reasons."""

    parts: Scores
    popular: PopularScoring
    share: float

    def reasons(self, row: int) -> list[Reason]:
        """That the item is popular or new; none where its prior is 0."""
        part = self.parts[row]
        if not part > 0:
            return []
        if part > self.popular.prior[row] * np.float32(self.share):
            return [Reason(kind="new", text="new in the catalogue", contribution=float(part))]
        return [
            structs.replace(reason, contribution=float(part))
            for reason in self.popular.reasons([row])[0]
        ]
