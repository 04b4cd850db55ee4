"""Makes the numbers of one second, from what this process knows and from Redis and the broker.

What blocks runs in threads, each part by itself: a broker that is away delays no number of Redis.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import structlog
from prometheus_client import Metric

from api.page.probe import Prober
from api.page.traffic import NO_ANSWERS, RATE_S, Traffic
from api.schemas import live as schemas
from api.schemas.answers import Missing
from api.service import Service
from core.errors import EddylineError, LogUnavailable
from core.process.background import in_background
from store.log.groups import Groups
from store.log.letter_counts import LetterCounts
from store.state.inspection import memory, overview
from store.state.shards import Shards

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
WAIT_S = 0.5
"""Seconds that a sample waits for its parts; a later part is in the next sample."""
LETTERS_S = 5.0
"""Seconds between two reads of the dead-letter topic, and two requests for the consumers."""
MEMORY_S = 60.0
"""Seconds between two estimates of what users take in Redis."""
GROWTH_DAYS = 7.0
CLOSE_S = 1.0
"""Seconds to wait for a running call before a connection is closed; one that still runs then ends
with the process.
"""


class Part(Generic[_T]):
    """What a blocking call returned last. It runs in a thread, never twice at once.

    `value`: None before the first answer, and after a failure.
    """

    def __init__(self, name: str, call: Callable[[], _T], every_s: float = 0.0) -> None:
        self._name, self._call, self._every_s = name, call, every_s
        self._due = float("-inf")
        self.task: asyncio.Task[None] | None = None
        self.value: _T | None = None

    def start(self) -> set[asyncio.Task[None]]:
        """Begin the call if it is due; the task that runs, if one does."""
        now = time.monotonic()
        if self.task is None or self.task.done():
            if now < self._due:
                return set()
            self._due = now + self._every_s
            self.task = asyncio.create_task(self._run(), name=f"page-{self._name}")
        return {self.task}

    async def _run(self) -> None:
        try:
            self.value = await asyncio.to_thread(self._throttled)
        except EddylineError as error:
            _log.debug("live_part_unavailable", part=self._name, error=str(error))
            self.value = None
        except Exception:  # noqa: BLE001 - the other parts go on, and the next second tries again
            _log.exception("live_part_failed", part=self._name)
            self.value = None

    def _throttled(self) -> _T:
        with in_background():
            return self._call()


class Sampler:
    """Makes samples. `families`: the metrics of all processes of this server."""

    def __init__(self, service: Service, families: Callable[[], Iterable[Metric]]) -> None:
        self._service, self._settings = service, service.settings
        self._families = families
        self._topics = (
            self._settings.interactions_topic,
            self._settings.items_topic,
            self._settings.users_topic,
        )
        self._traffic = Traffic()
        self._shards = Shards(self._settings)
        self._letters = LetterCounts(self._settings)
        self._groups = Groups(self._settings)
        self._past: deque[tuple[float, int]] = deque()
        self.prober = Prober(service)
        self._overview = Part("redis", self._read_overview)
        self._ends = Part("kafka", self._read_ends)
        self._answers = Part("metrics", lambda: self._traffic.add(self._families()))
        self._memory = Part("memory", self._estimate_memory, MEMORY_S)
        self._counts = Part("dead_letters", self._count_letters, LETTERS_S)
        self._members = Part("consumers", self._read_members, LETTERS_S)
        self._parts: tuple[Part[Any], ...] = (
            *(self._overview, self._ends, self._answers),
            *(self._memory, self._counts, self._members),
        )

    def forget(self) -> None:
        """Begin again: nobody has looked for a while."""
        self._traffic.forget()
        self.prober.forget()
        self._past.clear()

    async def close(self) -> None:
        """Close the connections, after the calls that are running."""
        running = {part.task for part in self._parts if part.task and not part.task.done()}
        if running:
            _, running = await asyncio.wait(running, timeout=CLOSE_S)
        if not running:
            await asyncio.to_thread(self._letters.close)
            self._shards.close()

    async def sample(self, listeners: int) -> schemas.LiveNumbers:
        """The numbers of now, after WAIT_S at most."""
        tasks: set[asyncio.Task[None]] = set().union(*(part.start() for part in self._parts))
        if tasks:
            await asyncio.wait(tasks, timeout=WAIT_S)
        service, seen = self._service, self._overview.value
        causes = {**dict(service.live.bundle.missing), **service.health.causes}
        return schemas.LiveNumbers(
            at=time.time(),
            model_version=service.live.bundle.version,
            catalogue_items=service.view.catalogue_items,
            missing=[Missing(part=part, cause=cause) for part, cause in causes.items()],
            events=None if seen is None else self._events(seen),
            probe=self.prober.numbers(),
            answers=self._answers.value or NO_ANSWERS,
            dead_letters=_dead_letters(self._counts.value),
            redis=None if seen is None else _memory(seen, self._memory.value),
            processes=_processes(seen, self._members.value),
            listeners=listeners,
        )

    def _events(self, seen: overview.Overview) -> schemas.Events:
        ends = self._ends.value or {}
        partitions = []
        for progress in seen.partitions:
            end = ends.get((progress.topic, progress.partition))
            if end is not None:  # read a moment earlier, or by a broker that answers too low
                end = max(end, progress.position)
            partitions.append(
                schemas.PartitionLag(
                    topic=progress.topic,
                    partition=progress.partition,
                    position=progress.position,
                    end=end,
                    lag=None if end is None else end - progress.position,
                )
            )
        topic = self._settings.interactions_topic
        lags = [partition.lag for partition in partitions if partition.topic == topic]
        times = [progress.latest_at for progress in seen.partitions if progress.latest_at]
        return schemas.Events(
            per_second=self._rate(seen),
            latest_age_s=max(0.0, time.time() - max(times)) if times else None,
            lag=None if None in lags else sum(lag or 0 for lag in lags),
            partitions=partitions,
        )

    def _rate(self, seen: overview.Overview) -> float | None:
        """Messages of the interactions topic that were applied a second, of the last RATE_S."""
        applied = sum(
            progress.position
            for progress in seen.partitions
            if progress.topic == self._settings.interactions_topic
        )
        now = time.monotonic()
        if self._past and applied < self._past[-1][1]:  # Redis was emptied
            self._past.clear()
        while len(self._past) > 1 and now - self._past[0][0] > RATE_S:
            self._past.popleft()
        self._past.append((now, applied))
        began, first = self._past[0]
        return (applied - first) / (now - began) if now > began else None

    def _partitions(self) -> list[overview.Partition]:
        counts = ((topic, self._service.partitions.count(topic)) for topic in self._topics)
        return [(topic, number) for topic, count in counts for number in range(count or 0)]

    def _read_overview(self) -> overview.Overview:
        return overview.read(self._shards, self._partitions())

    def _check_broker(self) -> None:
        """Raises LogUnavailable."""
        if not self._service.broker_answers:
            raise LogUnavailable("the broker does not answer")

    def _count_letters(self) -> Counter[str]:
        self._check_broker()
        return self._letters.refresh()

    def _read_members(self) -> dict[str, list[str]]:
        """The processes of the other groups; those of ingest are in Redis, by name."""
        self._check_broker()
        settings = self._settings
        kinds = {
            settings.archive_group: "archive",
            settings.live_group: "live",
            settings.trainer_group: "trainer",
        }
        members = self._groups.members(list(kinds))
        return {kinds[group]: names for group, names in members.items()}

    def _read_ends(self) -> dict[overview.Partition, int]:
        self._check_broker()
        return {
            (topic, number): end
            for topic in self._topics
            for number, end in enumerate(self._service.partitions.ends(topic))
        }

    def _estimate_memory(self) -> memory.Memory:
        return memory.estimate(self._shards, self._settings.history_cap, GROWTH_DAYS)


def _dead_letters(counts: Counter[str] | None) -> schemas.DeadLetters | None:
    if counts is None:
        return None
    return schemas.DeadLetters(total=counts.total(), by_code=dict(counts.most_common()))


def _memory(seen: overview.Overview, estimate: memory.Memory | None) -> schemas.RedisMemory | None:
    if seen.memory is None:
        return None
    used, limit = seen.memory
    left = None if estimate is None else estimate.days_left
    return schemas.RedisMemory(
        used_bytes=used,
        limit_bytes=limit or None,
        users=None if estimate is None else estimate.users,
        growth_bytes_per_day=None if estimate is None else round(estimate.growth_per_day),
        days_left=None if left is None else round(left, 1),
    )


def _processes(
    seen: overview.Overview | None, members: dict[str, list[str]] | None
) -> list[schemas.Process] | None:
    """None: neither Redis nor the broker answers."""
    if seen is None and members is None:
        return None
    running = []
    if seen is not None:
        running += [("ingest", name) for name in seen.ingest]
        running += [("retrain", seen.retrain)] if seen.retrain else []
        running += [("rebuild", seen.rebuild)] if seen.rebuild else []
    running += [(kind, name) for kind, names in (members or {}).items() for name in names]
    return [schemas.Process(kind=kind, name=name) for kind, name in running]
