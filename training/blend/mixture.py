"""Which blend the ensemble should serve: weights and fusion method, chosen by users who are not judged with it.

A bundle's models are fitted before the cut, and its evaluation judges users by what they took after it. Other users with something after
the cut choose here, so the choice costs no fit of its own and never sees what it is judged by. Two ways are tried: the best of every
mixture of the engines on a grid of tenths, by both methods of fusion, and a learned blend (training/blend/learned.py). Each is made by four
fifths of the voters and judged by the last, in turn. The learned one is served, made once more by all voters, unless the mixture was better
by more than the standard error of the difference: the best of hundreds of mixtures is luck to a part, and learned weights change less with
those who teach them.
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

from core.settings import Settings
from core.types import Fusion, Item, Request, UserState
from engines.base import NotApplicable, Scoring, eligible
from engines.blending.scales import SCALES, blend_scores
from engines.builder import BLEND_SETTINGS, build
from engines.catalogue import Catalogue, Mask
from engines.recommender import Recommender
from models.bundle import Bundle
from models.ensemble import Blend
from models.popular import Popularity
from training.blend import learned as blend_learned
from training.blend.learned import Vote
from training.data.dataset import Dataset, Split
from training.evaluation import evaluate, metrics
from training.progress import progress

PARTS = ("als", "two_tower", "content_based", "popular")
"""Engines that may be blended, the default blend's first."""
USERS = 1000
"""Users who choose: the NDCG@10 of two mixtures then differs by chance by some 0.003."""
LEAST_USERS = 100
"""With fewer a grid finds luck, so the settings' blend stays."""
LEAST_SHARE = 0.95
"""An engine that has nothing to go by for more users than the rest of this is no part: the ensemble answers only when every part does."""
LONGEST = 200
"""Best items of each part that a mixture may choose from: what no part has among these is in no mixture's first ten, but for odd cases."""
TENTHS = 10
FOLDS = 5
SHOWN = 5
_CUTOFF = 10


@dataclass(frozen=True)
class Chosen:
    """`blend`, chosen by so many `users`; `tried`: it, then every mixture, best first, with these users' NDCG@10, a little too good.

    `unseen`: what each way of making a blend, `mixture` and `learned`, reached for voters who had no part in making it.
    """

    blend: Blend
    users: int
    tried: list[tuple[Blend, float]]
    unseen: dict[str, float]

    @property
    def ndcg(self) -> float:
        """NDCG@10 of the chosen blend."""
        return self.tried[0][1]

    def table(self) -> dict[str, Any]:
        """Every blend, for the report."""
        rows = [
            {
                "weights": {name: round(weight, 2) for name, weight in blend.weights.items()},
                "fusion": blend.fusion,
                "ndcg@10": round(ndcg, 6),
            }
            for blend, ndcg in self.tried
        ]
        return {"users": self.users, "tried": rows}

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        unseen = {name: round(ndcg, 6) for name, ndcg in self.unseen.items()}
        facts = {"weights": self.blend.weights, "fusion": self.blend.fusion, "ndcg@10": round(self.ndcg, 6), "users": self.users}
        return {**facts, "unseen_ndcg@10": unseen}


class Ballot:
    """Every mixture of the engines `names` in tenths, `mixtures (n, n_names)` f32, by every method of fusion, and what voters gain."""

    def __init__(self, names: Sequence[str]) -> None:
        tenths = [each for each in product(range(TENTHS + 1), repeat=len(names)) if sum(each) == TENTHS]
        self.names, self.voters = list(names), 0
        self.mixtures = np.array(tenths, dtype=np.float32) / np.float32(TENTHS)
        self._gains: dict[Fusion, list[npt.NDArray[np.float64]]] = {method: [] for method in SCALES}
        self.votes: list[Vote] = []

    def vote(self, scorings: Sequence[Scoring], allowed: Mask, wanted: Mask, catalogue: Catalogue, events: int) -> None:
        """Add one user of so many `events`, who took `wanted (n_rows,)` of the `allowed (n_rows,)`; `scorings` in the order of the names.

        Without scorings, for a user whom the ensemble would not answer, nothing is added.
        """
        self.voters += 1
        if not scorings:
            return
        dead = np.flatnonzero(~catalogue.alive)
        best = np.unique([row for scoring in scorings for row in scoring.top(allowed, LONGEST)])
        candidates = best if len(best) else np.flatnonzero(allowed)
        for method, gains in self._gains.items():
            _, scaled = blend_scores(method, [scoring.scores for scoring in scorings], [1.0] * len(scorings), dead)
            mine = scaled[:, candidates]
            blended = self.mixtures @ mine
            if method == "min_max":
                self.votes.append(Vote(mine, wanted[candidates], int(wanted.sum()), events))
            length = min(_CUTOFF, len(candidates))
            top = np.argpartition(-blended, length - 1, axis=1)[:, :length]
            order = np.argsort(-np.take_along_axis(blended, top, axis=1), axis=1, kind="stable")
            found = wanted[candidates][np.take_along_axis(top, order, axis=1)]
            gains.append(metrics.ndcg(found, np.full(len(self.mixtures), max(int(wanted.sum()), 1)), _CUTOFF))

    @property
    def blends(self) -> list[Blend]:
        """Every mixture by every method, those of the first method first."""
        named = [dict(zip(self.names, mixture.tolist(), strict=True)) for mixture in self.mixtures]
        return [Blend(weights=weights, fusion=method) for method in self._gains for weights in named]

    def gains(self) -> npt.NDArray[np.float64]:
        """(n_voters, n_blends): the NDCG@10 of each voter with an answer, by each of `blends`."""
        return np.concatenate([np.array(found) for found in self._gains.values()], axis=1)

    def chosen(self) -> Chosen:
        """The blend that does best for voters who had no part in making it."""
        gains, blends = self.gains(), self.blends
        means = gains.mean(axis=0)
        tried = [(blends[at], float(means[at])) for at in np.argsort(-means, kind="stable").tolist()]
        best = tried[0][0]
        blend = Blend(weights={name: round(weight, 1) for name, weight in best.weights.items() if weight > 0}, fusion=best.fusion)
        unseen = self._unseen(gains)
        if _learned_serves(unseen) and (learned := blend_learned.fit(self.names, self.votes)) is not None:
            shares = blend_learned.shares(learned, self.votes)
            blend = Blend(weights={name: max(round(share, 4), 0.0001) for name, share in shares.items()}, fusion="learned", learned=learned)
            tried.insert(0, (blend, float(blend_learned.ndcg(self.names, learned, self.votes, _CUTOFF).mean())))
        return Chosen(blend, self.voters, tried, {way: float(each.mean()) for way, each in unseen.items()})

    def _unseen(self, gains: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
        """Way -> (n_voters,) NDCG@10 of each voter, by what the other fifths made; `gains (n_voters, n_blends)`. Without `learned` where
        there is nothing to learn from."""
        fold = np.arange(len(gains)) % FOLDS
        found = {"mixture": np.zeros(len(gains)), "learned": np.zeros(len(gains))}
        for at in np.unique(fold).tolist():
            apart = fold == at
            others, held_out = ([vote for vote, of in zip(self.votes, apart.tolist(), strict=True) if of == out] for out in (False, True))
            learned = blend_learned.fit(self.names, others)
            if learned is None:
                return {"mixture": gains[:, gains.mean(axis=0).argmax()]}
            found["mixture"][apart] = gains[apart, gains[~apart].mean(axis=0).argmax()]
            found["learned"][apart] = blend_learned.ndcg(self.names, learned, held_out, _CUTOFF)
        return found


def _learned_serves(unseen: Mapping[str, npt.NDArray[np.float64]]) -> bool:
    if "learned" not in unseen:
        return False
    lead = unseen["mixture"] - unseen["learned"]
    return bool(lead.mean() <= lead.std() / np.sqrt(len(lead)))


def choose(
    bundle: Bundle,
    items: Sequence[Item],
    popularity: Popularity,
    dataset: Dataset,
    split: Split,
    apart: npt.NDArray[np.int32],
    seed: int,
    settings: Settings,
    users: int = USERS,
) -> Chosen | None:
    """The best blend of `bundle`'s engines, which were fitted before the cut.

    None when somebody has set the blend (engines.builder.BLEND_SETTINGS) or the ensemble is off, and with fewer than two engines beside
    popularity or too few users beside those who stand `apart (n,)`, rows of the dataset: they are judged with it.

    `popularity`: as of the cut; `seed` draws the voters. Users whom the router gives to the ensemble choose, unless there are too few of
    them: then all do. Raises DatasetError when nobody took anything new after the cut.
    """
    if not settings.enable_ensemble or not settings.model_fields_set.isdisjoint(BLEND_SETTINGS):
        return None
    assert bundle.content is not None, "users are judged by content's item ids"
    recommender = build(bundle, Catalogue.of(items), popularity, settings)
    drawn = evaluate.judge(dataset, split, bundle.content, settings, users + len(apart), seed + 1)
    others = ~np.isin(drawn.users, apart)
    hot = others & (drawn.segments == "hot")
    voters = np.flatnonzero(hot if np.count_nonzero(hot) >= LEAST_USERS else others)[:users]
    questions = [(drawn.states[at], Request(filters=drawn.filters[at])) for at in voters.tolist()]
    with threadpoolctl.threadpool_limits(1, "blas"):
        names = _parts(recommender, questions)
        if len({*names} - {"popular"}) < 2 or len(voters) < LEAST_USERS:
            return None
        ballot = Ballot(names)
        with progress("choosing the blend", len(voters)) as show:
            for at, (state, request) in zip(voters.tolist(), questions, strict=True):
                wanted = np.zeros(len(recommender.catalogue.ids), np.bool_)
                wanted[recommender.catalogue.rows_of(drawn.items.ids[row] for row in drawn.held_out[at].indices)] = True
                allowed = eligible(recommender.catalogue, state, request)
                ballot.vote(_asked(recommender, names, state, request), allowed, wanted, recommender.catalogue, state.events)
                show.advance()
    return ballot.chosen()


def save(chosen: Chosen | None, folder: Path) -> None:
    """Write the blend's part of a bundle, if there is one."""
    if chosen is not None:
        chosen.blend.save(folder)


def report(chosen: Chosen, console: Console) -> None:
    """The best mixtures, and each engine alone."""
    table = Table(title=f"Blends by NDCG@{_CUTOFF} over {chosen.users} users who are not judged below")
    names = list(chosen.tried[-1][0].weights)
    for column in (*names, "fusion", f"NDCG@{_CUTOFF}"):
        table.add_column(column, justify="right")
    alone = [pair for pair in chosen.tried if max(pair[0].weights.values()) == 1 and pair[0].fusion == "min_max"]
    for section in (chosen.tried[:SHOWN], alone):
        for blend, ndcg in section:
            table.add_row(*(f"{blend.weights.get(name, 0.0):.2g}" for name in names), blend.fusion, f"{ndcg:.4f}")
        table.add_section()
    console.print(table)
    told = ", ".join(f"{way} {ndcg:.4f}" for way, ndcg in chosen.unseen.items())
    console.print(f"NDCG@{_CUTOFF} for voters who had no part in making it: {told}. Chosen: {chosen.blend.fusion}.")


def _parts(recommender: Recommender, questions: Sequence[tuple[UserState, Request]]) -> list[str]:
    """The engines that have something to go by for nearly all users."""
    asked = questions[:LEAST_USERS]
    counts = {
        name: sum(_score(recommender, name, state, request) is not None for state, request in asked)
        for name in PARTS
        if recommender.unavailable(name) is None
    }
    return [name for name, count in counts.items() if count >= LEAST_SHARE * len(asked)]


def _asked(recommender: Recommender, names: Sequence[str], state: UserState, request: Request) -> list[Scoring]:
    """The scorings of the engines; none when one of them has nothing to go by, as then the ensemble would not answer."""
    found = [scoring for name in names if (scoring := _score(recommender, name, state, request)) is not None]
    return found if len(found) == len(names) else []


def _score(recommender: Recommender, name: str, state: UserState, request: Request) -> Scoring | None:
    try:
        return recommender.engines[name].score(state, request)
    except NotApplicable:
        return None
