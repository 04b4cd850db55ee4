"""Makes a real Redis refuse commands for a real cause, and corrects it afterwards."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis, RedisError

from tests.support import eventually

OPTIONS = {"enable-protected-configs": "yes", "enable-debug-command": "yes", "maxclients": "60"}
"""Options of a server for these tests."""
NOWHERE = ("127.0.0.1", "1")
"""An address at which no master answers."""
TEMPORARY = (
    "LOADING",
    "BUSY",
    "READONLY",
    "NOREPLICAS",
    "MASTERDOWN",
    "OOM",
    "MISCONF",
    "MAXCLIENTS",
)
"""The codes that `refusing` provokes."""


@contextmanager
def refusing(code: str, redis: Redis, directory: Path) -> Iterator[None]:
    """While the block lasts the server refuses writes with `code`.

    `directory`: an empty folder's path.
    """
    if code == "NOREPLICAS":
        with _config(redis, "min-replicas-to-write", "1"):
            yield
    elif code == "OOM":
        with _config(redis, "maxmemory", "1"):
            yield
    elif code == "READONLY":
        with _replica(redis):
            yield
    elif code == "MASTERDOWN":
        with _config(redis, "replica-serve-stale-data", "no"), _replica(redis):
            yield
    elif code == "MISCONF":
        with _failed_snapshot(redis, directory):
            yield
    elif code == "BUSY":
        with _busy(redis):
            yield
    elif code == "LOADING":
        with _loading(redis):
            yield
    elif code == "MAXCLIENTS":
        redis.client_kill_filter(_type="normal", skipme=True)
        with _config(redis, "maxclients", "1"):
            yield
    else:
        raise ValueError(code)


@contextmanager
def _config(redis: Redis, name: str, value: str) -> Iterator[None]:
    before = redis.config_get(name)[name]
    redis.config_set(name, value)
    try:
        yield
    finally:
        redis.config_set(name, before)


@contextmanager
def _replica(redis: Redis) -> Iterator[None]:
    redis.replicaof(*NOWHERE)
    try:
        yield
    finally:
        redis.replicaof("NO", "ONE")


@contextmanager
def _failed_snapshot(redis: Redis, directory: Path) -> Iterator[None]:
    """The folder of the snapshot is gone, so BGSAVE fails, as on a full disk."""
    directory.mkdir()
    before = redis.config_get("dir")["dir"]
    redis.config_set("dir", str(directory))
    shutil.rmtree(directory)
    with _config(redis, "save", "3600 1000000"):
        redis.bgsave()
        eventually(
            lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err",
            "the snapshot has failed",
        )
        yield
    redis.config_set("dir", before)
    redis.bgsave()
    eventually(
        lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "ok", "a snapshot is written"
    )


@contextmanager
def _busy(redis: Redis) -> Iterator[None]:
    script = _Other(redis, "EVAL", "while true do end", "0")
    with _config(redis, "busy-reply-threshold", "10"), script:
        try:
            yield
        finally:
            redis.script_kill()


@contextmanager
def _loading(redis: Redis) -> Iterator[None]:
    """The server reads its keys back slowly, until the block ends."""
    names = ("key-load-delay", "loading-process-events-interval-bytes")
    before = {name: redis.config_get(name)[name] for name in names}
    pipe = redis.pipeline()
    for number in range(400):
        pipe.set(f"filler:{number}", "x" * 2000)
    pipe.execute()
    redis.config_set("loading-process-events-interval-bytes", "1024")
    redis.config_set("key-load-delay", "5000")
    with _Other(redis, "DEBUG", "RELOAD"):
        yield  # the reload ends by itself after two seconds
    for name, value in before.items():
        redis.config_set(name, value)
    redis.delete(*[f"filler:{number}" for number in range(400)])


class _Other:
    """A command that occupies the server, sent by another client; the block begins once others are
    refused.
    """

    def __init__(self, redis: Redis, *command: str) -> None:
        self._redis, self._command = redis, command
        self._thread = threading.Thread(target=self._run, name=command[0])

    def _run(self) -> None:
        arguments = {**self._redis.connection_pool.connection_kwargs, "socket_timeout": 60.0}
        with Redis(host=arguments["host"], port=arguments["port"], socket_timeout=60.0) as client:
            try:
                client.execute_command(*self._command)
            except RedisError as error:  # a script that is killed ends with an error
                print(f"{self._command[0]} ended: {error}")

    def __enter__(self) -> None:
        self._thread.start()
        eventually(self._refuses, "others are refused")

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _refuses(self) -> bool:
        try:
            self._redis.get("no-such-key")
        except RedisError:
            return True
        return False
