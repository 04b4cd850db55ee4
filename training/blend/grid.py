"""Chooses the blend that the ensemble serves, by users whom the evaluation does not judge.

A bundle's models are fitted before the cut, and its evaluation judges users by their interactions
after it. Other users with new interactions after the cut choose the blend. So the choice needs no
extra fit and never uses the users that it is judged by.

1. Every blend on a grid of tenths, by every blending method, is scored by NDCG@10 for each of these
   users.
2. Learned weights (training/blend/learned.py) are fitted on the same users.
3. Both are cross-validated over FOLDS folds: made by the other folds, scored on the fold that was
   held out.
4. The learned blend is served, fitted again on all users, unless the grid is better by more than
   the standard error of the difference: the best of hundreds of grid points is partly chance, and
   learned weights vary less with the users they are fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl
from rich.console import Console
from rich.table import Table

from core.types import BlendMethod, Request, UserState
from engines.base import NotApplicable, Scoring, eligible
from engines.blending.scales import SCALES, blend_scores
from engines.builder import BLEND_SETTINGS, build
from engines.catalogue import Catalogue, Mask
from engines.recommender import Recommender
from models.bundle import Bundle
from models.ensemble import Blend
from training.blend import learned as blend_learned
from training.blend.learned import Example
from training.evaluation import metrics, population
from training.evaluation.evaluate import Inputs
from training.progress import progress

ENGINES = ("als", "two_tower", "content_based", "popular")
"""Engines that may be blended, those of the default blend first."""
USERS = 1000
"""Users who choose: the NDCG@10 of two blends then differs by chance by about 0.003."""
LEAST_USERS = 100
"""With fewer users the best grid point is chance, so the blend of the settings stays."""
LEAST_SHARE = 0.95
"""Share of users that an engine must be able to score to be blended: the ensemble answers only when
each of its engines does.
"""
CANDIDATES = 200
"""Best items of each engine that are blended: an item below that in every engine is practically
never among the first ten.
"""
TENTHS = 10
FOLDS = 5
REPORTED_BLENDS = 5
_CUTOFF = 10


@dataclass(frozen=True)
class BlendChoice:
    """The chosen `blend`, and how it was chosen.

    `users`: users who chose. `candidates`: the chosen blend when it is learned, then every grid
    point, best first, with NDCG@10 over these users; slightly too high, because the same users
    chose. `cross_validated`: method ("mixture" for the grid, "learned") -> mean NDCG@10 over
    held-out folds.
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
    """Scores every blend of `engines` on the grid, and collects the examples that learned weights
    are fitted on.

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
            length = min(_CUTOFF, len(candidates))
            top = np.argpartition(-blended, length - 1, axis=1)[:, :length]
            order = np.argsort(-np.take_along_axis(blended, top, axis=1), axis=1, kind="stable")
            hits = relevant[candidates][np.take_along_axis(top, order, axis=1)]
            gains.append(metrics.ndcg(hits, np.full(len(self.grid), max(n_relevant, 1)), _CUTOFF))

    @property
    def blends(self) -> list[Blend]:
        """Every grid point by every blending method, those of the first method first."""
        weights = [dict(zip(self.engines, point.tolist(), strict=True)) for point in self.grid]
        return [Blend(weights=named, method=method) for method in self._gains for named in weights]

    def gains(self) -> npt.NDArray[np.float64]:
        """(n_examples, n_blends): NDCG@10 of each user with an answer, by each of `blends`."""
        return np.concatenate([np.array(by_user) for by_user in self._gains.values()], axis=1)

    def choose(self) -> BlendChoice:
        """Cross-validate both methods and return the blend of the better one."""
        gains, blends = self.gains(), self.blends
        means = gains.mean(axis=0)
        candidates = [
            (blends[index], float(means[index]))
            for index in np.argsort(-means, kind="stable").tolist()
        ]
        best = candidates[0][0]
        blend = Blend(
            weights={name: round(weight, 1) for name, weight in best.weights.items() if weight > 0},
            method=best.method,
        )
        cross_validated = self._cross_validate(gains)
        if (
            _prefers_learned(cross_validated)
            and (learned := blend_learned.fit(self.engines, self.examples)) is not None
        ):
            shares = blend_learned.shares(learned, self.examples)
            blend = Blend(
                weights={name: max(round(share, 4), 0.0001) for name, share in shares.items()},
                method="learned",
                learned=learned,
            )
            ndcg = float(blend_learned.ndcg(self.engines, learned, self.examples, _CUTOFF).mean())
            candidates.insert(0, (blend, ndcg))
        return BlendChoice(
            blend,
            self.users,
            candidates,
            {method: float(values.mean()) for method, values in cross_validated.items()},
        )

    def _cross_validate(self, gains: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
        """Method -> (n_examples,) NDCG@10 of each user by the blend of the other folds; `gains
        (n_examples, n_blends)`.

        Has no entry "learned" when one of the fits gives no weights.
        """
        folds = np.arange(len(gains)) % FOLDS
        grid, learned = np.zeros(len(gains)), np.zeros(len(gains))
        for fold in np.unique(folds).tolist():
            held_out = folds == fold
            training_examples = [
                self.examples[index] for index in np.flatnonzero(~held_out).tolist()
            ]
            test_examples = [self.examples[index] for index in np.flatnonzero(held_out).tolist()]
            weights = blend_learned.fit(self.engines, training_examples)
            if weights is None:
                return {"mixture": gains[:, gains.mean(axis=0).argmax()]}
            grid[held_out] = gains[held_out, gains[~held_out].mean(axis=0).argmax()]
            learned[held_out] = blend_learned.ndcg(self.engines, weights, test_examples, _CUTOFF)
        return {"mixture": grid, "learned": learned}


def _prefers_learned(cross_validated: Mapping[str, npt.NDArray[np.float64]]) -> bool:
    """Whether the lead of the grid is at most the standard error of the difference."""
    if "learned" not in cross_validated:
        return False
    lead = cross_validated["mixture"] - cross_validated["learned"]
    return bool(lead.mean() <= lead.std() / np.sqrt(len(lead)))


def choose(
    bundle: Bundle,
    inputs: Inputs,
    excluded: npt.NDArray[np.int32],
    seed: int,
    users: int = USERS,
) -> BlendChoice | None:
    """Choose the best blend of the engines of `bundle`, which were fitted before the cut.

    `excluded (n,)` int32: rows of dataset users who must not choose, because they are judged with
    the blend. `seed` draws at most `users` others: those whom the router gives to the ensemble, or,
    when these are too few, all.

    Returns None when the settings fix the blend (engines.builder.BLEND_SETTINGS), the ensemble is
    off, fewer than two engines beside popularity can be blended, or fewer than LEAST_USERS users
    may choose. Raises DatasetError when no user has a new interaction after the cut; the caller
    keeps the blend of the settings.
    """
    settings = inputs.settings
    if not settings.enable_ensemble or not settings.model_fields_set.isdisjoint(BLEND_SETTINGS):
        return None
    assert bundle.content is not None, "users are judged by content's item ids"
    recommender = build(bundle, Catalogue.of(inputs.items), inputs.popularity, settings)
    drawn = population.draw(
        inputs.dataset, inputs.split, bundle.content, settings, users + len(excluded), seed + 1
    )
    others = ~np.isin(drawn.users, excluded)
    hot = others & (drawn.segments == "hot")
    places = np.flatnonzero(hot if np.count_nonzero(hot) >= LEAST_USERS else others)[
        :users
    ].tolist()
    requests = [(drawn.states[place], Request(filters=drawn.filters[place])) for place in places]
    with threadpoolctl.threadpool_limits(1, "blas"):
        engines = _blendable_engines(recommender, requests)
        if len({*engines} - {"popular"}) < 2 or len(places) < LEAST_USERS:
            return None
        search = BlendSearch(engines)
        with progress("choosing the blend", len(places)) as show:
            for place, (state, request) in zip(places, requests, strict=True):
                relevant = np.zeros(len(recommender.catalogue.ids), np.bool_)
                relevant[
                    recommender.catalogue.rows_of(
                        drawn.items.ids[row] for row in drawn.held_out[place].indices
                    )
                ] = True
                eligible_rows = eligible(recommender.catalogue, state, request)
                scorings = _scorings(recommender, engines, state, request)
                search.add_user(
                    scorings, eligible_rows, relevant, recommender.catalogue, state.events
                )
                show.advance()
    return search.choose()


def save(choice: BlendChoice | None, folder: Path) -> None:
    """Write the blend's part of a bundle into `folder`; does nothing without a choice."""
    if choice is not None:
        choice.blend.save(folder)


def report(choice: BlendChoice, console: Console) -> None:
    """Print the best blends, and each engine alone."""
    table = Table(
        title=f"Blends by NDCG@{_CUTOFF} over {choice.users} users who are not judged below"
    )
    engines = list(choice.candidates[-1][0].weights)
    for column in (*engines, "fusion", f"NDCG@{_CUTOFF}"):
        table.add_column(column, justify="right")
    single = [
        (blend, ndcg)
        for blend, ndcg in choice.candidates
        if max(blend.weights.values()) == 1 and blend.method == "min_max"
    ]
    for section in (choice.candidates[:REPORTED_BLENDS], single):
        for blend, ndcg in section:
            table.add_row(
                *(f"{blend.weights.get(name, 0.0):.2g}" for name in engines),
                blend.method,
                f"{ndcg:.4f}",
            )
        table.add_section()
    console.print(table)
    cross_validated = ", ".join(
        f"{method} {ndcg:.4f}" for method, ndcg in choice.cross_validated.items()
    )
    console.print(
        f"Cross-validated NDCG@{_CUTOFF}: {cross_validated}. Chosen: {choice.blend.method}."
    )


def _blendable_engines(
    recommender: Recommender, requests: Sequence[tuple[UserState, Request]]
) -> list[str]:
    """The engines that can score at least LEAST_SHARE of the first users."""
    sample = requests[:LEAST_USERS]
    counts = {
        engine: sum(
            _score(recommender, engine, state, request) is not None for state, request in sample
        )
        for engine in ENGINES
        if recommender.unavailable(engine) is None
    }
    return [engine for engine, count in counts.items() if count >= LEAST_SHARE * len(sample)]


def _scorings(
    recommender: Recommender, engines: Sequence[str], state: UserState, request: Request
) -> list[Scoring]:
    """One scoring an engine; empty when one engine cannot score the user, since the ensemble would
    not answer then.
    """
    scorings = [
        scoring
        for engine in engines
        if (scoring := _score(recommender, engine, state, request)) is not None
    ]
    return scorings if len(scorings) == len(engines) else []


def _score(
    recommender: Recommender, engine: str, state: UserState, request: Request
) -> Scoring | None:
    try:
        return recommender.engines[engine].score(state, request)
    except NotApplicable:
        return None
