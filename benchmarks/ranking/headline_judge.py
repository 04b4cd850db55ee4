"""Judges the models of one data set and seed by group of users, for `benchmarks.headline`."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from benchmarks.ranking.headline_worlds import FITTED, LATER, World
from core.settings import Settings
from engines.engine_builders import blend_of
from models.als import ALSModel
from models.bundle import Bundle
from models.content import ContentModel
from models.popular import Popularity
from models.two_tower import TwoTowerModel
from training.blend import choice as blend
from training.data.dataset import Dataset, Split
from training.data.popularity import popular
from training.evaluation import evaluate, metrics, population
from training.evaluation.evaluate import ENGINES, ROUTED, Inputs
from training.evaluation.population import JudgedUsers, Sample

JUDGED = 1000
"""Most users who are judged at once: NDCG@10 then has a standard error of about 0.005."""
SHOWN = ("precision@10", "recall@10", "ndcg@10", "diversity@10")
SHARE = "share of places"
NEW_USERS, NO_EVENT, NEW_ITEMS = "new users", "new users before any event", "new items"
DEFAULT_BLEND, SIMILARITY, EXPLORING = (
    "ensemble (0.6/0.4)",
    "content_based (similarity alone)",
    "routed (explore=0.1)",
)
Means = dict[tuple[str, str, str], float]
"""(group of users, engine, metric) -> mean over the users."""


def judge(
    world: World, als_model: ALSModel, two_tower: TwoTowerModel, seed: int
) -> tuple[Means, dict[str, int]]:
    """Every mean of the models of one seed, and how many users were judged by group."""
    settings = Settings()
    old = world.dataset(settings, new_users=False)
    split = world.split(old)
    content = ContentModel.fit(world.catalogue(split.cut))
    at_cut = popular(old, settings, split.train).scores
    bundle = Bundle.of(
        "headline",
        catalogue=world.catalogue(split.cut),
        als=als_model,
        two_tower=two_tower,
        content=content,
    )

    half = population.draw(old, split, content, settings, Sample(1, seed)).out_of // 2
    judged = _declared(
        world, population.draw(old, split, content, settings, Sample(min(half, JUDGED), seed))
    )
    choice = blend.choose(
        bundle, Inputs(bundle.catalogue, at_cut, old, split, settings), judged.users, judged.seed
    )
    if choice is not None:
        print(f"{world.name}, seed {seed}: {choice.facts()}", flush=True)
        bundle = replace(bundle, parts={**bundle.parts, "ensemble": choice.blend})
    means, users = _by_segment(bundle, at_cut, old, split, judged, settings)

    for group, after in ((NO_EVENT, (0,)), (NEW_USERS, (1, 2, 3, 4))):
        if group == NO_EVENT and not world.profiles:
            continue
        of_counts = [_newcomers(world, bundle, at_cut, events, settings, seed) for events in after]
        for key in of_counts[0][0]:
            means[group, *key] = float(np.mean([means_of[key] for means_of, _ in of_counts]))
        users[group] = min(count for _, count in of_counts)
    items, users[NEW_ITEMS] = _new_items(world, bundle, settings, seed)
    means |= items
    # nothing is known about an item, so content has no list, and any two items look unlike
    unknown = not world.entries
    silent = {
        key
        for key, mean in means.items()
        if np.isnan(mean)
        or (unknown and (key[1].startswith("content_based") or key[2] == "diversity@10"))
    }
    return {key: mean for key, mean in means.items() if key not in silent}, users


def _declared(world: World, judged: JudgedUsers) -> JudgedUsers:
    """The same users with what they declare."""
    states = [
        msgspec.structs.replace(state, profile=world.profiles.get(state.user_id))
        for state in judged.states
    ]
    return replace(judged, states=states)


def _by_segment(
    bundle: Bundle,
    popularity: Popularity,
    data: Dataset,
    split: Split,
    judged: JudgedUsers,
    settings: Settings,
) -> tuple[Means, dict[str, int]]:
    """Means by segment of every engine, of the blend of the settings and of content without
    popularity, NaN where one has no list; and how many users each segment has.
    """
    rows = list(
        evaluate.evaluate(
            bundle, Inputs(bundle.catalogue, popularity, data, split, settings), judged
        ).rows
    )
    unchosen = replace(bundle, parts={**bundle.parts, "ensemble": blend_of(settings)})
    similarity = settings.with_overrides({"content_popularity_share": 0.0})
    for name, engine, other, changed in (
        (DEFAULT_BLEND, "ensemble", unchosen, settings),
        (SIMILARITY, "content_based", bundle, similarity),
    ):
        beside = evaluate.evaluate(
            other, Inputs(bundle.catalogue, popularity, data, split, changed), judged, (engine,)
        )
        rows += [{**row, "engine": name} for row in beside.rows]
    means = {
        (row["segment"], row["engine"], row["metric"]): float("nan")
        if row["mean"] is None
        else float(row["mean"])
        for row in rows
        if row["metric"] in SHOWN
    }
    return means, {row["segment"]: row["users"] for row in rows}


def _newcomers(
    world: World, bundle: Bundle, popularity: Popularity, events: int, settings: Settings, seed: int
) -> tuple[dict[tuple[str, str], float], int]:
    """(engine, metric) -> mean over users who came after the cut, read when they had this many
    events; and how many they are.
    """
    data = world.dataset(settings, new_users=True)
    number = np.arange(data.events) - data.indptr[data.user]
    split = Split(world.time(FITTED), number < events)
    content = bundle.content or ContentModel.fit(bundle.catalogue)
    judged = _declared(
        world, population.draw(data, split, content, settings, Sample(JUDGED // 4, seed))
    )
    means, _ = _by_segment(bundle, popularity, data, split, judged, settings)
    return {
        (engine, metric): mean for (group, engine, metric), mean in means.items() if group == "all"
    }, len(judged.users)


def _new_items(world: World, bundle: Bundle, settings: Settings, seed: int) -> tuple[Means, int]:
    """Recall@10 of items without an event before the cut, over the users who interacted
    with one, and the share of all places that they get.
    """
    data = world.dataset(settings)
    split, cut = world.split(data, LATER), world.time(FITTED)
    catalogue = world.catalogue(split.cut)
    judged = _declared(
        world,
        population.draw(
            data, split, ContentModel.fit(catalogue), settings, Sample(2 * JUDGED, seed)
        ),
    )
    before = np.bincount(data.item[data.timestamp < cut], minlength=len(judged.items)) > 0
    new = ~before
    held_out = judged.held_out.multiply(new[None, :]).tocsr()
    held_out.eliminate_zeros()
    took = np.flatnonzero(np.diff(held_out.indptr))
    popularity = popular(data, settings, split.train).scores
    means: Means = {}
    if not len(took):
        return means, 0
    few = replace(
        judged,
        users=judged.users[took],
        states=[judged.states[at] for at in took.tolist()],
        filters=[judged.filters[at] for at in took.tolist()],
        weights=judged.weights[took],
        segments=judged.segments[took],
        held_out=held_out[took],
    )
    similarity = settings.with_overrides({"content_popularity_share": 0.0})
    for name, changed, engines in (
        (None, settings, ENGINES),
        (SIMILARITY, similarity, ("content_based",)),
        (EXPLORING, settings.with_overrides({"explore": 0.1}), (ROUTED,)),
    ):
        evaluation = evaluate.evaluate(
            bundle, Inputs(catalogue, popularity, data, split, changed), few, engines
        )
        for engine, ranked in evaluation.ranked.items():
            counts = metrics.held_out_counts(few.held_out)
            recall = metrics.recall(metrics.hits(ranked, few.held_out), counts, 10).mean()
            top = ranked[:, :10]
            share = (new[top] & (top >= 0)).sum() / max(int((top >= 0).sum()), 1)
            means[NEW_ITEMS, name or engine, "recall@10"] = float(recall)
            means[NEW_ITEMS, name or engine, SHARE] = float(share)
    return means, len(took)
