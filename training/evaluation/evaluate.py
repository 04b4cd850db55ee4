"""How good the answers are: the recommender that serves, asked about users as they stood at the cut, judged by what they took after it.

Each sampled user's state is what Redis would hold of the events before the cut, and the answer comes from the same
`engines.recommender.Recommender` that the API calls: routing, fold-in, filters and fallbacks included. Engines are judged alone (an
item that another engine filled in for them is not theirs) and as routed, which is what users get.

Who is judged: users who took something new after the cut, at most `max_users` of them, drawn by a recorded seed. What counts: an item with
an event of weight above 0 after the cut that the user had no event with before. Candidates: the whole catalogue minus what the user has.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import threadpoolctl
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from core.errors import DatasetError, ModelError
from core.settings import Settings
from core.types import Filters, Item, LiveVector, Recommendations, Request, UserState
from engines import fold
from engines.builder import build
from engines.catalogue import Catalogue
from engines.recommender import Recommender
from engines.router import segment
from models.bundle import Bundle
from models.content import ContentModel
from models.id_map import IdMap
from models.popular import Popularity
from training.data.dataset import Dataset, Split
from training.evaluation import metrics
from training.progress import progress

ROUTED = "routed"
ENGINES = ("popular", "content_based", "als", "two_tower", "ensemble", ROUTED)
SEGMENTS = ("all", "cold", "warm", "hot")
RANKED = ("precision", "recall", "map", "ndcg")
LENGTH = max(metrics.CUTOFFS)
DIVERSITY_AT = 10
"""Places over which diversity and novelty are averaged: the default length of an answer."""
NAMES = (*(f"{name}@{k}" for name in RANKED for k in metrics.CUTOFFS), f"diversity@{DIVERSITY_AT}", f"novelty@{DIVERSITY_AT}")
"""The columns of `Evaluation.values`; coverage belongs to a group of users, not to one."""


@dataclass(frozen=True)
class Judged:
    """Who is judged, and what every bundle is judged with.

    `users (n,) int32` rows of the dataset, drawn by `seed` from `out_of`; `states` as they stood at the cut, `filters` of the questions
    about them, `weights (n, n_items of the dataset)` f32 CSR of their histories; `segments (n,)` by events before the cut; `held_out
    (n, n_items)` CSR over `items`; `vectors (n_items, n_terms)` f32 CSR of content; `users_by_item (n_items,)` of the `n_users` before
    the cut.
    """

    users: npt.NDArray[np.int32]
    states: list[UserState]
    filters: list[Filters]
    weights: sp.csr_matrix
    segments: npt.NDArray[np.str_]
    held_out: sp.csr_matrix
    items: IdMap
    vectors: sp.csr_matrix
    users_by_item: npt.NDArray[np.int64]
    n_users: int
    seed: int
    out_of: int


@dataclass(frozen=True)
class Evaluation:
    """`values`: engine -> (n_users, len(NAMES)) float64; `ranked`: engine -> (n_users, LENGTH) int32 rows of `judged.items`."""

    judged: Judged
    split: Split
    values: dict[str, metrics.Floats]
    ranked: dict[str, metrics.Rows]

    def mean(self, engine: str, name: str) -> float:
        """Mean over all judged users."""
        return float(np.nanmean(self.values[engine][:, NAMES.index(name)]))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row an engine, segment and metric: mean, 95% interval over users (coverage has none), number of users."""
        rows = []
        for part in SEGMENTS:
            chosen = np.ones(len(self.judged.users), np.bool_) if part == "all" else self.judged.segments == part
            if not chosen.any():
                continue
            engines = list(self.values)
            values = np.hstack([self.values[engine][chosen] for engine in engines])
            present = ~np.isnan(values)
            means = np.where(present.any(axis=0), np.where(present, values, 0).sum(axis=0) / np.maximum(present.sum(axis=0), 1), np.nan)
            low, high = metrics.bootstrap(values, self.judged.seed)
            for place, engine in enumerate(engines):
                base = {"engine": engine, "segment": part, "users": int(chosen.sum())}
                for offset, name in enumerate(NAMES, place * len(NAMES)):
                    interval = {"mean": _number(means[offset]), "low": _number(low[offset]), "high": _number(high[offset])}
                    rows.append({**base, "metric": name, **interval})
                shown = metrics.coverage(self.ranked[engine][chosen][:, :DIVERSITY_AT], len(self.judged.items))
                rows.append({**base, "metric": f"coverage@{DIVERSITY_AT}", "mean": shown, "low": None, "high": None})
        return rows


def judge(dataset: Dataset, split: Split, content: ContentModel, settings: Settings, max_users: int, seed: int) -> Judged:
    """Draw the users. `content`: fitted on the catalogue. Raises DatasetError when nobody took anything new after the cut."""
    had, taken = dataset.touched(split.train), dataset.touched(~split.train & (dataset.weight > 0))
    new = (taken - taken.multiply(had)).tocsr()
    new.eliminate_zeros()
    everyone = np.flatnonzero(np.diff(new.indptr)).astype(np.int32)
    if not len(everyone):
        raise DatasetError(f"nobody took an item after the cut at {split.cut:.0f} that they did not have before: nothing to judge by")
    users = everyone
    if len(users) > max_users:
        users = np.sort(np.random.default_rng(seed).choice(users, max_users, replace=False))
    items = IdMap(list(dict.fromkeys([*dataset.items.ids, *content.item_ids.ids])))
    mine = new[users]
    held_out = sp.csr_matrix((mine.data, mine.indices, mine.indptr), shape=(len(users), len(items)))
    events = np.diff(dataset.indptr) - np.bincount(dataset.user[~split.train], minlength=len(dataset.users))
    vectors = content.item_vectors.tocoo()
    rows = items.rows(content.item_ids.ids)[vectors.row]
    cap = settings.history_cap
    taken_before = [dataset.of_user(user, split.train) for user in users.tolist()]
    return Judged(
        users=users,
        states=[dataset.state(user, split.train, cap) for user in users.tolist()],
        filters=[Filters(available_only=False, exclude_items=_forgotten(dataset, rows[:-cap])) for rows in taken_before],
        weights=_weights(dataset, [rows[-cap:] for rows in taken_before]),
        segments=np.array([segment(count, settings) for count in events[users].tolist()]),
        held_out=held_out,
        items=items,
        vectors=sp.csr_matrix((vectors.data, (rows, vectors.col)), shape=(len(items), max(vectors.shape[1], 1))),
        users_by_item=np.bincount(had.indices, minlength=len(items)),
        n_users=int((events > 0).sum()),
        seed=seed,
        out_of=len(everyone),
    )


def evaluate(
    bundle: Bundle,
    items: Sequence[Item],
    popularity: Popularity,
    dataset: Dataset,
    split: Split,
    judged: Judged,
    settings: Settings,
    engines: Sequence[str] = ENGINES,
    asked: Callable[[], None] | None = None,
) -> Evaluation:
    """Ask for every judged user's list by every engine of `engines` that the bundle has. `popularity`: as of the cut.

    The users come with their ALS vectors, folded in at once, as from Redis when the live workers keep up. `asked`: called after each
    user in place of a bar; may raise to stop.
    """
    recommender = build(bundle, Catalogue.of(items), popularity, settings)
    engines = [name for name in engines if name == ROUTED or name in recommender.engines]
    ranked = {engine: np.full((len(judged.users), LENGTH), -1, np.int32) for engine in engines}
    # Answers are made one by one, as when serving; BLAS threads would only wait for each other.
    with threadpoolctl.threadpool_limits(1, "blas"), _each_user(asked, len(judged.users)) as done:
        states = _with_vectors(judged, dataset, bundle, recommender.made_with)
        for place, (state, filters) in enumerate(zip(states, judged.filters, strict=True)):
            routed = ask(recommender, state, Request(limit=LENGTH, filters=filters, reasons=False))
            for engine in engines:
                # When the routed answer begins with this engine, it is the answer of this engine.
                answer = (
                    routed
                    if engine in (ROUTED, routed.method_used)
                    else ask(recommender, state, Request(limit=LENGTH, filters=filters, engine=engine, reasons=False))
                )
                own = [line.item_id for line in answer.recommendations if engine in (ROUTED, line.method)]
                ranked[engine][place, : len(own)] = judged.items.rows(own)
            done()
    values = {engine: _values(lists, judged) for engine, lists in ranked.items()}
    return Evaluation(judged, split, values, ranked)


def report(evaluation: Evaluation, console: Console) -> None:
    """The table for people: one line an engine and segment."""
    judged = evaluation.judged
    shown = ("ndcg@10", "recall@10", "precision@10", "map@10", *(f"{name}@{DIVERSITY_AT}" for name in ("diversity", "coverage", "novelty")))
    table = Table(title=f"{len(judged.users)} of {judged.out_of} users with new items after the cut; 95% bootstrap intervals")
    for column in ("segment", "engine", "users"):
        table.add_column(column)
    for column in shown:
        table.add_column(column, justify="right")
    cells = {(row["segment"], row["engine"], row["metric"]): row for row in evaluation.rows}
    for part in SEGMENTS:
        for engine in evaluation.values:
            if (first := cells.get((part, engine, shown[0]))) is not None:
                table.add_row(part, engine, str(first["users"]), *(_cell(cells[part, engine, name]) for name in shown))
        table.add_section()
    console.print(table)


def save(evaluation: Evaluation, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write metrics.json (with `facts` about the run) and metrics.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = evaluation.rows
    judged = evaluation.judged
    about = {
        **facts,
        "cut": evaluation.split.cut,
        "users": len(judged.users),
        "users_with_new_items": judged.out_of,
        "seed": judged.seed,
        "rows": rows,
    }
    (folder / "metrics.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def headline(evaluation: Evaluation) -> dict[str, Any]:
    """What the manifest repeats: NDCG@10 and recall@10 by engine over all judged users."""
    return {engine: {name: _number(evaluation.mean(engine, name)) for name in ("ndcg@10", "recall@10")} for engine in evaluation.values}


@contextmanager
def _each_user(asked: Callable[[], None] | None, users: int) -> Iterator[Callable[[], None]]:
    if asked is not None:
        yield asked
    else:
        with progress("evaluating", users) as show:
            yield show.advance


def ask(recommender: Recommender, state: UserState, request: Request) -> Recommendations:
    """An answer. Raises ModelError when an engine broke on the way, which serving survives by falling back and an evaluation must not."""
    answer = recommender.recommend(state, request)
    for fallback in answer.fallbacks:
        if fallback.engine in recommender.engines and fallback.cause.startswith("failed with"):
            raise ModelError(f"engine {fallback.engine} {fallback.cause} (user {state.user_id!r}); it cannot be judged")
    return answer


def _forgotten(dataset: Dataset, older: npt.NDArray[np.int64]) -> frozenset[str]:
    """Items that the user has, but whose events `older` (n,) lie beyond the history cap: no candidates either."""
    return frozenset(dataset.items.ids[row] for row in np.unique(dataset.item[older]).tolist())


def _weights(dataset: Dataset, histories: Sequence[npt.NDArray[np.int64]]) -> sp.csr_matrix:
    """(n, n_items) f32 CSR: what the events (k,) of each history weigh, summed by item; weights above 0 only."""
    events = np.concatenate(histories)
    indptr = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
    summed = sp.csr_matrix((dataset.weight[events], dataset.item[events], indptr), shape=(len(histories), len(dataset.items)))
    summed.sum_duplicates()
    summed.eliminate_zeros()
    return summed


def _with_vectors(judged: Judged, dataset: Dataset, bundle: Bundle, made_with: str) -> list[UserState]:
    model = bundle.als
    if model is None:
        return judged.states
    entries = judged.weights.tocoo()
    columns = model.item_ids.rows(dataset.items.ids)[entries.col]
    known = columns >= 0
    shape = (len(judged.states), len(model.item_ids))
    vectors = fold.solve(model, sp.csr_matrix((entries.data[known], (entries.row[known], columns[known])), shape=shape))
    return [
        replace(state, als=LiveVector(bundle.version or "", made_with, state.events, vector.astype("<f4").tobytes()))
        for state, vector in zip(judged.states, vectors, strict=True)
    ]


def _values(ranked: metrics.Rows, judged: Judged) -> metrics.Floats:
    found, counts = metrics.hits(ranked, judged.held_out), metrics.held_out_counts(judged.held_out)
    formulas = {
        "precision": lambda k: metrics.precision(found, k),
        "recall": lambda k: metrics.recall(found, counts, k),
        "map": lambda k: metrics.average_precision(found, counts, k),
        "ndcg": lambda k: metrics.ndcg(found, counts, k),
    }
    top = ranked[:, :DIVERSITY_AT]
    return np.column_stack(
        [
            *(formulas[name](k) for name in RANKED for k in metrics.CUTOFFS),
            metrics.diversity(top, judged.vectors),
            metrics.novelty(top, judged.users_by_item, judged.n_users),
        ]
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def _cell(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return "-"
    return f"{row['mean']:.4f}" if row["low"] is None else f"{row['mean']:.4f} [dim]{row['low']:.3f}-{row['high']:.3f}[/]"
