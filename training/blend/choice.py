"""Chooses the blend that the ensemble serves, by users whom the evaluation does not judge.

A bundle's models are fitted before the cut, and its evaluation judges users by their interactions
after it. Other users with new interactions after the cut choose the blend. So the choice needs no
extra fit and never uses the users that it is judged by.

1. Every blend on a grid of tenths, by every blending method, is scored by NDCG@10 for each of these
   users.
2. Learned weights (training/blend/learned.py) are fitted on the same users.
3. Both are cross-validated over FOLDS folds: made by the other folds, scored on the fold that was
   held out.
4. The learned blend is served, fitted again on all users, unless the grid, or one engine alone, is
   better by more than the standard error of the difference: the best of hundreds of grid points is
   partly chance, and learned weights vary less with the users they are fitted on.

With fewer than LEAST_USERS users, the best of so many blends is chance. They only choose between
the blend of the settings and each engine alone, which must be better by more than chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import threadpoolctl
from rich.console import Console

from core.process.tables import Column, Table
from core.settings import Settings
from core.types import Request, UserState
from engines.base import NotApplicable, Scoring, eligible
from engines.builder import build
from engines.catalogue import Catalogue
from engines.engine_builders import BLEND_SETTINGS, blend_of
from engines.recommender import Recommender
from models.bundle import Bundle
from models.ensemble import Blend
from training.blend.grid import CUTOFF, BlendChoice, BlendSearch
from training.evaluation import population
from training.evaluation.evaluate import Inputs
from training.evaluation.population import JudgedUsers, Sample
from training.progress import progress
from training.two_tower import command as two_tower_command

ENGINES = ("als", "two_tower", "content_based", "popular")
"""Engines that may be blended, those of the default blend first."""
USERS = 1000
"""Users who choose: the NDCG@10 of two blends then differs by chance by about 0.003."""
LEAST_USERS = 100
"""With fewer users the best grid point is chance; one engine alone may still be far better."""
FEWEST_USERS = 20
"""With fewer users the blend of the settings stays."""
LEAST_SHARE = 0.95
"""Share of users that an engine must be able to score to be blended: the ensemble answers only when
each of its engines does.
"""
REPORTED_BLENDS = 5


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
    when these are too few, warm users too, and then all.

    Returns None when the settings fix the blend (BLEND_SETTINGS), the ensemble is
    off, fewer than two engines beside popularity can be blended, or fewer than FEWEST_USERS users
    may choose. Raises DatasetError when no user has a new interaction after the cut; the caller
    keeps the blend of the settings.
    """
    settings = inputs.settings
    if not may_choose(settings):
        return None
    assert bundle.content is not None, "users are judged by content's item ids"
    recommender = build(bundle, Catalogue.of(inputs.items), inputs.popularity, settings)
    sample = Sample(users + len(excluded), seed + 1)
    drawn = population.draw(inputs.dataset, inputs.split, bundle.content, settings, sample)
    places = _choosing(drawn, excluded)[:users].tolist()
    requests = [(drawn.states[place], Request(filters=drawn.filters[place])) for place in places]
    with threadpoolctl.threadpool_limits(1, "blas"):
        engines = _blendable_engines(recommender, requests)
        if len({*engines} - {"popular"}) < 2 or len(places) < FEWEST_USERS:
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
    if len(places) >= LEAST_USERS:
        return search.choose()
    return search.choose_from_few(blend_of(settings))


def _choosing(drawn: JudgedUsers, excluded: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
    """(n,) intp: places in `drawn` of the users who choose."""
    others = ~np.isin(drawn.users, excluded)
    groups = (np.isin(drawn.segments, segments) for segments in (["hot"], ["hot", "warm"]))
    for group in groups:
        if np.count_nonzero(others & group) >= LEAST_USERS:
            return np.flatnonzero(others & group)
    return np.flatnonzero(others)


def may_choose(settings: Settings) -> bool:
    """Whether the ensemble is on and its blend is not set."""
    return settings.enable_ensemble and settings.model_fields_set.isdisjoint(BLEND_SETTINGS)


def reserve(settings: Settings) -> int:
    """Users that a draw of judged users should leave to choose the blend."""
    if two_tower_command.unavailable(settings) is not None or not may_choose(settings):
        return 0
    return LEAST_USERS


def save(choice: BlendChoice | None, folder: Path) -> None:
    """Write the blend's part of a bundle into `folder`; does nothing without a choice."""
    if choice is not None:
        choice.blend.save(folder)


def report(choice: BlendChoice, console: Console) -> None:
    """Print the best blends, and each engine alone."""
    engines = list(choice.candidates[-1][0].weights)
    table = Table(
        *(Column(name, number=True) for name in (*engines, "method", f"NDCG@{CUTOFF}")),
        title=f"Blends by NDCG@{CUTOFF} over {choice.users} users who are not judged below",
    )
    single = [
        (blend, ndcg)
        for blend, ndcg in choice.candidates
        if max(blend.weights.values()) == 1 and blend.method == "min_max"
    ]
    for section in (choice.candidates[:REPORTED_BLENDS], single):
        for blend, ndcg in section:
            table.add(
                *(f"{blend.weights.get(name, 0.0):.2g}" for name in engines),
                blend.method,
                f"{ndcg:.4f}",
            )
        table.add_section()
    table.show(console)
    if not choice.cross_validated:
        console.print(
            f"So few users choose only between the blend of the settings and each engine alone. "
            f"Chosen: {_weights(choice.blend)}."
        )
        return
    cross_validated = ", ".join(
        f"{method} {ndcg:.4f}" for method, ndcg in choice.cross_validated.items()
    )
    console.print(
        f"Cross-validated NDCG@{CUTOFF}: {cross_validated}. Chosen: {choice.blend.method}."
    )


def _weights(blend: Blend) -> str:
    return ", ".join(f"{weight:g} {name}" for name, weight in blend.weights.items())


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
    """One scoring an engine, in the order of `engines`.

    Empty when an engine cannot score the user, since the ensemble would not answer then.
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
