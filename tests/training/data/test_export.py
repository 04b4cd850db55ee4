"""`python -m training export` writes what `--items` and `--events` read."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis import Redis

from core.codec import encode_json
from core.deletions import IdHasher
from core.errors import ArchiveError, ConfigurationError
from core.settings import Settings
from core.types import Item, User
from models import bundle, files
from store.archive.archive import Archive
from store.state import keys
from store.state.apply import deletions
from store.state.apply.deletions import DeletedUsers
from tests.training import world
from training.command_options import ExportKind
from training.data import events, items
from training.export import export

ITEMS = [
    Item(
        item_id="00123",
        item_type="startup",
        title="a|b, c",
        categories=["fintech", "b, c"],
        tags=["python"],
        text='"quoted"\nsecond line',
        attributes={"stage": "seed", "size": 7, "rate": 1.5, "open": True, "cities": ["a", "b"]},
        created_at=1.7e9,
    ),
    Item(item_id="2", item_type="book", available=False),
]


def test_items_reads_the_catalogue_of_a_bundle(tmp_path: Path) -> None:
    files.write_json(tmp_path / bundle.CATALOGUE, ITEMS)
    assert items.read(tmp_path / bundle.CATALOGUE) == ITEMS


def test_exported_items_are_what_items_reads(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    for item in ITEMS:
        redis.hset(keys.ONLY.items, item.item_id, encode_json(item))
    assert export(settings, ExportKind.items, tmp_path / "items.jsonl") == len(ITEMS)
    exported = items.read(tmp_path / "items.jsonl")
    assert sorted(exported, key=lambda item: item.item_id) == ITEMS


def test_exported_events_are_what_training_reads_of_the_archive(
    trainer: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "events.parquet"
    rows = export(trainer, ExportKind.events, file)
    archive, topic = Archive(trainer.archive_url), trainer.interactions_topic
    tables, _ = events.from_archive(
        archive,
        topic,
        archive.positions(topic),
        trainer.dedup_window,
        DeletedUsers(IdHasher(trainer.deletion_salt), {}),
    )
    table = pa.concat_tables(tables)
    again, skipped = events.from_file(file)
    assert rows == table.num_rows > 0
    assert sorted(again.to_pylist(), key=str) == sorted(table.to_pylist(), key=str)
    assert not sum(skipped.values())


def test_events_since_a_time_are_exported_without_reading_older_files(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    """The older file is damaged here: to read it would fail."""
    deletions.mark_ready(redis)
    small = settings.model_copy(update={"dedup_window": 5})
    rows = [
        world.row(offset, "ann", f"i{offset}", event_id=f"e{offset % 42}") for offset in range(60)
    ]
    archive, topic = Archive(small.archive_url), small.interactions_topic
    for first, end in [(0, 20), (20, 40), (40, 60)]:
        archive.append(topic, 0, first, end, world.table_of(rows[first:end]))
    oldest = Path(archive.ranges(topic)[0][0].path)
    damaged = bytearray(oldest.read_bytes())
    damaged[4:1000] = bytes(996)
    oldest.write_bytes(damaged)
    file = tmp_path / "events.parquet"
    with pytest.raises(ArchiveError, match=oldest.name):
        export(small, ExportKind.events, file)
    assert export(small, ExportKind.events, file, world.START + 43) == 17
    exported = pq.read_table(file)["item_id"].to_pylist()
    assert exported == [f"i{offset}" for offset in range(43, 60)]
    file.unlink()
    near = [world.row(60, "ann", "again", event_id="e17"), world.row(61, "ann", "new")]
    archive.append(topic, 0, 60, 62, world.table_of(near))
    assert export(small, ExportKind.events, file, world.START + 60) == 1, (
        "a duplicate of an event before that time is no event"
    )
    with pytest.raises(ConfigurationError, match="events"):
        export(small, ExportKind.items, tmp_path / "items.jsonl", world.START)


def test_exported_users_have_what_each_declared(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    declared = [User(user_id=f"u:{number}", interests=["health"]) for number in range(1200)]
    for user in declared:
        redis.set(keys.ONLY.profile(user.user_id), encode_json(user))
    redis.hset(keys.ONLY.user("other"), "events", 1)
    file = tmp_path / "users.jsonl"
    assert export(settings, ExportKind.users, file) == 1200
    lines = [msgspec.json.decode(line, type=User) for line in file.read_bytes().splitlines()]
    assert sorted(lines, key=lambda user: user.user_id) == sorted(
        declared, key=lambda user: user.user_id
    )


def test_an_export_overwrites_no_file(settings: Settings, redis: Redis, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text("precious")
    with pytest.raises(ConfigurationError, match="exists; name a new file"):
        export(settings, ExportKind.items, file)
    assert file.read_text() == "precious"
    with pytest.raises(ConfigurationError, match=r"named \*\.parquet"):
        export(settings, ExportKind.events, tmp_path / "events.csv")
