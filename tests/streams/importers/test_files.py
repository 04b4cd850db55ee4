"""`streams import` of files: every valid row becomes one event, item or user in the log."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.settings import Settings
from store.archive.archive import Archive
from store.log import client as log
from store.tables import command_line
from store.tables import options as tables
from store.tables.command_line import Reading, Typed
from streams.archiver.archiver import Archiver
from streams.importers.command import Import
from streams.importers.options import Options, plan
from streams.importers.plan import Plan
from tests.streams.importers.world import essential_fields, sent, with_one_partition

DATA = Path(os.environ.get("EDDYLINE_DATA", Path(__file__).parents[4] / "shared" / "data"))


def test_movielens_ratings_are_known_as_dat_and_as_csv(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    one = with_one_partition(settings)
    (tmp_path / "ratings.dat").write_text(
        "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n"
    )
    assert Import(one, Plan(path=tmp_path / "ratings.dat")).run() == {"sent": 3}
    expected = [
        ("2", "1193", "rating", 978298413.0, 4.0),
        ("1", "1193", "rating", 978300760.0, 5.0),
        ("1", "661", "rating", 978302109.0, 3.0),
    ]
    assert essential_fields(sent(one)) == expected  # in the order of their own time
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n"
        "1,1193,5.0,978300760\n1,661,3.0,978302109\n2,1193,4.0,978298413\n"
    )
    assert Import(one, Plan(path=tmp_path / "ratings.csv")).run() == {"sent": 3}
    assert essential_fields(sent(one))[3:] == expected


def test_retailrocket_timestamps_are_milliseconds(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "any name.csv"
    path.write_text(
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n1433224214164,992329,addtocart,248676,\n"
    )
    one = with_one_partition(settings)
    Import(one, Plan(path=path)).run()
    assert essential_fields(sent(one)) == [
        ("257597", "355908", "view", 1433221332.117, None),
        ("992329", "248676", "addtocart", 1433224214.164, None),
    ]


def test_columns_of_any_name_can_be_mapped_to_fields(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "log.parquet"
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    pq.write_table(
        pa.table({"uid": [7, 8], "sku": ["a", "b"], "at": [when, when], "stars": [4.5, None]}), path
    )
    one = with_one_partition(settings)
    typed = Typed(
        map=["user_id=uid,item_id=sku", "timestamp=at,value=stars"],
        constant=["event_type=rating"],
    )
    reading = command_line.options(typed, Reading("the file"))
    Import(one, plan(Options(file=path, reading=reading))).run()
    assert essential_fields(sent(one)) == [
        ("7", "a", "rating", when.timestamp(), 4.5),
        ("8", "b", "rating", when.timestamp(), None),
    ]


def test_a_second_import_sends_the_same_event_ids(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n1::661::3::978302109\n")
    for _ in range(2):
        Import(settings, Plan(path=tmp_path / "ratings.dat")).run()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ratings.dat").write_text("3::1::5::978300760\n")
    Import(settings, Plan(path=tmp_path / "other" / "ratings.dat")).run()
    ids = [event["event_id"] for event in sent(settings)]
    assert (len(ids), len(set(ids))) == (5, 3)


def test_invalid_rows_are_counted_and_written_to_the_rejects_with_their_line(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "ratings.csv"
    path.write_bytes(
        b"userId,movieId,rating,timestamp\n1,1,5,978300760\n,1,5,978300760\n"
        b"1,1,five,978300760\n1,1\n1,1,5,yesterday\n"
        b"\xff,1,5,978300760\n1,1,5,99999999999999\n2,1,1,978300760\n2,1,5,2000-12-31T22:12:40Z\n"
    )
    task = Import(settings, Plan(path=path, min_value=2.0, rejects=tmp_path / "bad.jsonl"))
    assert task.run() == {"sent": 2, "rejected": 5, "below --min-value": 2}
    rejects = [
        msgspec.json.decode(line) for line in (tmp_path / "bad.jsonl").read_bytes().splitlines()
    ]
    assert [(reject["row"], reject["code"]) for reject in rejects] == [
        (3, "bad_id"),
        (4, "bad_value"),
        (6, "bad_timestamp"),
        (7, "bad_encoding"),
        (8, "bad_timestamp"),
    ]
    assert rejects[1]["values"]["value"] == "five"


def test_rows_without_a_timestamp_are_left_out_or_get_the_default(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(
        pa.table(
            {
                "user_id": ["u", "v"],
                "item_id": ["a", "b"],
                "event_type": ["view", "view"],
                "timestamp": [None, 978300760],
            }
        ),
        path,
    )
    assert Import(settings, Plan(path=path)).run() == {"sent": 1, "no timestamp": 1}
    assert Import(settings, Plan(path=path, default_timestamp=5.0)).run() == {"sent": 2}
    assert sorted(event["timestamp"] for event in sent(settings)) == [5.0, 978300760.0, 978300760.0]


def test_items_and_users_can_be_imported(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "movies.dat").write_bytes(
        "1::Toy Story (1995)::Animation|Children's\n2::Misérables, Les (1995)::Drama\n".encode(
            "latin-1"
        )
    )
    assert Import(settings, Plan(path=tmp_path / "movies.dat")).run() == {"sent": 2}
    assert sorted(sent(settings, settings.items_topic), key=lambda item: str(item["item_id"])) == [
        {
            "item_id": "1",
            "item_type": "movie",
            "title": "Toy Story (1995)",
            "categories": ["Animation", "Children's"],
        },
        {
            "item_id": "2",
            "item_type": "movie",
            "title": "Misérables, Les (1995)",
            "categories": ["Drama"],
        },
    ]
    pq.write_table(
        pa.table({"user_id": [1], "interests": [["rust"]], "age": [25]}),
        tmp_path / "people.parquet",
    )
    Import(
        settings,
        Plan(
            path=tmp_path / "people.parquet",
            reading=tables.Options(kind="users", mapping={"attributes.age": "age"}),
        ),
    ).run()
    assert sent(settings, settings.users_topic) == [
        {"user_id": "1", "interests": ["rust"], "attributes": {"age": 25}}
    ]


def test_speed_replays_the_timestamps_at_a_multiple(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::5::1000\n1::2::5::1100\n1::3::5::1200\n")
    log.ensure_topics(settings)
    task = Import(settings, Plan(path=tmp_path / "ratings.dat", speed=100.0))
    began = time.monotonic()
    task.run()
    assert 2.0 <= time.monotonic() - began < 10.0


@pytest.mark.process
@pytest.mark.skipif(
    not (DATA / "ml1m").is_dir(),
    reason=f"no MovieLens 1M in {DATA}; EDDYLINE_DATA names another folder",
)
def test_movielens_1m_is_imported_completely(broker: object, settings: Settings) -> None:
    counts = Import(
        settings, Plan(path=DATA / "ml1m" / "interactions.parquet", min_value=4.0)
    ).run()
    assert counts["sent"] == 519_259
    assert Archiver(settings).run(until_idle=True) == 519_259
    ids, users, invalid = set(), set(), 0
    for table in Archive(settings.archive_url).read(
        settings.interactions_topic, columns=["event_id", "user_id", "error"]
    ):
        ids.update(table.column("event_id").to_pylist())
        users.update(table.column("user_id").to_pylist())
        invalid += table.num_rows - table.column("error").null_count
    assert (len(ids), invalid) == (519_259, 0)
    source = pq.read_table(
        DATA / "ml1m" / "interactions.parquet", columns=["user_id", "value", "timestamp"]
    ).to_pydict()
    assert users == {
        str(user)
        for user, value, at in zip(*source.values(), strict=True)
        if value >= 4 and at is not None
    }
