"""Every process runs with the permissions that docs/security.md lists for it."""

from __future__ import annotations

import http.client
import re
import shlex
import uuid
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from core.settings import Settings
from store.log.producer import Producer
from testing.process import ROOT, Child
from testing.redis import RedisServer
from tests import oracle
from tests.api.world import port_of
from tests.conftest import Spawn
from tests.exactly_once.conftest import caught_up
from tests.exactly_once.rebuild.steps import send
from tests.live.world import event, publish
from tests.support import eventually

PASSWORD = "a-pass_word"
USERS = {
    match["user"]: shlex.split(match["rules"])
    for match in re.finditer(
        r"^redis-cli ACL SETUSER eddyline-(?P<user>\w+) (?P<rules>.*)$",
        (ROOT / "docs" / "security.md").read_text("utf-8"),
        re.MULTILINE,
    )
}
"""Name of a process -> the rules of its line in the docs."""

Run = Callable[..., Child]


@pytest.fixture
def admin(own_redis_server: RedisServer) -> Iterator[Redis]:
    """As the default user, who makes the others."""
    with Redis.from_url(own_redis_server.url) as client:
        for user, rules in USERS.items():
            own = [rule.replace(">PASSWORD", f">{PASSWORD}") for rule in rules]
            client.execute_command("ACL", "SETUSER", user, "reset", *own)
        yield client


@pytest.fixture
def run(spawn: Spawn, own_redis_server: RedisServer, admin: Redis) -> Run:
    """`run("ingest", "streams", "ingest")`: as the user `ingest`."""

    def start(user: str, *command: str, **environment: str) -> Child:
        url = f"redis://{user}:{PASSWORD}@{own_redis_server.address}/0"
        return spawn(*command, REDIS_URL=url, **environment)

    return start


def denied(admin: Redis) -> list[str]:
    """What was refused so far, and to whom."""
    entries = admin.execute_command("ACL", "LOG")
    pairs = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in entries]
    return [f"{entry[b'username']!r} {entry[b'reason']!r} {entry[b'object']!r}" for entry in pairs]


def ended(child: Child) -> None:
    assert child.wait(120) == 0, child.describe("failed")


@pytest.mark.timeout(480)
def test_every_process_works_with_the_permissions_in_the_docs(
    broker: object, settings: Settings, admin: Redis, run: Run
) -> None:
    send(settings, 7, 400)
    with Producer(settings) as producer:
        producer.user("user-3", None)
        producer.item("startup:3", None)
    ingest = run("ingest", "streams", "ingest", DEDUP_WINDOW=str(settings.dedup_window))
    caught_up(admin, settings, ingest)
    oracle.assert_equal(admin, settings)
    assert denied(admin) == []

    publish(settings, seed=1)
    live = run("live", "streams", "live")
    api = run("api", "api", API_ADMIN_KEYS="an-admin-key-of-32-characters-00")
    port = eventually(lambda: api.alive and port_of(api.log.read_text()), "the API serves")
    for number in range(60):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        client.request("GET", f"/api/recommendations/user-{number}")
        assert client.getresponse().status == 200
        client.close()
    with Producer(settings) as producer:
        for number in range(100):  # of 45 items, 5 of which are new
            producer.interaction(event(f"user-{number % 30}", f"item-{number % 45}", number))
    caught_up(admin, settings, ingest)
    eventually(lambda: any(admin.scan_iter("user:*:als")), "vectors of the live worker", 60)
    eventually(lambda: any(admin.scan_iter("item:*:als")), "factors of the new items", 60)
    eventually(lambda: any(admin.scan_iter("experiment:*:exposed")), "exposures of the API", 60)
    for child in (live, api, ingest):
        child.stop()
    assert denied(admin) == []

    for command in (("user", "user-1"), ("positions",), ("item", "item:1"), ("memory",)):
        ended(run("inspect", "streams", "inspect", *command))
    ended(run("nobody", "streams", "archive", "--until-idle"))
    expire = ("streams", "expire")
    ended(run("expire", *expire, USER_IDLE_DAYS="1", POPULARITY_MIN_WEIGHT="1000"))
    ended(run("trainer", "training", "retrain", "--force", ENABLE_TWO_TOWER="false"))
    ended(run("rebuild", "streams", "rebuild", "--wipe", "--yes"))
    assert denied(admin) == []
    caught_up(admin, settings, run("ingest", "streams", "ingest"))
    oracle.assert_equal(admin, settings)


@pytest.mark.timeout(240)
def test_a_server_without_info_and_config_is_used_with_a_warning(
    broker: object, settings: Settings, admin: Redis, run: Run
) -> None:
    """As `+@all -@dangerous` on a server with `rename-command CONFIG ""`."""
    rules = ["reset", "on", f">{PASSWORD}", "~*", "&*", "+@all", "-@dangerous"]
    admin.execute_command("ACL", "SETUSER", "hardened", *rules)
    send(settings, 9, 400)
    ingest = run("hardened", "streams", "ingest", INGEST_GROUP=f"ingest-{uuid.uuid4().hex[:8]}")
    caught_up(admin, settings, ingest)
    oracle.assert_equal(admin, settings)
    assert "eviction_not_checked" in ingest.log.read_text()


@pytest.mark.timeout(240)
def test_a_missing_permission_is_named_in_one_line_at_the_start(
    broker: object, settings: Settings, admin: Redis, run: Run
) -> None:
    admin.execute_command("ACL", "SETUSER", "ingest", "-hsetnx")
    ingest = run("ingest", "streams", "ingest")
    assert ingest.wait(60) == 1
    (error,) = [line for line in ingest.log.read_text().splitlines() if line.startswith("error: ")]
    assert "NOPERM" in error
    assert "hsetnx" in error.lower()
    assert PASSWORD not in ingest.log.read_text()
