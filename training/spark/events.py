"""The accepted events of a training set as a Spark DataFrame.

The rules are those of training/data/events.py: dead letters, duplicates within the window, and
events of deleted users before the deletion are left out. `tests/training/spark` compares both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from core.errors import ArchiveError
from core.settings import Settings
from store.archive.archive import Archive
from store.archive.layout import Range
from store.state.apply.deletions import DeletedUsers
from training.data.events import FILE_SCHEMA, Skipped, file_tables
from training.data.table_files import Source
from training.spark.session import Cluster, address

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

COLUMNS = ("user_id", "item_id", "event_type", "value", "timestamp")
_ARCHIVED = (
    "partition int, offset bigint, broker_time double, event_id string, user_id string, "
    "item_id string, event_type string, value double, timestamp double, error string"
)
BROADCAST_ROWS = 1_000_000
"""Rows up to which a frame is sent whole to every executor: about 50 MB."""


@dataclass(frozen=True)
class Accepted:
    """`frame` has the COLUMNS of the accepted events; `skipped`: reason -> number of others."""

    frame: DataFrame
    skipped: Skipped


@dataclass(frozen=True)
class ArchivedEvents:
    """The events of `topic` in the archive at `url`, below `positions` (partition -> offset).

    `window`: offsets within which an event id counts once. `deleted`: users whose events up to the
    deletion are skipped.
    """

    url: str
    topic: str
    positions: Mapping[int, int]
    window: int
    deleted: DeletedUsers

    def accepted(self, cluster: Cluster) -> Accepted:
        """Read the files that have offsets below the positions.

        Raises ArchiveError when the archive does not reach the positions.
        """
        from pyspark.sql import functions as sql

        files = self._files()
        rows = cluster.spark.read.schema(_ARCHIVED).parquet(*map(self._address, files))
        if any(file.next > self.positions[file.partition] for file in files):
            limits = [sql.lit(number) for pair in self.positions.items() for number in pair]
            rows = rows.where(sql.col("offset") < sql.create_map(*limits)[sql.col("partition")])
        valid = rows.where(sql.col("error").isNull())
        skipped = {"dead_letters": rows.where(sql.col("error").isNotNull()).count()}
        counted, skipped["duplicates"] = self._without_duplicates(valid)
        living, skipped["deleted_users"] = self._without_deleted(cluster, counted)
        return Accepted(living.select(*COLUMNS), skipped)

    def _files(self) -> list[Range]:
        files = Archive(self.url).files_below(self.topic, self.positions)
        if not files:
            raise ArchiveError(
                f"the archive holds nothing of {self.topic}; run `python -m streams archive` first"
            )
        return files

    def _address(self, file: Range) -> str:
        """The file's URL for Spark."""
        return address(f"{'s3' if '://' in self.url else 'file'}://{file.path}")

    def _without_duplicates(self, valid: DataFrame) -> tuple[DataFrame, int]:
        """`valid` without the duplicates that core.dedup.Dedup would name, and their number.

        Only ids whose hash occurs twice are compared, so that the usual case, in which there is
        none, sorts nothing.
        """
        from pyspark.sql import Window
        from pyspark.sql import functions as sql

        digest = sql.xxhash64("event_id").alias("digest")
        repeated = (
            valid.select("partition", digest)
            .groupBy("partition", "digest")
            .count()
            .where("count > 1")
            .drop("count")
            .persist()
        )
        try:
            n_repeated = repeated.count()
            if not n_repeated:
                return valid, 0
            before = sql.lag("offset").over(
                Window.partitionBy("partition", "event_id").orderBy("offset")
            )
            duplicates = (
                valid.select("partition", "offset", "event_id", digest)
                .join(sent_whole(repeated, n_repeated), ["partition", "digest"], "left_semi")
                .withColumn("distance", sql.col("offset") - before)
                .where(sql.col("distance") <= self.window)
                .select("partition", "offset")
                .persist()
            )
            n_duplicates = duplicates.count()
        finally:
            repeated.unpersist()
        others = sent_whole(duplicates, n_duplicates)
        return valid.join(others, ["partition", "offset"], "left_anti"), n_duplicates

    def _without_deleted(self, cluster: Cluster, rows: DataFrame) -> tuple[DataFrame, int]:
        """`rows` after the deletion of their user, and the number of the others.

        The driver hashes the ids, so the salt stays in this process.
        """
        from pyspark.sql import functions as sql

        old = sql.col("broker_time") <= self.deleted.newest
        if not len(self.deleted):
            return rows, 0
        users = rows.where(old).select("user_id").distinct().toArrow()["user_id"].to_pylist()
        times = {user_id: self.deleted.time_of(user_id) for user_id in users}
        times = {user_id: time for user_id, time in times.items() if time > float("-inf")}
        if not times:
            return rows, 0
        deletions = cluster.spark.createDataFrame(
            pa.table({"user_id": list(times), "deleted_at": list(times.values())})
        )
        marked = rows.join(sql.broadcast(deletions), "user_id", "left")
        erased = sql.coalesce(sql.col("broker_time") <= sql.col("deleted_at"), sql.lit(False))
        return marked.where(~erased), marked.where(erased).count()


@dataclass(frozen=True)
class TableEvents:
    """The events of a table that `streams import` reads, which is first copied to the scratch
    folder as Parquet, batch by batch.
    """

    source: Source

    def accepted(self, cluster: Cluster) -> Accepted:
        """Copy and read the table. Raises DatasetError, which names the file and the cause."""
        skipped: Counter[str] = Counter()
        url = f"{cluster.scratch}/events.parquet"
        filesystem, target = pafs.FileSystem.from_uri(url)
        with pq.ParquetWriter(target, FILE_SCHEMA, filesystem=filesystem) as writer:
            for table in file_tables(self.source, skipped):
                writer.write_table(table)
        rows = cluster.spark.read.parquet(address(url))
        return Accepted(rows.select(*COLUMNS), dict(skipped))


Events = ArchivedEvents | TableEvents


def of_archive(
    settings: Settings, positions: Mapping[int, int], deleted: DeletedUsers
) -> ArchivedEvents:
    """The events of the archive that the settings name, below `positions`."""
    return ArchivedEvents(
        settings.archive_url,
        settings.interactions_topic,
        positions,
        settings.dedup_window,
        deleted,
    )


def sent_whole(frame: DataFrame, rows: int) -> DataFrame:
    """`frame`, which a join sends whole to every executor if it has at most BROADCAST_ROWS."""
    from pyspark.sql import functions as sql

    return sql.broadcast(frame) if rows <= BROADCAST_ROWS else frame
