"""What may be expected of an item before anything is known of the user: that it is popular, or, while it is new, that it may become so."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from msgspec import structs

from core.types import Reason, Request, UserState
from engines.base import Scores
from engines.popular import PopularEngine, PopularScoring
from engines.selection.explore import NewItems

NEW_ITEM_PRIOR = 0.5
"""Of a new item, between 0 and the most popular item's 1: it has had no time to become popular. docs/ensemble-guide.md has what new items
get by it."""


class Prior(NamedTuple):
    """`share` of a score, in (0, 1), that `popular` and the `new_items` of its catalogue have."""

    popular: PopularEngine
    new_items: NewItems
    share: float

    def of(self, state: UserState, request: Request) -> Expected:
        """Its part of every item's score."""
        popular, new = self.popular.score(state, request), self.new_items.rows(request.at)
        parts = popular.prior * np.float32(self.share)
        parts[new] = np.maximum(parts[new], np.float32(self.share * NEW_ITEM_PRIOR))
        return Expected(parts, popular, self.share)


class Expected(NamedTuple):
    """`parts` (n_rows,) f32: `share` x what is expected of each item; `popular` says why."""

    parts: Scores
    popular: PopularScoring
    share: float

    def reasons(self, row: int) -> list[Reason]:
        """That the item is popular or new; none where nothing is expected of it."""
        part = self.parts[row]
        if not part > 0:
            return []
        if part > self.popular.prior[row] * np.float32(self.share):
            return [Reason(kind="new", text="new in the catalogue", contribution=float(part))]
        return [structs.replace(reason, contribution=float(part)) for reason in self.popular.reasons([row])[0]]
