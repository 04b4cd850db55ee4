"""What each refusal of a real Redis means: retry or stop, with advice that is true; and nothing is
done in part unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import redis as client_library
from pydantic import SecretStr
from redis import Redis

from core.codec import encode_json
from core.deletions import IdHasher, Kind, Place
from core.errors import StoreCorrupt, StoreError, StoreMisconfigured, StoreUnavailable
from core.settings import Settings
from core.types import Interaction, Item, User
from store.state import connection, keys, redis_errors
from store.state.apply import applier, deletions, positions
from store.state.apply.applier import Applier
from store.state.apply.batches import UNKNOWN_DELETIONS, Batch, Event, OffsetRange
from store.state.apply.entries import Entry, EntryBatch
from store.state.apply.entry_applier import EntryApplier
from store.state.apply.pending import Mark, PendingPopularity
from store.state.apply.planner import Planner
from testing.process import ROOT
from testing.redis import RedisServer
from tests import redis_refusals
from tests.support import NoLaterEvents

NOW = 1.76e9


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(
        tmp_path_factory.mktemp("refusals"), options=redis_refusals.OPTIONS
    ) as started:
        yield started


@pytest.fixture
def refusing_redis(server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        client.flushall()
        deletions.mark_ready(client)
        yield client


@pytest.fixture
def settings(server: RedisServer) -> Settings:
    return Settings(
        redis_url=SecretStr(server.url), kafka_bootstrap_servers="127.0.0.1:9", redis_timeout_s=1.0
    )


class Writer:
    """Applies one event a batch to partition 0 of topic `t`."""

    def __init__(self, settings: Settings) -> None:
        self.planner = Planner(settings.use_cases)
        self.applier = Applier(
            connection.connect(settings), self.planner, 50, IdHasher(settings.deletion_salt)
        )
        self.entries = EntryApplier(
            connection.connect(settings),
            Planner(settings.use_cases),
            50,
            lambda _published: None,
            NoLaterEvents(),
        )

    def apply(self, batch: Batch | EntryBatch) -> None:
        if isinstance(batch, Batch):
            self.applier.apply(batch)
        else:
            self.entries.apply(batch)

    def event(self, first: int) -> Batch:
        events = [Event(Interaction(f"e{first}", "42", "startup-9", "view", NOW), NOW)]
        return self.planner.plan(OffsetRange("t", 0, first, first + 1), events, UNKNOWN_DELETIONS)

    def error(self, batch: Batch | EntryBatch) -> StoreError:
        with pytest.raises(StoreError) as raised:
            self.apply(batch)
        self.applier.close()
        return raised.value


@pytest.mark.parametrize("code", redis_refusals.TEMPORARY)
def test_a_temporary_refusal_is_retried_and_the_event_counts_once(
    code: str, refusing_redis: Redis, settings: Settings, tmp_path: Path
) -> None:
    writer = Writer(settings)
    writer.applier.apply(writer.event(0))
    with redis_refusals.refusing(code, refusing_redis, tmp_path / "gone"):
        # meets new connections only: the first error is the loss of the old one
        if code == "MAXCLIENTS":
            assert isinstance(writer.error(writer.event(1)), StoreUnavailable)
        error = writer.error(writer.event(1))
        assert isinstance(error, StoreUnavailable), error
        assert redis_errors.RULES[code].advice in str(error)
        assert "type" not in str(error), (
            "a cause that is not the key's type must not be told as one"
        )
    writer.applier.apply(writer.event(1))
    writer.applier.close()
    assert refusing_redis.hget("user:42", "events") == b"2"
    assert not refusing_redis.exists(keys.INGEST_HALTED)


@pytest.mark.parametrize(
    "denied", ["-rpush", "-watch", "-exec", "-eval", "resetkeys ~user:* ~users:*"]
)
def test_a_missing_permission_stops_and_names_the_grant(
    denied: str, refusing_redis: Redis, settings: Settings, server: RedisServer
) -> None:
    refusing_redis.execute_command(
        "ACL", "SETUSER", "eddy", "reset", "on", ">secret-pw", "~*", "&*", "+@all", *denied.split()
    )
    url = f"redis://eddy:secret-pw@{server.address}/0"
    writer = Writer(settings.model_copy(update={"redis_url": SecretStr(url)}))
    error = writer.error(writer.event(0))
    assert isinstance(error, StoreMisconfigured), error
    assert "NOPERM" in str(error)
    assert "ACL SETUSER" in str(error)
    assert not refusing_redis.exists("user:42"), "nothing is done in part"
    refusing_redis.execute_command("ACL", "SETUSER", "eddy", "+@all", "allkeys")
    writer.applier.apply(writer.event(0))
    writer.applier.close()
    assert refusing_redis.hget("user:42", "events") == b"1"


@pytest.mark.parametrize(
    ("url", "code"), [("redis://eddy:other@{}/0", "WRONGPASS"), ("redis://{}/0", "NOAUTH")]
)
def test_missing_credentials_stop_with_the_form_of_the_url(
    url: str, code: str, refusing_redis: Redis, settings: Settings, server: RedisServer
) -> None:
    refusing_redis.execute_command(
        "ACL", "SETUSER", "eddy", "reset", "on", ">secret-pw", "~*", "+@all"
    )
    refusing_redis.config_set("requirepass", "secret-pw")
    try:
        writer = Writer(
            settings.model_copy(update={"redis_url": SecretStr(url.format(server.address))})
        )
        error = writer.error(writer.event(0))
        assert isinstance(error, StoreMisconfigured), error
        assert redis_errors.RULES[code].advice in str(error)
    finally:
        refusing_redis.config_set("requirepass", "")


def test_a_server_in_cluster_mode_is_refused_with_the_cause(
    settings: Settings, tmp_path: Path
) -> None:
    with (
        RedisServer(tmp_path / "cluster", options={"cluster-enabled": "yes"}) as server,
        Redis.from_url(server.url) as redis,
    ):
        clustered = settings.model_copy(update={"redis_url": SecretStr(server.url)})
        writer = Writer(clustered)
        # one key: of several, Valkey answers CROSSSLOT first
        with pytest.raises(StoreUnavailable, match="CLUSTERDOWN"):
            positions.read(connection.connect(clustered), "t", 0)
        redis.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        many_slots = writer.error(writer.event(0))
        while isinstance(many_slots, StoreUnavailable):  # it takes a moment until the cluster is up
            many_slots = writer.error(writer.event(0))
        assert isinstance(many_slots, StoreMisconfigured)
        assert "CROSSSLOT" in str(many_slots)
        assert "without cluster mode" in str(many_slots)


def test_what_is_no_redis_is_named(settings: Settings, tmp_path: Path) -> None:
    import http.server
    import threading

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), http.server.BaseHTTPRequestHandler
    ) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url = f"redis://127.0.0.1:{other.server_address[1]}/0"
        with pytest.raises(StoreMisconfigured, match="does not speak the protocol of Redis"):
            positions.read(
                connection.connect(settings.model_copy(update={"redis_url": SecretStr(url)})),
                "t",
                0,
            )
        other.shutdown()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            (
                "EXECABORT Transaction discarded because of: NOREPLICAS Not enough good "
                "replicas to write."
            ),
            "NOREPLICAS",
        ),
        ("EXECABORT Transaction discarded because of previous errors.", "EXECABORT"),
        ("UNKILLABLE Sorry the script already executed write commands", "UNKILLABLE"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "TRYAGAIN"),
        ("MOVED 3999 127.0.0.1:6381", "MOVED"),
        ("ERR hash value is not an integer", "NOTANUMBER"),
        ("ERR max number of clients reached", "MAXCLIENTS"),
    ],
)
def test_a_reply_is_classified_by_its_code(text: str, code: str) -> None:
    assert redis_errors.code_of(client_library.ResponseError(text)) == code
    annotated = f"Command # 1 (HSET user:42 profile secret) of pipeline caused error: {text}"
    error = redis_errors.of_reply("testing", client_library.ResponseError(annotated))
    assert isinstance(error, redis_errors.RULES[code].error)
    assert "HSET user:42" in str(error)
    assert "secret" not in str(error), "values are personal data"


def test_a_reply_without_a_rule_stops_and_is_shown() -> None:
    error = redis_errors.of_reply(
        "testing", client_library.ResponseError("ERR unknown command 'HSET'")
    )
    assert isinstance(error, StoreMisconfigured)
    assert "unknown command 'HSET'" in str(error)


def test_the_page_for_operators_lists_every_code() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert [code for code in redis_errors.RULES if f"`{code}`" not in page] == []


def _event(settings: Settings, planner: Planner) -> Batch:
    return planner.plan(
        OffsetRange("t", 0, 0, 1),
        [Event(Interaction("e", "42", "startup-9", "like", NOW), NOW)],
        UNKNOWN_DELETIONS,
    )


def _popularity(settings: Settings, planner: Planner) -> Batch:
    pending = PendingPopularity(settings.use_cases, 30.0, Mark())
    pending.add(0, Interaction("e", "42", "startup-9", "like", NOW), NOW)
    events = [Event(Interaction("e", "42", "startup-9", "like", NOW), NOW)]
    return planner.plan(
        OffsetRange("t", 0, 0, 1), events, UNKNOWN_DELETIONS, pending.piece(1, whole=True)
    )


def _item(settings: Settings, _planner: Planner) -> EntryBatch:
    return EntryBatch(
        OffsetRange("t", 0, 0, 1),
        [
            _entry(
                settings,
                "item",
                "startup-9",
                0,
                encode_json(Item(item_id="startup-9", item_type="startup")),
            )
        ],
    )


def _deletion(settings: Settings, _planner: Planner) -> EntryBatch:
    profile = _entry(settings, "user", "7", 0, encode_json(User(user_id="7")))
    return EntryBatch(OffsetRange("t", 0, 0, 2), [profile, _entry(settings, "user", "42", 1, None)])


def _entry(
    settings: Settings, kind: Kind, identifier: str, offset: int, value: bytes | None
) -> Entry:
    return Entry(
        kind,
        IdHasher(settings.deletion_salt)(kind, identifier),
        identifier,
        Place(2.0, 0, offset, "t"),
        value,
    )


@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("user:42", _event),
        ("user:42:history", _event),
        ("popular:unlabelled", _popularity),
        ("items", _item),
        ("items:changes", _item),
        ("users:deleted", _deletion),
        ("ingest:t:0", _event),
    ],
)
def test_a_foreign_key_halts_the_partition_until_a_rebuild(
    key: str, make: object, refusing_redis: Redis, settings: Settings
) -> None:
    """The batch is not passed over: neither a restart nor deleting the foreign key makes ingest go
    on with a part missing.
    """
    writer = Writer(settings)
    refusing_redis.set(key, "somebody's own")
    error = writer.error(make(settings, writer.planner))  # type: ignore[operator]
    assert isinstance(error, StoreCorrupt)
    assert key in str(error)
    assert "WRONGTYPE" in str(error)
    for _ in range(2):
        with pytest.raises(StoreCorrupt) as refused:
            positions.take(refusing_redis, "t", 0)
        assert key in str(refused.value)
        assert "rebuild --wipe" in str(refused.value)
        refusing_redis.delete(key)
    for each in refusing_redis.scan_iter():
        if any(fnmatch(each.decode(), pattern) for pattern in keys.OWNED):
            refusing_redis.delete(each)
    assert positions.take(refusing_redis, "t", 0).offset == 0
    deletions.mark_ready(refusing_redis)
    writer.apply(make(settings, writer.planner))  # type: ignore[operator]
    writer.applier.close()
    assert positions.take(refusing_redis, "t", 0).offset > 0


@pytest.mark.parametrize("value", ["seventeen", "9223372036854775807"])
def test_a_counter_that_is_no_number_halts_the_partition(
    value: str, refusing_redis: Redis, settings: Settings
) -> None:
    writer = Writer(settings)
    refusing_redis.hset("user:42", "events", value)
    assert isinstance(writer.error(writer.event(0)), StoreCorrupt)
    with pytest.raises(StoreCorrupt, match="HINCRBY user:42"):
        positions.take(refusing_redis, "t", 0)


def test_a_process_that_dies_before_it_reads_the_reply_leaves_the_note(
    refusing_redis: Redis, settings: Settings
) -> None:
    """The note is part of the transaction itself, with the offsets; only the key's name needs a
    process that lives.
    """
    writer = Writer(settings)
    batch = writer.event(0)
    refusing_redis.set("user:42:history", "somebody's own")
    with connection.connect(settings) as client:
        pipe = connection.Pipe(client)
        pipe.send(applier.transaction([batch]))
        pipe.receive(applier.replies_of([batch]))
        pipe.close()
    assert positions.read(refusing_redis, "t", 0).offset == 1, (
        "Redis does not undo the other commands"
    )
    with pytest.raises(StoreCorrupt, match=r"offsets \[0, 1\)"):
        positions.take(refusing_redis, "t", 0)


def test_errors_of_other_clients_are_no_halt(refusing_redis: Redis, settings: Settings) -> None:
    writer = Writer(settings)
    for first in range(3):
        with pytest.raises(client_library.ResponseError):
            refusing_redis.execute_command("HSET", "too few")
        writer.applier.apply(writer.event(first))
    writer.applier.close()
    assert not refusing_redis.exists(keys.INGEST_HALTED)
