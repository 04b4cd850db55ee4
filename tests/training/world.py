"""A small world with known answers: even users like even items, odd users odd ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from redis import Redis

from core.codec import encode_json
from core.deletions import IdHasher
from core.settings import Settings
from core.types import Item
from store.archive.archive import Archive
from store.archive.schema import SCHEMA
from store.state import keys
from store.state.apply.deletions import DeletedUsers
from training.data import dataset, events
from training.data.dataset import Dataset

USERS, ITEMS, DAYS = 80, 60, 100
DAY = 86_400.0
START = 1_700_000_000.0
LEASE_S = 5.0

Row = dict[str, object]


def row(offset: int, user: str, item: str, kind: str = "view", **more: object) -> Row:
    """One archived event; its own time is `offset` seconds after START unless `timestamp` says
    otherwise.
    """
    return {
        "partition": 0,
        "offset": offset,
        "broker_time": START + offset,
        "event_id": f"e{offset}",
        "user_id": user,
        "item_id": item,
        "event_type": kind,
        "timestamp": START + offset,
        **more,
    }


def archived(settings: Settings, rows: Iterable[Row]) -> Archive:
    """An archive that holds `rows`, event partition in offset order."""
    archive = Archive(settings.archive_url)
    by_partition: dict[int, list[Row]] = {}
    for event in rows:
        by_partition.setdefault(int(str(event["partition"])), []).append(event)
    for partition, mine in by_partition.items():
        end = int(str(mine[-1]["offset"])) + 1
        archive.append(settings.interactions_topic, partition, 0, end, table_of(mine))
    return archive


def table_of(rows: Iterable[Row]) -> pa.Table:
    """`rows` with every column of an archive."""
    filled = [{name: event.get(name) for name in SCHEMA.names} for event in rows]
    return pa.Table.from_pylist(filled, SCHEMA)


def parity(users: int = USERS, per_user: int = 12, partitions: int = 2) -> list[Row]:
    """`per_user` likes of event user over DAYS days, of items of the user's parity drawn at random,
    event item once.
    """
    rng = np.random.default_rng(5)
    drawn = [user % 2 + 2 * rng.permutation(ITEMS // 2)[:per_user] for user in range(users)]
    rows, offsets = [], [0] * partitions
    for turn in range(per_user):
        for user in range(users):
            item = drawn[user][turn]
            partition = user % partitions
            when = START + turn * DAY * (DAYS / per_user) + user * 60
            rows.append(
                {
                    **row(offsets[partition], f"u{user}", f"i{item}", "like"),
                    "partition": partition,
                    "event_id": f"{user}-{turn}",
                    "timestamp": when,
                    "broker_time": when,
                }
            )
            offsets[partition] += 1
    return rows


def built(
    settings: Settings, rows: Iterable[Row], deleted: dict[str, float] | None = None
) -> Dataset:
    """The dataset of an archive of `rows`."""
    archive = archived(settings, rows)
    positions = archive.positions(settings.interactions_topic)
    hasher = IdHasher(settings.deletion_salt)
    gone = DeletedUsers(
        hasher, {hasher("user", user_id): time for user_id, time in (deleted or {}).items()}
    )
    tables, skipped = events.from_archive(
        archive, settings.interactions_topic, positions, settings.dedup_window, gone
    )
    return dataset.build(tables, settings.use_cases, positions, "archive", skipped)


def items() -> list[Item]:
    """The catalogue: event item says whether it is even or odd."""
    return [
        Item(
            item_id=f"i{number}",
            item_type="startup",
            title=f"Startup {number}",
            categories=["odd" if number % 2 else "even"],
        )
        for number in range(ITEMS)
    ]


def write_items(path: Path) -> Path:
    """`items` as JSON lines."""
    path.write_bytes(b"\n".join(encode_json(item) for item in items()) + b"\n")
    return path


def put_items(redis: Redis) -> None:
    """`items` into Redis, as the catalogue ingestion does."""
    redis.hset(keys.ONLY.items, mapping={item.item_id: encode_json(item) for item in items()})


def entries(data: Dataset) -> dict[tuple[str, str], float]:
    """The matrix as (user, item) -> weight."""
    matrix = data.matrix().tocoo()
    return {
        (data.users.ids[user], data.items.ids[item]): float(weight)
        for user, item, weight in zip(matrix.row, matrix.col, matrix.data, strict=True)
    }
