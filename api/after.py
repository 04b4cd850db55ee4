"""Waits, for a read with `after`, until the write of that token is in the state that it reads."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import structlog

from api.errors import invalid
from api.health import Health
from api.live_view.view import LiveView
from api.metrics import Metrics
from core.errors import LogUnavailable, SlotMoving, StoreError
from core.settings import Settings
from store.log.topics.partitions import Partitions
from store.state.entities.arrivals import Arrivals
from store.state.shards import shard_of_partition

_log = structlog.get_logger(__name__)
MOST_WAITING = 1_000
"""Reads that may wait, each on an open connection; one more is answered as stale at once."""
WAIT_SHARE = 0.9
"""Share of the time of a request (API_TIMEOUT_S) that it may wait, however long API_AFTER_S is: the
rest is for answering.
"""
RECOUNT_S = 1.0
"""Seconds between two requests to the broker for the number of partitions; also their timeout."""
CHECK_S = 0.01
"""Seconds between two checks whether the live view has the catalogue entry; it is refreshed every
REFRESH_S.
"""


class Token(NamedTuple):
    """The place of a message in the log: `topic:partition:offset`, as writes answer it."""

    topic: str
    partition: int
    offset: int


def split(query_string: bytes) -> tuple[bytes, str | None]:
    """The query string without `after`, and the value of `after`.

    Without `after` the query strings of a client repeat, and can be cached. Raises ApiError.
    """
    if b"after" not in query_string and b"%" not in query_string:
        return query_string, None
    rest: list[bytes] = []
    tokens: list[str] = []
    for pair in query_string.split(b"&"):
        name, _, value = pair.partition(b"=")
        if unquote_to_bytes(name) == b"after":
            tokens.append(unquote_to_bytes(value).decode(errors="replace"))
        else:
            rest.append(pair)
    if len(tokens) > 1:
        raise invalid("after occurs twice")
    return b"&".join(rest), tokens[0] if tokens else None


class ReadYourWrites:
    """Waits for the writes of tokens. One per app."""

    def __init__(
        self,
        settings: Settings,
        view: LiveView,
        arrivals: Arrivals,
        health: Health,
        metrics: Metrics,
        partitions: Partitions,
    ) -> None:
        self._settings, self._view, self._arrivals = settings, view, arrivals
        self._health, self._metrics, self._partitions = health, metrics, partitions
        self._recounted = float("-inf")  # time.monotonic()
        self._seconds = min(settings.api_after_s, WAIT_SHARE * settings.api_timeout_s)
        self._waiting = 0
        self._topics = (settings.interactions_topic, settings.items_topic, settings.users_topic)

    async def stale(self, text: str) -> bool:
        """Wait for the write of a token, API_AFTER_S at most. True: an answer may lack the write.

        While the shard is failing, reads do not wait. Raises ApiError for an invalid token.
        """
        token = self._parsed(text)
        await self._check_partition(token)
        shard = shard_of_partition(self._settings, token.topic, token.partition)
        if self._view.shard_health.fails(shard) or self._waiting >= MOST_WAITING:
            self._metrics.observe_wait(False, 0.0)
            return True
        began = time.perf_counter()
        self._waiting += 1
        try:
            arrived = await self._arrived(token, shard)
        finally:
            self._waiting -= 1
        self._metrics.observe_wait(arrived, time.perf_counter() - began)
        return not arrived

    async def _arrived(self, token: Token, shard: int) -> bool:
        try:
            if token.topic == self._settings.items_topic:
                return await self._in_view(token)
            return await self._arrivals.wait(*token, self._seconds)
        except SlotMoving as error:
            _log.debug("shard_moving", shard=shard, error=str(error))
        except StoreError as error:
            self._view.shard_health.mark_failed(shard, str(error))
        return False

    async def _in_view(self, token: Token) -> bool:
        deadline = time.monotonic() + self._seconds
        while True:
            applied = self._view.items_applied
            if token.partition < len(applied) and token.offset < applied[token.partition]:
                return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(CHECK_S)

    def _parsed(self, text: str) -> Token:
        topic, _, rest = text.partition(":")
        partition, _, offset = rest.partition(":")
        if not all(
            part.isascii() and part.isdigit() and len(part) < 20 for part in (partition, offset)
        ):
            raise invalid(
                (
                    f"after must be a token topic:partition:offset, as a write answers it, not "
                    f"{text[:300]!r}"
                ),
                "bad_token",
            )
        if topic not in self._topics:
            raise invalid(
                (
                    f"after names the topic {topic[:300]!r}; this server waits for "
                    f"{', '.join(self._topics)}"
                ),
                "bad_token",
            )
        return Token(topic, int(partition), int(offset))

    async def _check_partition(self, token: Token) -> None:
        """Refuse a partition that the topic does not have, once the number of partitions is known.

        The token may name a partition that was added later, so the number is read again first.
        Raises ApiError.
        """
        count = self._partitions.count(token.topic)
        if count is None or token.partition < count:
            return
        if time.monotonic() - self._recounted > RECOUNT_S:
            self._recounted = time.monotonic()
            try:
                await asyncio.to_thread(self._partitions.refresh, RECOUNT_S)
            except LogUnavailable as error:
                self._health.mark_failed("kafka", str(error))
                return
        count = self._partitions.count(token.topic) or 0
        if token.partition >= count:
            raise invalid(
                f"after names partition {token.partition}; the topic {token.topic} has {count}",
                "bad_token",
            )
