"""Scores every blend on a grid of tenths, and compares the best one with learned weights.

`choice` gives the users; `learned` fits the learned weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from core.types import BlendMethod
from engines.base import Scoring
from engines.blending.scales import SCALES, blend_scores
from engines.catalogue import Catalogue, Mask
from models.ensemble import Blend
from training.blend import learned as blend_learned
from training.blend.learned import Example
from training.evaluation import metrics

CANDIDATES = 200
"""Best items of each engine that are blended: an item below that in every engine is practically
never among the first ten.
"""
TENTHS = 10
FOLDS = 5
CUTOFF = 10
GRID_METHOD = "mixture"
"""Name of the grid in a manifest; bundles have had it since the first release."""
ALONE, LEARNED = "alone", "learned"
"""Names of the best single engine, and of learned weights, in a manifest."""
CHANCE = 2.0
"""Standard errors of a lead that is more than chance."""


@dataclass(frozen=True)
class BlendChoice:
    """The chosen `blend`, and how it was chosen.

    `users`: users who chose. `candidates`: the chosen blend, then every grid point, best first,
    with NDCG@10 over these users; slightly too high, because the same users chose.
    `cross_validated`: method (GRID_METHOD, ALONE, LEARNED) -> mean NDCG@10 over held-out folds;
    empty when so few users chose that only single engines were tried.
    """

    blend: Blend
    users: int
    candidates: list[tuple[Blend, float]]
    cross_validated: dict[str, float]

    @property
    def ndcg(self) -> float:
        """NDCG@10 of the chosen blend."""
        return self.candidates[0][1]

    def table(self) -> dict[str, Any]:
        """Every candidate, as metrics.json stores them."""
        rows = [
            {
                "weights": {name: round(weight, 2) for name, weight in blend.weights.items()},
                "fusion": blend.method,
                "ndcg@10": round(ndcg, 6),
            }
            for blend, ndcg in self.candidates
        ]
        return {"users": self.users, "tried": rows}

    def facts(self) -> dict[str, Any]:
        """The choice, as the manifest stores it."""
        return {
            "weights": self.blend.weights,
            "fusion": self.blend.method,
            "ndcg@10": round(self.ndcg, 6),
            "users": self.users,
            "unseen_ndcg@10": {
                method: round(ndcg, 6) for method, ndcg in self.cross_validated.items()
            },
        }


class BlendSearch:
    """Scores every blend of `engines` on the grid.

    It also collects the examples that learned weights are fitted on.

    `grid (n, n_engines)` f32: weights in tenths. `users`: users added; `examples`: those among them
    whom the ensemble can answer.
    """

    def __init__(self, engines: Sequence[str]) -> None:
        tenths = [
            point
            for point in product(range(TENTHS + 1), repeat=len(engines))
            if sum(point) == TENTHS
        ]
        self.engines, self.users = list(engines), 0
        self.grid = np.array(tenths, dtype=np.float32) / np.float32(TENTHS)
        self.examples: list[Example] = []
        self._gains: dict[BlendMethod, list[npt.NDArray[np.float64]]] = {
            method: [] for method in SCALES
        }

    def add_user(
        self,
        scorings: Sequence[Scoring],
        eligible_rows: Mask,
        relevant: Mask,
        catalogue: Catalogue,
        events: int,
    ) -> None:
        """Add one user with `events` interactions before the cut.

        `scorings`: in the order of the engines; empty for a user whom the ensemble cannot answer,
        who is only counted. `eligible_rows`, `relevant (n_rows,)` bool: what may be recommended,
        and what the user interacted with after the cut.
        """
        self.users += 1
        if not scorings:
            return
        removed = np.flatnonzero(~catalogue.alive)
        best = np.unique(
            [row for scoring in scorings for row in scoring.top(eligible_rows, CANDIDATES)]
        )
        candidates = best if len(best) else np.flatnonzero(eligible_rows)
        n_relevant = int(relevant.sum())
        for method, gains in self._gains.items():
            _, scaled = blend_scores(
                method, [scoring.scores for scoring in scorings], [1.0] * len(scorings), removed
            )
            scores = scaled[:, candidates]
            blended = self.grid @ scores
            if method == "min_max":
                self.examples.append(Example(scores, relevant[candidates], n_relevant, events))
            length = min(CUTOFF, len(candidates))
            top = np.argpartition(-blended, length - 1, axis=1)[:, :length]
            order = np.argsort(-np.take_along_axis(blended, top, axis=1), axis=1, kind="stable")
            hits = relevant[candidates][np.take_along_axis(top, order, axis=1)]
            gains.append(metrics.ndcg(hits, np.full(len(self.grid), max(n_relevant, 1)), CUTOFF))

    @property
    def blends(self) -> list[Blend]:
        """Every grid point by every blending method, those of the first method first."""
        weights = [dict(zip(self.engines, point.tolist(), strict=True)) for point in self.grid]
        return [Blend(weights=named, method=method) for method in self._gains for named in weights]

    def gains(self) -> npt.NDArray[np.float64]:
        """(n_examples, n_blends): NDCG@10 of each user with an answer, by each of `blends`."""
        return np.concatenate([np.array(by_user) for by_user in self._gains.values()], axis=1)

    def choose(self) -> BlendChoice:
        """Cross-validate all methods and return the blend of the best one."""
        gains, blends = self.gains(), self.blends
        candidates = _ranked(gains, blends, range(len(blends)))
        cross_validated = self._cross_validate(gains)
        method = preferred(cross_validated)
        if method == ALONE:
            best = _ranked(gains, blends, self._alone())[0]
            candidates = [best, *(one for one in candidates if one[0] is not best[0])]
        blend = _positive(candidates[0][0])
        if (
            method == LEARNED
            and (learned := blend_learned.fit(self.engines, self.examples)) is not None
        ):
            shares = blend_learned.shares(learned, self.examples)
            blend = Blend(
                weights={name: max(round(share, 4), 0.0001) for name, share in shares.items()},
                method="learned",
                learned=learned,
            )
            ndcg = float(blend_learned.ndcg(self.engines, learned, self.examples, CUTOFF).mean())
            candidates.insert(0, (blend, ndcg))
        return BlendChoice(
            blend,
            self.users,
            candidates,
            {method: float(values.mean()) for method, values in cross_validated.items()},
        )

    def choose_from_few(self, settings: Blend) -> BlendChoice:
        """The blend of the settings, or the engine that is better alone by more than chance."""
        gains, blends = self.gains(), self.blends
        default = next(
            (index for index, blend in enumerate(blends) if _positive(blend) == settings), None
        )
        alone = self._alone()
        ranked = _ranked(gains, blends, alone if default is None else [default, *alone])
        best = blends.index(ranked[0][0])
        if default is not None and not leads(gains[:, best], gains[:, default], CHANCE):
            best = default
        candidates = sorted(ranked, key=lambda one: one[0] is not blends[best])
        return BlendChoice(_positive(blends[best]), self.users, candidates, {})

    def _alone(self) -> list[int]:
        """The places, in `blends`, of each engine alone."""
        return np.flatnonzero((self.grid == 1).any(axis=1)).tolist()

    def _cross_validate(self, gains: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
        """Method -> (n_examples,) NDCG@10 of each user by the blend of the other folds.

        `gains (n_examples, n_blends)`: of every blend.

        Has no entry "learned" when one of the fits gives no weights.
        """
        folds, alone = np.arange(len(gains)) % FOLDS, self._alone()
        methods = {name: np.zeros(len(gains)) for name in (GRID_METHOD, ALONE, LEARNED)}
        for fold in np.unique(folds).tolist():
            held_out = folds == fold
            training_examples = [
                self.examples[index] for index in np.flatnonzero(~held_out).tolist()
            ]
            test_examples = [self.examples[index] for index in np.flatnonzero(held_out).tolist()]
            means = gains[~held_out].mean(axis=0)
            methods[GRID_METHOD][held_out] = gains[held_out, means.argmax()]
            methods[ALONE][held_out] = gains[held_out, alone[means[alone].argmax()]]
            weights = blend_learned.fit(self.engines, training_examples)
            if weights is None:
                methods.pop(LEARNED, None)
            elif LEARNED in methods:
                methods[LEARNED][held_out] = blend_learned.ndcg(
                    self.engines, weights, test_examples, CUTOFF
                )
        return methods


def preferred(cross_validated: Mapping[str, npt.NDArray[np.float64]]) -> str:
    """The method to serve: learned weights, unless the grid, or an engine alone, is better by more
    than the standard error of the difference.
    """
    best = LEARNED if LEARNED in cross_validated else GRID_METHOD
    for method in (GRID_METHOD, ALONE):
        if leads(cross_validated[method], cross_validated[best]):
            best = method
    return best


def leads(
    gains: npt.NDArray[np.float64], others: npt.NDArray[np.float64], errors: float = 1.0
) -> bool:
    """Whether the mean of `gains` is higher by more than `errors` standard errors.

    Both are (n,), of the same users.
    """
    lead = gains - others
    return bool(lead.mean() > errors * lead.std() / np.sqrt(len(lead)))


def _ranked(
    gains: npt.NDArray[np.float64], blends: Sequence[Blend], places: Sequence[int]
) -> list[tuple[Blend, float]]:
    """The blends at `places` with their mean NDCG@10, best first. `gains (n, len(blends))`."""
    means = gains.mean(axis=0)
    return [
        (blends[place], float(means[place])) for place in sorted(places, key=lambda at: -means[at])
    ]


def _positive(blend: Blend) -> Blend:
    """`blend` without the engines that it leaves out."""
    weights = {name: round(weight, 1) for name, weight in blend.weights.items() if weight > 0}
    return Blend(weights=weights, method=blend.method)
