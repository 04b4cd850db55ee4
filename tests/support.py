"""Helpers that tests of every room use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self, TypeVar

import pytest

from core.deletions import IdHasher, Place
from core.errors import ProcessFailed
from core.settings import Settings
from store.state import connection
from store.state.apply.batches import Event, OffsetRange
from store.state.apply.entries import Entry, EntryBatch
from store.state.apply.entry_applier import EntryApplier
from store.state.apply.planner import Planner
from store.state.shards import shard_of_user

_Value = TypeVar("_Value")


def eventually(
    condition: Callable[[], _Value], what: str, timeout: float = 60.0, every: float = 0.02
) -> _Value:
    """Call `condition` every `every` seconds and return its first truthy value.

    Raises AssertionError with `what` after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what} (last answer: {value!r})")
        time.sleep(every)
    return value


@contextmanager
def skipped_without_tls() -> Iterator[None]:
    """Skip the test when a Redis that starts in the block was built without TLS."""
    try:
        yield
    except ProcessFailed as error:
        if "TLS support" not in str(error):
            raise
        pytest.skip("needs a redis-server or valkey-server with TLS on PATH or in REDIS_SERVER")


class NoLaterEvents:
    """An empty store.state.apply.entries.LaterEvents, for a test without a log."""

    def partitions(self) -> list[tuple[str, int]]:
        """No partitions."""
        return []

    def find(self, times: Mapping[str, float], positions: Sequence[int]) -> dict[str, list[Event]]:
        """No events."""
        return {}


def delete_user(settings: Settings, user_id: str, broker_time: float, offset: int) -> None:
    """Delete a user in Redis as ingest does.

    The record of the deletion is at `offset` of partition 0 of the topic "u", which no test uses.
    """
    hasher = IdHasher(settings.deletion_salt)
    planner = Planner(settings.use_cases, settings.experiments)
    applier = EntryApplier(
        connection.connect(settings, shard=shard_of_user(user_id, settings.redis_shards)),
        planner,
        settings.history_cap,
        lambda _published: None,
        NoLaterEvents(),
    )
    entry = Entry(
        "user", hasher("user", user_id), user_id, Place(broker_time, 0, offset, "u"), None
    )
    applier.apply(EntryBatch(OffsetRange("u", 0, offset, offset + 1), [entry]))
    applier.close()


class Background:
    """Runs `run(number)` in each of `threads` threads until the block ends.

    `run` returns soon after `ended` is set.
    """

    def __init__(self, threads: int = 1) -> None:
        self.ended = threading.Event()
        self._threads = [
            threading.Thread(
                target=self.run, args=(number,), name=f"{type(self).__name__}-{number}"
            )
            for number in range(threads)
        ]

    def run(self, number: int) -> None:
        """The work of one thread."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()
