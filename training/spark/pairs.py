"""Sums the weights of users' events with items in Spark, and numbers the ids.

The rows are those of training/data/dataset.py: ids in the order of their UTF-8 bytes, of users and
items with a weight above 0 alone, as training/als.py fits them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import DatasetError
from core.use_cases import MAX_WEIGHT, WEIGHT_STEP, UseCases
from training.data.events import Skipped
from training.spark.events import Accepted, sent_whole

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Ids:
    """Users or items.

    `frame`: `id` string, `row` int from 0, `n` int: the pairs of this id. `count`: ids in it.
    """

    frame: DataFrame
    count: int


@dataclass(frozen=True)
class Pairs:
    """The entries of the user-item matrix.

    `frame`: `user` and `item` int rows of `users` and `items`, `weight` float above 0, `n` int: the
    number of users of the item. `count`: entries. `skipped`: reason -> number of events left out.
    """

    frame: DataFrame
    count: int
    users: Ids
    items: Ids
    skipped: Skipped


@contextmanager
def pairs(accepted: Accepted, use_cases: UseCases, before: float | None) -> Iterator[Pairs]:
    """The pairs of the accepted events, which Spark stores during the block.

    `before`: only of events before that time (seconds since 1970) or without one.
    Raises DatasetError when no pair has a weight above 0.
    """
    from pyspark.sql import functions as sql

    events, by_type = accepted.frame, use_cases.event_types
    known = sql.col("event_type").isin(list(by_type))
    unknown = events.where(~known).count()
    events = events.where(known)
    if before is not None:
        time = sql.col("timestamp")
        events = events.where(time.isNull() | sql.isnan(time) | (time < before))
    summed = (
        events.select("user_id", "item_id", _weight(by_type).alias("weight"))
        .where("weight > 0")
        .groupBy("user_id", "item_id")
        .agg(sql.sum("weight").cast("float").alias("weight"))
        .persist()
    )
    users, items = _numbered(summed, "user_id"), _numbered(summed, "item_id")
    try:
        count = summed.count()
        if not count:
            raise DatasetError(
                "no event has a weight above 0, so there is nothing to learn; check the event "
                "weights in USE_CASES_PATH, and that the archive has events"
            )
        of_users, of_items = Ids(users, users.count()), Ids(items, items.count())
        frame = (
            summed.join(_rows(of_items, "item"), "item_id")
            .join(_rows(of_users, "user").drop("n"), "user_id")
            .select("user", "item", "weight", "n")
        )
        skipped = {**accepted.skipped, "unknown_event_types": unknown}
        yield Pairs(frame, count, of_users, of_items, skipped)
    finally:
        for stored in (items, users, summed):
            stored.unpersist()


def _weight(by_type: Mapping[str, float]) -> Any:
    """The weight of an event, as training.data.dataset.weights computes it."""
    from pyspark.sql import functions as sql

    of_type = sql.create_map(*[sql.lit(part) for pair in by_type.items() for part in pair])
    value = sql.coalesce(sql.nanvl("value", sql.lit(1.0)), sql.lit(1.0))
    weight = sql.least(of_type[sql.col("event_type")] * value, sql.lit(MAX_WEIGHT))
    return sql.rint(weight / WEIGHT_STEP) * WEIGHT_STEP


def _numbered(summed: DataFrame, column: str) -> DataFrame:
    """id, row, n of the distinct ids in `column`, in the order of the ids."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sql

    counted = summed.groupBy(sql.col(column).alias("id")).agg(sql.count("*").cast("int").alias("n"))
    row = (sql.row_number().over(Window.orderBy("id")) - 1).alias("row")
    return counted.select("id", row, "n").persist()


def _rows(ids: Ids, name: str) -> DataFrame:
    """The ids as NAME_id, their rows as NAME, and n; small ones are sent to every executor."""
    frame = ids.frame.withColumnsRenamed({"id": f"{name}_id", "row": name})
    return sent_whole(frame, ids.count)
