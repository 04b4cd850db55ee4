"""Checks each error reply of a real Redis: retried or permanent, with correct advice."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis as client_library
from pydantic import SecretStr
from redis import Redis

from core.errors import StoreMisconfigured, StoreUnavailable
from core.settings import Settings
from store.state import connection, keys
from store.state.apply import positions
from store.state.servers import redis_errors
from testing.process import ROOT
from testing.redis import RedisServer
from tests import redis_refusals
from tests.store.state.errors.writer import Writer


@pytest.mark.parametrize("code", redis_refusals.TEMPORARY)
def test_a_temporary_error_is_retried_and_the_event_counts_once(
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
            "an error that is not about the type of a key must not mention it"
        )
    writer.applier.apply(writer.event(1))
    writer.applier.close()
    assert refusing_redis.hget("user:42", "events") == b"2"
    assert not refusing_redis.exists(keys.ONLY.halted)


@pytest.mark.parametrize(
    "denied", ["-rpush", "-watch", "-exec", "-eval", "resetkeys ~user:* ~users:*"]
)
def test_an_error_of_a_missing_permission_names_the_grant(
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
def test_an_error_of_missing_credentials_shows_the_form_of_the_url(
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
        assert "redis+cluster://" in str(many_slots)


def test_another_server_at_redis_url_is_recognised(settings: Settings, tmp_path: Path) -> None:
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


def test_an_unknown_error_reply_is_permanent_and_is_shown() -> None:
    error = redis_errors.of_reply(
        "testing", client_library.ResponseError("ERR unknown command 'HSET'")
    )
    assert isinstance(error, StoreMisconfigured)
    assert "unknown command 'HSET'" in str(error)


def test_the_page_for_operators_lists_every_error_code() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert [code for code in redis_errors.RULES if f"`{code}`" not in page] == []
