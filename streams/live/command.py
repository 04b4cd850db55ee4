"""Runs `python -m streams live`: a Faust app that folds in the users and items that hints name.

Faust shares the partitions among the workers and elects the leader that runs schedules. Correctness
does not depend on its commits: a hint that it delivers twice writes the same vectors twice, and
readers fold in the users of a hint that it loses. docs/adr/0007-live-workers.md has the reasons.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from typing import Any

import faust
from faust.types import TP
from threadpoolctl import threadpool_limits

from core.process import cli, stop
from core.settings import Settings
from store import start
from store.log import client as log
from store.log.access import permissions
from store.log.topics.check import TopicCheck
from store.state import connection, shard_numbers
from store.state.shards import Shards
from streams import metrics
from streams.live import schedules
from streams.live.noise import LIBRARIES, ClientNoise
from streams.live.security import credentials
from streams.live.worker import READERS_S, LiveWorker

_MESSAGES = 300
"""Messages in one batch at most: those of a second, of which there are 20 a partition (GATHER_S of
store.log.model_updates), while the events are fewer than 10,000 a second.
"""
_WITHIN_S = 0.02
"""Seconds that a message waits for others. Ingest has already batched the events."""
_REFOLD_S = 0.1
"""Seconds between two checks for new items whose factors are due."""
_MAINTAIN_S = 10.0
"""Seconds between two checks of all new items: how long the work that a dead worker left, or a
deleted user in a list, can stay.
"""
_REPORT_S = 10.0
"""Seconds between two progress lines in the log."""
_NICE = 10
"""Added to the process's nice value: the vectors are a cache that readers can do without, so ingest
and the API have priority.
"""
_LEFT = "Kafka or Redis did not answer; the next start reads uncommitted hints again"
"""What a worker that does not end in time leaves."""


class _App(faust.App):
    """An app that writes nothing to disk: it has no tables, and its folder may be read-only."""

    def _create_directories(self) -> None:
        pass


class _Worker(faust.Worker):
    """A worker that ends within STOP_S of a signal, also while Kafka does not answer.

    It has no state that could be lost.
    """

    def install_signal_handlers(self) -> None:
        super().install_signal_handlers()
        stop.watch(_LEFT)


def create_app(settings: Settings) -> faust.App:
    """The app, which is not connected yet.

    `faust.Worker(app)` or `faust -A streams.live.faust_app worker` runs it.
    """
    app = _App(
        settings.live_group,
        broker=";".join(
            f"kafka://{address.strip()}" for address in settings.kafka_bootstrap_servers.split(",")
        ),
        broker_credentials=credentials(settings),
        # Without this, environment variables of Faust, such as TOPIC_PARTITIONS, would overrule us.
        env={},
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        topic_partitions=settings.topic_partitions,
        topic_replication_factor=settings.topic_replication,
        table_standby_replicas=0,  # there are no tables
        # A new group starts with the users who were active within the retention of the topic.
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=log.METADATA_MS,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 5,
        broker_request_timeout=max(90.0, 3 * settings.session_timeout_s),
        worker_redirect_stdouts=False,
    )
    live = LiveWorker(settings)
    noise = ClientNoise()
    for handler in logging.getLogger().handlers:
        handler.addFilter(noise)
    hints = app.topic(
        settings.model_updates_topic,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
    )

    @app.agent(hints, name="hints")
    async def fold_in(stream: Any) -> None:
        async for events in stream.take_events(_MESSAGES, within=_WITHIN_S):
            await live.process([event.message for event in events])
            await live.rest()

    @app.timer(settings.refresh_s, name="follow")  # type: ignore[untyped-decorator]
    async def follow() -> None:
        noise.check()
        if await live.follow() and app.is_leader():
            await live.maintain_new_items()

    @app.timer(READERS_S, on_leader=True, name="readers")  # type: ignore[untyped-decorator]
    async def readers() -> None:
        await live.fold_readers()

    @app.timer(_REFOLD_S, name="refold")  # type: ignore[untyped-decorator]
    async def refold() -> None:
        await live.refold_new_items()

    @app.timer(_MAINTAIN_S, on_leader=True, name="maintain")  # type: ignore[untyped-decorator]
    async def maintain() -> None:
        await live.maintain_new_items()

    @app.timer(_REPORT_S, name="report")  # type: ignore[untyped-decorator]
    async def report() -> None:
        live.report()
        for partition, offset in live.next_offsets.items():
            end = known_end(app.consumer, TP(settings.model_updates_topic, partition))
            if end is not None:
                metrics.live_lag_messages.labels(partition).set(max(0, end - offset))

    schedules.register(app, settings)
    return app


def known_end(consumer: Any, partition: TP) -> int | None:
    """The end of a partition as of the latest fetch; None before it, and while the partition is not
    assigned.
    """
    # the client asserts that it is assigned, and a rebalance may take it away at any time
    with contextlib.suppress(AssertionError):
        end: int | None = consumer.highwater(partition)
        return end
    return None


def run(settings: Settings) -> None:
    """Fold in until SIGTERM or SIGINT.

    Raises LogUnavailable, StoreUnavailable, StoreMisconfigured, ConfigurationError.
    """
    stopped = threading.Event()
    stop.on_signal(stopped.set, _LEFT)  # until Faust sets its own handlers
    cli.serve_metrics(settings)
    start.announce(settings, "live", settings.live_group)
    check = TopicCheck(settings, permissions.of_live)

    def prepare() -> None:
        with Shards(settings) as shards:
            for client in shards:
                connection.check_server(client)
            shard_numbers.check(shards.first)
        check.prepare(refuse=False)

    if not start.until_ready(settings, stopped, prepare):
        return
    for name in (*LIBRARIES, __name__):  # the library logs the start of _App by this module's name
        logging.getLogger(name).setLevel(logging.WARNING)
    if hasattr(os, "nice"):
        os.nice(_NICE)
    threadpool_limits(1)  # one core for each worker: the matrices are too small for several threads
    worker = _Worker(
        create_app(settings), quiet=True, override_logging=False, redirect_stdouts=False
    )
    worker.spinner = None  # the log reports progress
    worker.execute_from_commandline()
