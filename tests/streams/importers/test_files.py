"""`streams import`: what was in the file is what is in the log, row by row, and nothing else."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import ConfigurationError, EddylineError, NothingImported, SourceFailed
from core.settings import Settings
from store.archive.layout import Archive
from store.log import client as log
from streams.archiver.archiver import Archiver
from streams.dead_letters.letters import _all_messages
from streams.importers.command import Import, Plan
from streams.importers.options import plan

DATA = Path(os.environ.get("EDDYLINE_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sent(settings: Settings, topic: str | None = None) -> list[dict[str, Any]]:
    """Every message of a topic, decoded, in the order of each partition."""
    messages = _all_messages(settings, topic or settings.interactions_topic)
    return [msgspec.json.decode(message.value()) for message in messages]


def one_partition(settings: Settings) -> Settings:
    """So that the log has one order."""
    return settings.model_copy(update={"topic_partitions": 1})


def essence(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (
            event["user_id"],
            event["item_id"],
            event["event_type"],
            event["timestamp"],
            event.get("value"),
        )
        for event in events
    ]


def test_movielens_ratings_in_both_spellings(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    one = one_partition(settings)
    (tmp_path / "ratings.dat").write_text(
        "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n"
    )
    assert Import(one, Plan(path=tmp_path / "ratings.dat")).run() == {"sent": 3}
    expected = [
        ("2", "1193", "rating", 978298413.0, 4.0),
        ("1", "1193", "rating", 978300760.0, 5.0),
        ("1", "661", "rating", 978302109.0, 3.0),
    ]
    assert essence(sent(one)) == expected  # in the order of their own time
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,1193,5.0,978300760\n1,661,3.0,978302109\n2,1193,4.0,978298413\n"
    )
    assert Import(one, Plan(path=tmp_path / "ratings.csv")).run() == {"sent": 3}
    assert essence(sent(one))[3:] == expected


def test_retailrocket_events_are_in_milliseconds(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "any name.csv"
    path.write_text(
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n1433224214164,992329,addtocart,248676,\n"
    )
    one = one_partition(settings)
    Import(one, Plan(path=path)).run()
    assert essence(sent(one)) == [
        ("257597", "355908", "view", 1433221332.117, None),
        ("992329", "248676", "addtocart", 1433224214.164, None),
    ]


def test_any_columns_can_be_mapped(broker: object, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    pq.write_table(
        pa.table(
            {
                "uid": [7, 8],
                "sku": ["a", "b"],
                "at": [when, when],
                "stars": [4.5, None],
                "extra": [1, 2],
            }
        ),
        path,
    )
    one = one_partition(settings)
    chosen = plan(file=path, kind=None, mapping=["user_id=uid,item_id=sku", "timestamp=at,value=stars"], constants=["event_type=rating"],
                  database=None, table=None, min_value=None, default_timestamp=None, time_unit=None, delimiter=None, speed=None, sort=True,
                  limit=None, rejects=Path("rejects.jsonl"))  # fmt: skip
    Import(one, chosen).run()
    assert essence(sent(one)) == [
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


def test_bad_rows_are_counted_and_told_with_their_line(
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
        (3, "bad_id"), (4, "bad_value"), (6, "bad_timestamp"), (7, "bad_id"), (8, "bad_timestamp")
    ]  # fmt: skip
    assert rejects[1]["values"]["value"] == "five"


def test_rows_without_a_time_are_left_out_or_given_one(
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


def test_items_and_users_come_from_files_too(
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
        Plan(path=tmp_path / "people.parquet", kind="users", mapping={"attributes.age": "age"}),
    ).run()
    assert sent(settings, settings.users_topic) == [
        {"user_id": "1", "interests": ["rust"], "attributes": {"age": 25}}
    ]


def test_events_come_at_a_multiple_of_their_own_clock(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::5::1000\n1::2::5::1100\n1::3::5::1200\n")
    log.ensure_topics(settings)
    task = Import(settings, Plan(path=tmp_path / "ratings.dat", speed=100.0))
    began = time.monotonic()
    task.run()
    assert 2.0 <= time.monotonic() - began < 10.0


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "create table user_interactions (id integer primary key, user_id int, item_id "
            "int, kind text, created_at timestamp)"
        )
        rows = [
            (
                number,
                number % 50,
                number % 7,
                "purchase",
                f"2026-01-01 00:{number // 60 % 60:02}:{number % 60:02}",
            )
            for number in range(3000)
        ]
        connection.executemany("insert into user_interactions values (?, ?, ?, ?, ?)", rows)
    connection.close()
    return f"sqlite:///{path}"


def test_a_table_of_a_backends_database(broker: object, settings: Settings, database: str) -> None:
    one = one_partition(settings)
    chosen = Plan(
        database=database,
        table="user_interactions",
        mapping={"event_type": "kind", "timestamp": "created_at"},
    )
    assert Import(one, chosen).run() == {"sent": 3000}
    events = sent(one)
    assert events[0]["timestamp"] == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert [event["timestamp"] for event in events] == sorted(
        event["timestamp"] for event in events
    )
    assert len({event["event_id"] for event in events}) == 3000
    Import(one, chosen).run()
    again = sent(one)[3000:]
    assert {event["event_id"] for event in again} == {event["event_id"] for event in events}
    Import(one, msgspec.structs.replace(chosen, mapping={**chosen.mapping, "event_id": "id"})).run()
    assert [event["event_id"] for event in sent(one)[6000:6003]] == ["0", "1", "2"]


def test_mistakes_are_one_line(
    settings: Settings, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        ConfigurationError,
        match=r"user_id is mapped from no column; the source has a, b: give --map user_id=<column>",
    ):
        Import(settings, Plan(path=tmp_path / "log.csv"))
    with pytest.raises(ConfigurationError, match="no column 'c' for user_id"):
        Import(settings, Plan(path=tmp_path / "log.csv", mapping={"user_id": "c"}))
    with pytest.raises(ConfigurationError, match="'colour' is no field of interactions"):
        Import(settings, Plan(path=tmp_path / "log.csv", mapping={"colour": "a"}))
    with pytest.raises(ConfigurationError, match="is no file"):
        Import(settings, Plan(path=tmp_path / "absent.csv"))
    with pytest.raises(ConfigurationError, match="has no table 'absent'"):
        Import(settings, Plan(database=database, table="absent"))
    with pytest.raises(ConfigurationError, match="is no URL"):
        Import(settings, Plan(database="shop", table="t"))
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(SourceFailed, match=r"broken\.parquet cannot be read"):
        Import(settings, Plan(path=tmp_path / "broken.parquet"))
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ConfigurationError, match="--database needs SQLAlchemy"):
        Import(settings, Plan(database=database, table="user_interactions"))


def test_a_file_of_nothing_but_bad_rows_is_an_error(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "ratings.dat").write_text("::1::5::978300760\n")
    with pytest.raises(NothingImported, match=r"1 rejected; see rejects\.jsonl"):
        Import(settings, Plan(path=tmp_path / "ratings.dat")).run()


def test_an_absent_broker_is_one_clear_error(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::5::978300760\n")
    quick = settings.model_copy(update={"kafka_timeout_s": 1.0})
    with pytest.raises(
        EddylineError, match=r"is the broker up, and is KAFKA_BOOTSTRAP_SERVERS right\?"
    ):
        Import(quick, Plan(path=tmp_path / "ratings.dat")).run()


@pytest.mark.process
@pytest.mark.skipif(
    not (DATA / "ml1m").is_dir(),
    reason=f"no MovieLens 1M in {DATA}; EDDYLINE_DATA names another folder",
)
def test_movielens_1m_arrives_whole(broker: object, settings: Settings) -> None:
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
