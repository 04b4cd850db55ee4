"""Checks servers, topics and settings, and completes Redis, before ingest applies anything."""

from __future__ import annotations

import structlog

from core.settings import Settings
from store.log.topics.check import TopicCheck
from store.state import connection, keys, running, wipe
from store.state.apply import counted_settings
from store.state.entities import experiments, popularity
from store.state.running import Running
from store.state.shards import Shards
from streams.ingest.deletions import recovery
from streams.ingest.deletions.out_of_reach import drop_out_of_reach

_log = structlog.get_logger(__name__)


def prepare(settings: Settings, shards: Shards, topics: TopicCheck, process: Running) -> None:
    """Check what must hold before the first event, and recover the deletions; may be repeated.

    Raises LogUnavailable, StoreUnavailable: retry. Any other error needs an operator.
    """
    for client in shards:
        connection.check_server(client)
    note_settings(settings, shards)
    topics.prepare()
    process.renew()
    process.check_rebuild()
    wipe.check(shards.first)
    recovery.recover(settings, shards)
    drop_out_of_reach(settings, shards)
    _note_unlabelled(settings, shards)


def _note_unlabelled(settings: Settings, shards: Shards) -> None:
    """Log whether events without a use case were counted before there was a default use case."""
    default = settings.use_cases.default
    items = (
        sum(popularity.count(client, keys.POPULAR_UNLABELLED) for client in shards)
        if default
        else 0
    )
    if items:
        _log.warning(
            "unlabelled_counts",
            use_case=default,
            items=items,
            command="python -m streams rebuild --wipe",
        )


def note_settings(settings: Settings, shards: Shards) -> None:
    """Write the settings and experiments by which ingest counts to a Redis that lacks them.

    Raises ConfigurationError: Redis was made with other settings.
    """
    counted_settings.check(shards.first, settings)
    running.note_accepted(shards.first, settings.use_cases)
    experiments.save_definitions(shards.first, settings.experiments)
