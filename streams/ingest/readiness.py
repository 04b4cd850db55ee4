"""Checks servers, topics and settings, and completes Redis, before ingest applies anything."""

from __future__ import annotations

import structlog

from core.settings import Settings
from store.log.topics.check import TopicCheck
from store.state import connection, keys, running, wipe
from store.state.apply import deletions, positions
from store.state.connection import Client
from store.state.entities import experiments, popularity
from store.state.running import Running
from streams.ingest.deletions import recovery
from streams.ingest.deletions.out_of_reach import drop_out_of_reach

_log = structlog.get_logger(__name__)


def prepare(settings: Settings, client: Client, topics: TopicCheck, process: Running) -> None:
    """Check what must hold before the first event, and recover the deletions; may be repeated.

    Raises LogUnavailable, StoreUnavailable: retry. Any other error needs an operator.
    """
    connection.check_server(client)
    note_settings(settings, client)
    topics.prepare()
    process.renew()
    process.check_rebuild()
    wipe.check(client)
    recovery.recover(settings, client)
    if deletions.count(client, "user") or deletions.count(client, "item"):
        drop_out_of_reach(settings, client)
    _note_unlabelled(settings, client)


def _note_unlabelled(settings: Settings, client: Client) -> None:
    """Log whether events without a use case were counted before there was a default use case."""
    default = settings.use_cases.default
    items = popularity.count(client, keys.POPULAR_UNLABELLED) if default else 0
    if items:
        _log.warning(
            "unlabelled_counts",
            use_case=default,
            items=items,
            command="python -m streams rebuild --wipe",
        )


def note_settings(settings: Settings, client: Client) -> None:
    """Write the settings and experiments by which ingest counts to a Redis that lacks them.

    Raises ConfigurationError: Redis was made with other settings.
    """
    positions.check_settings(client, settings)
    running.note_accepted(client, settings.use_cases)
    experiments.save_definitions(client, settings.experiments)
