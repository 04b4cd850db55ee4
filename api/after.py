"""Reading your own write: a read with `after` waits until the event of that token is in what it
answers from.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from api.errors import invalid
from api.health import Health
from api.live_view.view import LiveView
from api.metrics import Metrics
from core.errors import LogUnavailable, StoreError
from core.settings import Settings
from store.log.partitions import Partitions
from store.state.entities.arrivals import Arrivals

MOST_WAITING = 1_000
"""Reads that wait at once, each a connection that somebody holds open; one more is answered as
stale, and at once.
"""
WAIT_SHARE = 0.9
"""Share of the time a request may take (API_TIMEOUT_S) that it may wait, whatever API_AFTER_S says:
the rest is for answering.
"""
RECOUNT_S = 1.0
"""Seconds between two questions to the broker because of tokens, and seconds that one waits."""
LOOK_S = 0.01
"""Seconds between two looks at whether the live view has the catalogue entry; it follows Redis
every REFRESH_S.
"""


class Token(NamedTuple):
    """Where a message lies in the log: `topic:partition:offset`, as the writing routes answer
    it.
    """

    topic: str
    partition: int
    offset: int


def taken(query_string: bytes) -> tuple[bytes, str | None]:
    """The query string without `after`, and its value: a query string that is asked again and again
    stays the same. Raises ApiError.
    """
    if b"after" not in query_string and b"%" not in query_string:
        return query_string, None
    rest: list[bytes] = []
    found: list[str] = []
    for pair in query_string.split(b"&"):
        name, _, value = pair.partition(b"=")
        if unquote_to_bytes(name) == b"after":
            found.append(unquote_to_bytes(value).decode(errors="replace"))
        else:
            rest.append(pair)
    if len(found) > 1:
        raise invalid("after is given twice")
    return b"&".join(rest), found[0] if found else None


class ReadYourWrites:
    """Waits for events. One per app."""

    def __init__(
        self,
        settings: Settings,
        view: LiveView,
        arrivals: Arrivals,
        health: Health,
        metrics: Metrics,
        partitions: Partitions,
    ) -> None:
        self._settings, self._view, self._arrivals, self._health, self._metrics = (
            settings,
            view,
            arrivals,
            health,
            metrics,
        )
        self._partitions = partitions
        self._recounted = float("-inf")  # time.monotonic()
        self._seconds = min(settings.api_after_s, WAIT_SHARE * settings.api_timeout_s)
        self._waiting = 0
        self._topics = (settings.interactions_topic, settings.items_topic, settings.users_topic)

    async def stale(self, text: str) -> bool:
        """Wait for the event of a token, API_AFTER_S at most; True when an answer made now may be
        without it.

        While Redis is known to fail nobody waits. Raises ApiError for what is no token of ours.
        """
        token = self._parsed(text)
        await self._check_partition(token)
        if self._health.failing("redis") is not None or self._waiting >= MOST_WAITING:
            self._metrics.waited(False, 0.0)
            return True
        began = time.perf_counter()
        self._waiting += 1
        try:
            arrived = await self._arrived(token)
        finally:
            self._waiting -= 1
        self._metrics.waited(arrived, time.perf_counter() - began)
        return not arrived

    async def _arrived(self, token: Token) -> bool:
        try:
            if token.topic == self._settings.items_topic:
                return await self._in_view(token)
            return await self._arrivals.wait(*token, self._seconds)
        except StoreError as error:
            self._health.failed("redis", str(error))
            return False

    async def _in_view(self, token: Token) -> bool:
        deadline = time.monotonic() + self._seconds
        while True:
            applied = self._view.items_applied
            if token.partition < len(applied) and token.offset < applied[token.partition]:
                return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(LOOK_S)

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
        """Refuse a partition that the topic does not have, as soon as the broker has told how many
        there are.

        Another process may have written to a partition that was added since, so the broker is asked
        again before. Raises ApiError.
        """
        count = self._partitions.count(token.topic)
        if count is None or token.partition < count:
            return
        if time.monotonic() - self._recounted > RECOUNT_S:
            self._recounted = time.monotonic()
            try:
                await asyncio.to_thread(self._partitions.refresh, RECOUNT_S)
            except LogUnavailable as error:
                self._health.failed("kafka", str(error))
                return
        count = self._partitions.count(token.topic) or 0
        if token.partition >= count:
            raise invalid(
                f"after names partition {token.partition}; the topic {token.topic} has {count}",
                "bad_token",
            )
