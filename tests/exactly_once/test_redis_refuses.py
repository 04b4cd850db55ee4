"""When Redis refuses commands for a while, ingest waits; when it refuses them for good, ingest
stops with advice that works. Every event counts exactly once.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from redis import Redis

from core.settings import Settings
from store.log.producer import Producer
from testing.process import Child
from testing.redis import RedisServer
from tests import oracle, redis_refusals
from tests.exactly_once.conftest import Ingest, caught_up
from tests.exactly_once.traffic import Traffic
from tests.support import eventually


@pytest.fixture
def own_redis_server(tmp_path: Path) -> object:
    with RedisServer(tmp_path / "redis", options=redis_refusals.OPTIONS) as server:
        yield server


def _applied(redis: Redis, settings: Settings) -> int:
    return sum(oracle.positions(redis, settings).values())


TEXTS = {"MAXCLIENTS": ("max number of clients",), "MASTERDOWN": ("MASTERDOWN", "READONLY")}
"""By code: the texts that ingest may log, where that is not the code. A replica without its master
refuses reads with MASTERDOWN and writes with READONLY; ingest may meet either first.
"""


def _logged(child: Child, texts: tuple[str, ...], since: int) -> None:
    """Wait until ingest has logged one of `texts` after the first `since` characters of its log."""

    def is_logged() -> bool:
        child.check()
        return any(text in child.log.read_text()[since:] for text in texts)

    try:
        eventually(is_logged, f"{' or '.join(texts)} in the log of ingest", 60)
    except AssertionError as error:
        raise AssertionError(f"{error}; {child.describe('is silent')}") from None


@pytest.mark.process
@pytest.mark.timeout(480)
def test_ingest_waits_out_temporary_refusals_and_loses_no_event(
    broker: object,
    own_redis_server: RedisServer,
    settings: Settings,
    ingest: Ingest,
    seed: int,
    tmp_path: Path,
) -> None:
    with Redis.from_url(own_redis_server.url) as redis, Traffic(settings, seed):
        child = ingest()
        for code in redis_refusals.TEMPORARY:
            expected = _applied(redis, settings) + 50
            eventually(
                lambda expected=expected: _applied(redis, settings) > expected,
                f"events applied before {code}",
            )
            logged = len(child.log.read_text())
            with redis_refusals.refusing(code, redis, tmp_path / code):
                _logged(child, TEXTS.get(code, (code,)), logged)
        expected = _applied(redis, settings) + 50
        eventually(
            lambda: _applied(redis, settings) > expected, "events applied after the last refusal"
        )
    with Redis.from_url(own_redis_server.url) as redis:
        caught_up(redis, settings, child)
        oracle.assert_equal(redis, settings)
    assert "type that Eddyline does not write" not in child.log.read_text()


@pytest.mark.timeout(180)
def test_a_revoked_permission_stops_ingest_and_every_event_counts_once_it_is_granted(
    broker: object, own_redis_server: RedisServer, settings: Settings, ingest: Ingest, seed: int
) -> None:
    url = f"redis://ingest:a-password@{own_redis_server.address}/0"
    with Redis.from_url(own_redis_server.url) as redis, Producer(settings) as producer:
        redis.execute_command(
            "ACL", "SETUSER", "ingest", "reset", "on", ">a-password", *documented_permissions()
        )
        traffic = Traffic(settings, seed)
        traffic.burst(producer, 200)
        producer.flush()
        child = ingest(REDIS_URL=url)
        caught_up(redis, settings, child)
        redis.execute_command("ACL", "SETUSER", "ingest", "-hincrby")
        traffic.burst(producer, 200)
        assert child.wait(45) == 1
        assert "NOPERM" in child.log.read_text()
        assert "ACL SETUSER" in child.log.read_text()
        assert "a-password" not in child.log.read_text()
        redis.execute_command("ACL", "SETUSER", "ingest", "+hincrby")
        caught_up(redis, settings, ingest(REDIS_URL=url))
        oracle.assert_equal(redis, settings)


def documented_permissions() -> list[str]:
    """The rules that docs/security.md gives for ingest."""
    from testing.process import ROOT

    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    line = next(line for line in page.splitlines() if "ACL SETUSER eddyline-ingest" in line)
    return shlex.split(line.split("'>PASSWORD'", 1)[1])


@pytest.mark.process
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "fault", [(), ("die=5.4-sent,1",)], ids=["alive", "killed-before-the-reply"]
)
def test_after_a_key_of_another_type_no_start_skips_events(
    broker: object,
    settings: Settings,
    redis: Redis,
    ingest: Ingest,
    seed: int,
    fault: tuple[str, ...],
) -> None:
    """Also when ingest is killed after it has sent the transaction, so that no process reads the
    reply in which a command failed.
    """
    for number in range(60):
        redis.set(f"user:user-{number}", "not a hash")
    with Producer(settings) as producer:
        Traffic(settings, seed).burst(producer, 100)
    child = ingest(*fault)
    assert child.wait(45) == (-9 if fault else 1)
    if not fault:
        assert "HSETNX user:user-" in child.log.read_text()
    for number in range(60):
        redis.delete(f"user:user-{number}")
    child = ingest()
    assert child.wait(45) == 1
    assert "is incomplete in Redis" in child.log.read_text()
    assert "rebuild --wipe" in child.log.read_text()
    redis.flushall()  # the first step of `rebuild --wipe`; the log still holds everything
    caught_up(redis, settings, ingest())
    oracle.assert_equal(redis, settings)
