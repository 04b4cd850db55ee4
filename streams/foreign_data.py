"""Refuses a Redis and topics that hold anybody else's data: `streams topics --own PREFIX`."""

from __future__ import annotations

from core.errors import ConfigurationError
from core.settings import Settings
from store.log.reader import LogReader
from store.log.topics.needs import specs
from store.state import connection, keys
from store.state.apply.foreign_data import foreign_data
from store.state.shards import Shards


def refuse_foreign_data(settings: Settings, own: str) -> None:
    """Raise ConfigurationError where Redis or the topics of `settings` hold foreign data.

    `own`: the beginning of the names of one's own topics. Records are one's own where Redis holds
    state that was made from their topics. Raises StoreUnavailable, LogUnavailable.
    """
    with Shards(settings) as shards:
        data = foreign_data(shards, own)
        with connection.named_errors("looking for the state of the topics"):
            names = keys.of(shards.first)
            is_known = shards.first.exists(names.layout(settings.interactions_topic))
    if data:
        raise ConfigurationError(
            f"the Redis of REDIS_URL holds {data}, not only the state of topics {own}*; "
            "name an empty Redis, or an empty database of it"
        )
    if is_known:
        return
    with LogReader(settings, "foreign-data") as reader:
        existing = reader.topics()
        for spec in specs(settings):
            if spec.name in existing and _holds_records(reader, spec.name):
                raise ConfigurationError(
                    f"the topic {spec.name} of Kafka at {settings.kafka_bootstrap_servers} holds "
                    "records that are not in this Redis; delete the topic, or name the Redis "
                    "that was filled from it"
                )


def _holds_records(reader: LogReader, topic: str) -> bool:
    return any(reader.first(partition) for partition in reader.partitions(topic))
