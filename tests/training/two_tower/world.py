"""A ring of items that users walk along, so that a reader knows which item comes next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from core.settings import Settings
from core.types import Item
from models.two_tower import TwoTowerFacts, TwoTowerModel
from training.data import dataset
from training.data.dataset import Dataset
from training.two_tower import fit as two_tower
from training.two_tower.content import Content
from training.two_tower.fit_types import FitOptions, Fitted, TrainingData
from training.two_tower.hyperparameters import Hyperparameters
from training.two_tower.samples import Sequences

USE_CASES = Settings(_env_file=None).use_cases  # type: ignore[call-arg]
SMALL = Hyperparameters(
    dimension=16,
    layers=2,
    heads=2,
    history=6,
    dropout=0.0,
    epochs=30,
    patience=30,
    learning_rate=0.01,
)
RING = 24
DAY = 86_400.0
SEED = 1
ONE_THREAD = FitOptions(threads=1)


def table(rows: list[tuple[str, str, str, float | None]]) -> Dataset:
    columns = zip(*rows, strict=True)
    users, items, types, times = (list(column) for column in columns)
    return dataset.build(
        [
            pa.table(
                {
                    "user_id": pa.array(users).dictionary_encode(),
                    "item_id": pa.array(items).dictionary_encode(),
                    "event_type": pa.array(types).dictionary_encode(),
                    "timestamp": pa.array(times, pa.float64()),
                    "value": pa.nulls(len(rows), pa.float64()),
                    "use_case": pa.array(["developer_startup"] * len(rows)).dictionary_encode(),
                }
            )
        ],
        USE_CASES,
    )


def ring(users: int = 96, steps: int = 5) -> Dataset:
    """Every user walks along the ring from an item of their own: after item n comes item n + 1."""
    return table(steps_along_the_ring(users, steps))


def steps_along_the_ring(
    users: int = 96, length: int = 5
) -> list[tuple[str, str, str, float | None]]:
    return [
        (f"u{user}", f"i{(user + step) % RING}", "like", 1e9 + step * DAY)
        for user in range(users)
        for step in range(length)
    ]


def items(count: int = RING) -> list[Item]:
    return [
        Item(
            item_id=f"i{number}",
            item_type="startup",
            categories=["low" if number < RING // 2 else "high"],
        )
        for number in range(count)
    ]


def ring_inputs() -> tuple[Sequences, Content, TwoTowerFacts]:
    """What the towers of a SMALL fit of the ring with its items are made of."""
    data = ring()
    sequences = Sequences.of(data, None, USE_CASES)
    facts = TwoTowerFacts(
        dimension=SMALL.dimension,
        layers=SMALL.layers,
        heads=SMALL.heads,
        history=SMALL.history,
        items=len(sequences.items),
        event_types=data.event_types,
        roles=sequences.roles,
    )
    return sequences, Content.of(sequences.items, items(), 1), facts


def training_data(
    data: Dataset, entries: Sequence[Item] = (), ordered: bool = True
) -> TrainingData:
    return TrainingData(data, entries, USE_CASES, ordered=ordered)


def fit(
    data: Dataset,
    entries: Sequence[Item] = (),
    hyperparameters: Hyperparameters = SMALL,
    options: FitOptions = ONE_THREAD,
) -> Fitted:
    return two_tower.fit(training_data(data, entries), hyperparameters, SEED, options)


def next_item(model: TwoTowerModel, *rows: int) -> int:
    """The number of the new item that the model ranks first after the items numbered `rows`."""
    places = model.item_ids.rows([f"i{row}" for row in rows])
    times = 1e9 + DAY * np.arange(len(rows))
    vector = model.user_vector(
        model.item_vectors[places],
        model.type_rows(["like"] * len(rows)),
        times,
        np.zeros(16, np.float32),
    )
    scores = model.scores(vector)
    scores[places] = -np.inf
    return int(model.item_ids.ids[int(scores.argmax())][1:])


def correct_next_items(model: TwoTowerModel) -> int:
    """For how many of the RING items the model ranks the right item first after three steps."""
    return sum(
        next_item(model, step, (step + 1) % RING, (step + 2) % RING) == (step + 3) % RING
        for step in range(RING)
    )
