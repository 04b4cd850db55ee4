"""The three data sets of `python -m benchmarks.headline`.

Each has events, a catalogue as it was at a time, and what users declare:

ml1m          MovieLens 1M: ratings of 4 and 5 that have a time, all of the same weight; described
              by title, genres, people and plot
retailrocket  views, additions to the cart and transactions that have a time; items have no
              description
simulator     the marketplace of `python -m streams simulate`: startups that arrive, users who
              declare interests, tastes that drift
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.ranking.live_world import timed_events
from core.settings import Settings
from core.types import Item, User
from streams.simulator.events import Simulation
from training.data import dataset, events, items
from training.data.dataset import Dataset, Split

FITTED, LATER = 0.8, 0.9
"""Parts of the events, by time, that the models are fitted on, and after which readers ask for new
items.
"""
SIMULATED = {
    "seed": 42,
    "n_users": 2_000,
    "n_items": 500,
    "n_events": 50_000,
    "start": 1_700_000_000.0,
    "days": 30.0,
}
"""What `python -m streams simulate` makes without options."""


@dataclass(frozen=True)
class World:
    """`table`: events in time order; `entries`: the catalogue, `created_at` of what arrived on the
    way; `profiles`: what users declare.
    """

    name: str
    table: pa.Table
    entries: Sequence[Item]
    profiles: dict[str, User]

    def time(self, part: float) -> float:
        """When this part of the events has happened, seconds since 1970."""
        times = np.sort(self.table["timestamp"].to_numpy())
        return float(times[int(len(times) * part)])

    def catalogue(self, at: float) -> list[Item]:
        """The entries that are there at this time."""
        return [
            entry for entry in self.entries if entry.created_at is None or entry.created_at < at
        ]

    def dataset(self, settings: Settings, new_users: bool | None = None) -> Dataset:
        """The events of all users.

        `new_users`: only of users whose first event is before the cut (False) or after it (True).
        """
        table = self.table
        if new_users is not None:
            before = table.filter(pc.less(table["timestamp"], self.time(FITTED)))
            known = pc.is_in(
                table["user_id"].cast(pa.string()), pc.unique(before["user_id"].cast(pa.string()))
            )
            table = table.filter(pc.invert(known) if new_users else known)
        return dataset.build([table], settings.use_cases, source=f"{self.name}, timed rows")

    def split(self, data: Dataset, part: float = FITTED) -> Split:
        """`data`, cut where this part of all events has happened."""
        cut = self.time(part)
        return Split(cut, data.timestamp < cut)


def _ml1m(folder: Path, work: Path) -> tuple[list[Item], dict[str, User]]:
    timed_events(folder, "ml1m", work / "events.parquet")
    table = pq.read_table(folder / "ml1m" / "items.parquet")
    pq.write_table(
        table.rename_columns(["text" if name == "plot" else name for name in table.column_names]),
        work / "items.parquet",
    )
    return items.read(work / "items.parquet", "movie"), {}


def _retailrocket(folder: Path, work: Path) -> tuple[list[Item], dict[str, User]]:
    timed_events(folder, "retailrocket", work / "events.parquet")
    return [], {}


def _simulator(_folder: Path, work: Path) -> tuple[list[Item], dict[str, User]]:
    entries: list[Item] = []
    profiles: dict[str, User] = {}
    rows: list[tuple[str, str, str, float, str | None]] = []
    for number, chunk in enumerate(Simulation(**SIMULATED).chunks()):  # type: ignore[arg-type]
        arrived = chunk.events[0].timestamp if chunk.events else rows[-1][3]
        entries += (
            chunk.items
            if number == 0
            else [msgspec.structs.replace(item, created_at=arrived) for item in chunk.items]
        )
        profiles |= {user.user_id: user for user in chunk.users}
        rows += [
            (event.user_id, event.item_id, event.event_type, event.timestamp, event.use_case)
            for event in chunk.events
        ]
    names = ("user_id", "item_id", "event_type", "timestamp", "use_case")
    pq.write_table(
        pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))),
        work / "events.parquet",
    )
    return entries, profiles


WORLDS: dict[str, Callable[[Path, Path], tuple[list[Item], dict[str, User]]]] = {
    "simulator": _simulator,
    "retailrocket": _retailrocket,
    "ml1m": _ml1m,
}


def load(name: str, folder: Path) -> World:
    """The data set `name`; `folder`: where the real ones lie."""
    with tempfile.TemporaryDirectory() as temporary:
        entries, profiles = WORLDS[name](folder, Path(temporary))
        table, _ = events.from_file(Path(temporary) / "events.parquet")
    return World(name, table, entries, profiles)
