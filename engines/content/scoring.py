"""The scores of the content engine for one request, with the terms and items that explain them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.types import Reason
from engines.base import NO_OPINION, REASON_ITEMS, Scores, Scoring, name
from engines.blending.prior import PriorScores
from engines.catalogue import Catalogue
from engines.content.vectors import Entries, ItemVectors

INTERESTS_KIND, ITEMS_KIND = "matches_your_interests", "shares_with_your_items"


class DescribedItems(NamedTuple):
    """The items of a catalogue, their `vectors` over the `terms`."""

    catalogue: Catalogue
    vectors: ItemVectors
    terms: list[str]


class Profile(NamedTuple):
    """What a user is interested in.

    `weights` (n_terms,) f32 is the sum of the history's part and `interest`, the declared part.
    `history`: catalogue row -> weight; `touched`: the entries of these rows.
    """

    weights: Scores
    interest: Scores
    history: dict[int, float]
    touched: Entries


class ContentScoring(Scoring):
    """Scores by a profile. `prior`: the prior's part of the scores, if there is one."""

    def __init__(
        self, scores: Scores, items: DescribedItems, profile: Profile, prior: PriorScores | None
    ) -> None:
        self.scores, self._items, self._profile, self._prior = scores, items, profile, prior

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """The reasons of each row: declared interests, history, and prior.

        The interests are those that it matches; of the history, the most similar item is named.
        """
        if not rows:
            return []
        weights, interest, weight_by_row, touched = self._profile
        shown = self._items.vectors.entries(rows)
        columns = np.unique(shown.columns)
        vectors = shown.dense(columns, len(rows))
        by_interest = vectors * interest[columns]
        by_history = vectors * (weights[columns] - interest[columns])
        reasons: list[list[Reason]] = [[] for _ in rows]
        for index in np.flatnonzero(by_interest.any(axis=1)).tolist():
            reasons[index].append(
                self._reason(
                    INTERESTS_KIND, "matches your interests", by_interest[index], columns, None
                )
            )
        if weight_by_row:
            history = touched.dense(columns, len(weight_by_row))
            likeness = (vectors @ history.T) * np.array(
                list(weight_by_row.values()), dtype=np.float32
            )
            history_rows = list(weight_by_row)
            for index, nearest in enumerate(likeness.argmax(axis=1).tolist()):
                if likeness[index, nearest] > 0:
                    item_id = self._items.catalogue.ids[history_rows[nearest]]
                    shared = np.where(history[nearest] > 0, by_history[index], 0)
                    text = f"like {name(self._items.catalogue, item_id)}"
                    reasons[index].append(self._reason(ITEMS_KIND, text, shared, columns, item_id))
        for index, row in enumerate(rows):
            reasons[index] += self._prior_reasons(row)
        return reasons

    def contributions(self, row: int) -> list[Reason]:
        """One reason for each term, with the items of the history that contain it, and the prior's.

        They add up to the score.
        """
        if self.scores[row] == NO_OPINION:
            return []
        weights, interest, weight_by_row, touched = self._profile
        history_weights = np.array(list(weight_by_row.values()), dtype=np.float32)
        parts_of_history = touched.values * history_weights[touched.owners]
        ids = [self._items.catalogue.ids[history_row] for history_row in weight_by_row]

        def items(column: int) -> list[str]:
            at = np.flatnonzero(touched.columns == column)
            largest_first = at[np.argsort(-parts_of_history[at], kind="stable")]
            return [ids[owner] for owner in touched.owners[largest_first][:REASON_ITEMS].tolist()]

        own = self._items.vectors.entries([row])
        columns, parts = own.columns, own.values * weights[own.columns]
        terms = self._items.terms
        reasons = [
            Reason(
                kind=INTERESTS_KIND if interest[columns[at]] > 0 else ITEMS_KIND,
                text=f"matches {terms[columns[at]]}",
                items=items(columns[at]),
                attributes=[terms[columns[at]]],
                contribution=float(parts[at]),
            )
            for at in np.flatnonzero(parts > 0).tolist()
        ]
        reasons += self._prior_reasons(row)
        return sorted(reasons, key=lambda reason: -(reason.contribution or 0.0))

    def _prior_reasons(self, row: int) -> list[Reason]:
        return [] if self._prior is None else self._prior.reasons(row)

    def _reason(
        self, kind: str, text: str, parts: Scores, columns: NDArray[np.int32], item_id: str | None
    ) -> Reason:
        """`parts` (n_columns,): contribution of each term.

        The largest are named; their sum is the reason's contribution.
        """
        terms = self._items.terms
        best = [
            at for at in np.argsort(-parts, kind="stable")[:REASON_ITEMS].tolist() if parts[at] > 0
        ]
        words = [terms[columns[at]] for at in best]
        return Reason(
            kind=kind,
            text=f"{text}: {', '.join(words)}",
            items=[] if item_id is None else [item_id],
            attributes=words,
            contribution=float(parts.sum()),
        )
