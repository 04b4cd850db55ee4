"""Runs `python -m streams simulate`: sends a simulated marketplace to Kafka.

Past events are sent at full speed or at a rate, then live events until the command is stopped.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

from core.codec import encode_json
from core.settings import Settings
from core.types import Interaction
from store.log.access import permissions
from store.log.producer import Producer
from streams.pace import Pace
from streams.progress import progress
from streams.simulator.events import Chunk, Simulation

_log = structlog.get_logger(__name__)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate; see the command's --help.

    `start` in seconds since 1970, `rate` in events per second (0: as fast as possible).
    """

    users: int
    items: int
    events: int
    seed: int
    rate: float
    forever: bool
    start: float
    days: float
    summary: Path | None
    dry_run: bool
    catalogue: bool


class Simulator:
    """Sends the chunks of one plan to Kafka, or prints them."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        self._settings, self._plan = settings, plan
        self._simulation = Simulation(
            plan.seed, plan.users, plan.items, plan.events, plan.start, plan.days
        )
        self._stopped = threading.Event()
        self._by_user: Counter[str] = Counter()
        self._by_type: Counter[str] = Counter()

    def stop(self) -> None:
        """Make `run` return after the current event."""
        self._stopped.set()

    def run(self) -> dict[str, Any]:
        """Send everything; returns the summary. Raises LogUnavailable."""
        if self._plan.dry_run:
            for chunk in self._simulation.chunks():
                self._print(chunk)
            return self._finish()
        settings = self._settings
        topics = (settings.interactions_topic, settings.items_topic, settings.users_topic)
        permissions.prepare_to_send(settings, "simulate", *topics)
        pace = Pace(self._plan.rate, self._stopped)
        with (
            Producer(self._settings) as producer,
            progress("simulating", self._plan.events) as advance,
        ):
            for chunk in self._simulation.chunks():
                self._send(producer, chunk, pace, live=False)
                advance(len(chunk.events))
                if self._stopped.is_set():
                    break
            producer.flush()
            summary = self._finish()
            if self._plan.forever:
                for chunk in self._live():
                    self._send(producer, chunk, pace, live=True)
        return summary

    def _live(self) -> Iterator[Chunk]:
        for chunk in self._simulation.live():
            if self._stopped.is_set():
                return
            yield chunk

    def _send(self, producer: Producer, chunk: Chunk, pace: Pace, *, live: bool) -> None:
        """`live`: the time of events and the creation of startups is now."""
        if self._plan.catalogue or live:
            for item in chunk.items:
                producer.item(
                    item.item_id,
                    msgspec.structs.replace(item, created_at=round(time.time(), 3))
                    if live
                    else item,
                )
            for user in chunk.users:
                producer.user(user.user_id, user)
        if not live and not self._plan.rate:
            producer.batch(
                self._settings.interactions_topic,
                [(event.user_id.encode(), encode_json(event)) for event in chunk.events],
            )
            self._count(chunk.events)
            return
        for event in chunk.events:
            if not pace.wait():
                return
            producer.interaction(
                msgspec.structs.replace(event, timestamp=round(time.time(), 3)) if live else event
            )
        self._count(chunk.events)

    def _print(self, chunk: Chunk) -> None:
        self._count(chunk.events)
        for entry in (*chunk.items, *chunk.users, *chunk.events):
            sys.stdout.buffer.write(encode_json(entry) + b"\n")

    def _count(self, events: list[Interaction]) -> None:
        self._by_user.update([event.user_id for event in events])
        self._by_type.update([event.event_type for event in events])

    def _finish(self) -> dict[str, Any]:
        summary = self.summary()
        if self._plan.summary is not None:
            self._plan.summary.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._plan.summary.with_suffix(".tmp")
            temporary.write_bytes(msgspec.json.format(encode_json(summary), indent=2) + b"\n")
            temporary.replace(self._plan.summary)
        return summary

    def summary(self) -> dict[str, Any]:
        """Counts, and one user with declared interests for each segment.

        The cold user has the fewest events, the warm and the hot user the median number.
        """
        cold, hot = self._settings.cold_start_threshold, self._settings.warm_user_threshold
        segments: dict[str, list[tuple[int, str]]] = {"cold": [], "warm": [], "hot": []}
        for user in self._simulation.world.users[: self._plan.users]:
            count = self._by_user[user.user_id]
            segment = "cold" if count < cold else "warm" if count < hot else "hot"
            if user.interests and user.roles == ["developer"]:
                segments[segment].append((count, user.user_id))
        for members in segments.values():
            members.sort()
        quantile = {"cold": 0.0, "warm": 0.5, "hot": 0.5}
        example_users = {
            name: members[int(len(members) * quantile[name])][1] if members else None
            for name, members in segments.items()
        }
        counts = [
            self._by_user[user.user_id] for user in self._simulation.world.users[: self._plan.users]
        ]
        return {
            "seed": self._plan.seed,
            "start": self._plan.start,
            "days": self._plan.days,
            "users": self._plan.users,
            "items": self._plan.items,
            "events": sum(self._by_type.values()),
            "events_by_type": dict(self._by_type.most_common()),
            "segments": {
                "cold": sum(count < cold for count in counts),
                "warm": sum(cold <= count < hot for count in counts),
                "hot": sum(count >= hot for count in counts),
            },
            **example_users,
        }


def run(settings: Settings, plan: Plan) -> None:
    """Simulate until done, SIGTERM or SIGINT."""
    simulator = Simulator(settings, plan)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: simulator.stop())
    summary = simulator.run()
    _log.info(
        "simulation_finished",
        **{
            name: summary[name]
            for name in ("events", "users", "items", "segments", "cold", "warm", "hot")
        },
    )
