"""Evaluates a bundle offline with the recommender that serves.

The recommender answers users as of the cut; their interactions after the cut judge the answers.

The state of each judged user is what Redis would hold of the events before the cut, and answers
come from the same `engines.recommender.Recommender` that the API calls: routing, fold-in, filters
and fallbacks included. Each engine is evaluated alone (without the items that fallbacks filled in),
and as routed, which is what users get.

Candidates are the whole catalogue minus the items that the user has. `population` says which users
are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as with_fields
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
import threadpoolctl
from msgspec.structs import replace

from core.settings import Settings
from core.types import Item, LiveVector, UserState
from engines import fold
from engines.builder import build
from engines.catalogue import Catalogue
from engines.router import CHAIN
from models.bundle import Bundle
from models.popular import Popularity
from training.data.dataset import Dataset, Split
from training.evaluation import answers as answering
from training.evaluation import metrics, processes
from training.evaluation.population import JudgedUsers
from training.progress import progress

ROUTED = answering.ROUTED
ENGINES = ("popular", "content_based", "als", "two_tower", "ensemble", ROUTED)
SEGMENTS = ("all", "cold", "warm", "hot")
RANKED = ("precision", "recall", "map", "ndcg")
LENGTH = max(metrics.CUTOFFS)
DIVERSITY_AT = 10
"""Length of list for diversity, coverage and novelty: the default length of an answer."""
NAMES = (
    *(f"{name}@{k}" for name in RANKED for k in metrics.CUTOFFS),
    f"diversity@{DIVERSITY_AT}",
    f"novelty@{DIVERSITY_AT}",
)
"""The columns of `Evaluation.values`; coverage belongs to a group of users, not to one."""


@dataclass(frozen=True)
class Inputs:
    """What evaluations of one split share: `items` is the catalogue, `popularity` as of the cut."""

    items: Sequence[Item]
    popularity: Popularity
    dataset: Dataset
    split: Split
    settings: Settings


@dataclass(frozen=True)
class Evaluation:
    """The metrics and the lists of every judged user.

    `values`: engine -> (n_users, len(NAMES)) float64; `ranked`: engine -> (n_users, LENGTH) int32
    rows of `judged.items`, without what fallbacks filled in, which `answers` have.
    """

    judged: JudgedUsers
    split: Split
    values: dict[str, metrics.Floats]
    ranked: dict[str, metrics.Rows]
    answers: dict[str, metrics.Rows]

    def mean(self, engine: str, name: str) -> float:
        """Mean over all judged users."""
        return float(np.nanmean(self.values[engine][:, NAMES.index(name)]))

    def answer_ndcg(self, engine: str, k: int) -> metrics.Floats:
        """(n_users,) float64: NDCG@k of the answers when `engine` is the first of the chain."""
        held_out = self.judged.held_out
        hits = metrics.hits(self.answers[engine], held_out)
        return metrics.ndcg(hits, metrics.held_out_counts(held_out), k)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row an engine, segment and metric.

        It has the mean, the 95% interval over users (coverage has none), and the number of users.
        """
        rows = []
        for part in SEGMENTS:
            selected = (
                np.ones(len(self.judged.users), np.bool_)
                if part == "all"
                else self.judged.segments == part
            )
            if not selected.any():
                continue
            engines = list(self.values)
            values = np.hstack([self.values[engine][selected] for engine in engines])
            present = ~np.isnan(values)
            means = np.where(
                present.any(axis=0),
                np.where(present, values, 0).sum(axis=0) / np.maximum(present.sum(axis=0), 1),
                np.nan,
            )
            low, high = metrics.bootstrap(values, self.judged.seed)
            for place, engine in enumerate(engines):
                base = {"engine": engine, "segment": part, "users": int(selected.sum())}
                for offset, name in enumerate(NAMES, place * len(NAMES)):
                    interval = {
                        "mean": rounded(means[offset]),
                        "low": rounded(low[offset]),
                        "high": rounded(high[offset]),
                    }
                    rows.append({**base, "metric": name, **interval})
                shown = metrics.coverage(
                    self.ranked[engine][selected][:, :DIVERSITY_AT], len(self.judged.items)
                )
                rows.append(
                    {
                        **base,
                        "metric": f"coverage@{DIVERSITY_AT}",
                        "mean": shown,
                        "low": None,
                        "high": None,
                    }
                )
        return rows


def evaluate(
    bundle: Bundle,
    inputs: Inputs,
    judged: JudgedUsers,
    engines: Sequence[str] = ENGINES,
    on_user: Callable[[], None] | None = None,
    most_processes: int | None = None,
) -> Evaluation:
    """Evaluate those of `engines` that `bundle` has, for every judged user.

    The users have ALS vectors that are folded in from all their events, as in Redis when the live
    workers keep up. `on_user`: called after each user, instead of a progress bar; may raise to
    stop. `most_processes`: instead of EVALUATION_PROCESSES; their number changes no result. Raises
    ModelError when an engine fails, ProcessFailed when a process is killed.
    """
    settings, split = inputs.settings, inputs.split
    recommender = build(bundle, Catalogue.of(inputs.items), inputs.popularity, settings)
    engines = [name for name in engines if name == ROUTED or name in recommender.engines]
    ranked = {engine: np.full((len(judged.users), LENGTH), -1, np.int32) for engine in engines}
    answers = {engine: ranked[engine].copy() for engine in engines}
    # Answers are made one by one, as when serving; BLAS threads would only wait for each other.
    with (
        threadpoolctl.threadpool_limits(1, "blas"),
        _user_callback(on_user, len(judged.users)) as user_done,
    ):
        states = _with_vectors(judged, inputs.dataset, bundle, recommender.made_with)
        users = list(zip(states, judged.filters, strict=True))
        answered_by = answering.AnsweredBy(recommender, engines, LENGTH)
        most = settings.evaluation_processes if most_processes is None else most_processes
        answered = processes.mapped(answering.answer, answered_by, users, most)
        for place, by_engine in enumerate(answered):
            for engine, (item_ids, own) in by_engine.items():
                rows = judged.items.rows(item_ids)
                answers[engine][place, : len(rows)] = rows
                ranked[engine][place, : sum(own)] = rows[own]
            user_done()
    values = {engine: _values(lists, judged) for engine, lists in ranked.items()}
    return Evaluation(judged, split, values, ranked, _of_chain(answers))


def with_routed(evaluation: Evaluation, engines: Sequence[str]) -> Evaluation:
    """The evaluation in which the router gives each user the engine of the same place."""
    routed = evaluation.ranked[ROUTED].copy()
    for place, engine in enumerate(engines):
        routed[place] = evaluation.answers[engine][place]
    return with_fields(
        evaluation,
        values={**evaluation.values, ROUTED: _values(routed, evaluation.judged)},
        ranked={**evaluation.ranked, ROUTED: routed},
        answers={**evaluation.answers, ROUTED: routed},
    )


def _of_chain(answers: dict[str, metrics.Rows]) -> dict[str, metrics.Rows]:
    """`answers`, and for an engine of the chain that was not evaluated those of its fallback."""
    complete = dict(answers)
    for engine, fallback in reversed(list(pairwise(CHAIN))):
        if engine not in complete and fallback in complete:
            complete[engine] = complete[fallback]
    return complete


@contextmanager
def _user_callback(on_user: Callable[[], None] | None, users: int) -> Iterator[Callable[[], None]]:
    if on_user is not None:
        yield on_user
    else:
        with progress("evaluating", users) as show:
            yield show.advance


def _with_vectors(
    judged: JudgedUsers, dataset: Dataset, bundle: Bundle, made_with: str
) -> list[UserState]:
    model = bundle.als
    if model is None:
        return judged.states
    entries = judged.weights.tocoo()
    columns = model.item_ids.rows(dataset.items.ids)[entries.col]
    known = columns >= 0
    shape = (len(judged.states), len(model.item_ids))
    vectors = fold.solve(
        model,
        sp.csr_matrix((entries.data[known], (entries.row[known], columns[known])), shape=shape),
    )
    return [
        replace(
            state,
            als=LiveVector(
                bundle.version or "", made_with, state.events, vector.astype("<f4").tobytes()
            ),
        )
        for state, vector in zip(judged.states, vectors, strict=True)
    ]


def _values(ranked: metrics.Rows, judged: JudgedUsers) -> metrics.Floats:
    hits, counts = metrics.hits(ranked, judged.held_out), metrics.held_out_counts(judged.held_out)
    formulas = {
        "precision": lambda k: metrics.precision(hits, k),
        "recall": lambda k: metrics.recall(hits, counts, k),
        "map": lambda k: metrics.average_precision(hits, counts, k),
        "ndcg": lambda k: metrics.ndcg(hits, counts, k),
    }
    top = ranked[:, :DIVERSITY_AT]
    return np.column_stack(
        [
            *(formulas[name](k) for name in RANKED for k in metrics.CUTOFFS),
            metrics.diversity(top, judged.vectors),
            metrics.novelty(top, judged.users_by_item, judged.n_users),
        ]
    )


def rounded(value: float) -> float | None:
    """`value` with six decimals; None for NaN."""
    return None if np.isnan(value) else round(float(value), 6)
