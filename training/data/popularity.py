"""Computes popularity from a dataset as ingest computes it from the stream.

It is a part of the bundle, and the baseline of the evaluation.
"""

from __future__ import annotations

import numpy as np

from core.settings import Settings
from models.popular import MOST, UNLABELLED, PopularModel
from store.state.entities.popularity import growth
from training.data.dataset import Bools, Dataset, weights

_HOUR = 3600.0


def popular(dataset: Dataset, settings: Settings, where: Bools | None = None) -> PopularModel:
    """Forward-decayed weight of the MOST most popular items by use case.

    `where (n,) bool`: the events to count; None: all.

    Events without a time count as if they had happened at the earliest time in the dataset.
    """
    selected = np.ones(dataset.events, np.bool_) if where is None else where
    timed = dataset.timestamp[~np.isnan(dataset.timestamp)]
    hours = (
        np.nan_to_num(dataset.timestamp[selected], nan=timed.min() if len(timed) else 0.0) // _HOUR
    )
    first = float(hours.min()) if len(hours) else 0.0
    since = (hours - first).astype(np.int64)  # a century is 900,000 hours: a table of them is small
    grown = np.zeros(int(since.max(initial=0)) + 1)
    for hour in np.flatnonzero(np.bincount(since)).tolist():
        grown[hour] = growth((hour + first) * _HOUR, settings.popularity_half_life_days)
    decayed = grown[since]
    item, event_type, value = (
        dataset.item[selected],
        dataset.event_type[selected],
        dataset.value[selected],
    )
    # the last place, which events without a use case read (-1)
    counted_in = [
        name if name in settings.use_cases.by_name else None for name in dataset.use_cases
    ] + [settings.use_cases.default]
    names = list(dict.fromkeys(counted_in))
    use_case = np.array([names.index(name) for name in counted_in])[dataset.use_case[selected]]
    scores: dict[str, list[tuple[str, float]]] = {}
    for code in np.unique(use_case).tolist():
        rows, name = use_case == code, names[code]
        weight = weights(
            settings.use_cases.weights(name), dataset.event_types, event_type[rows], value[rows]
        )
        total = np.bincount(item[rows], weight * decayed[rows], minlength=len(dataset.items))
        scored = np.flatnonzero(total)
        best = scored[np.argsort(-total[scored], kind="stable")[:MOST]]
        scores[name or UNLABELLED] = [
            (dataset.items.ids[row], float(total[row])) for row in best.tolist()
        ]
    return PopularModel(scores)
