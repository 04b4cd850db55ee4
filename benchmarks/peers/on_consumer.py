"""The reference: a consumer that polls and decodes as ingest does, and counts nothing."""

from __future__ import annotations

from confluent_kafka import Consumer, TopicPartition

from benchmarks.peers.meter import Meter, options
from core import codec
from core.settings import Settings
from store.log import client as log


def main() -> None:
    arguments = options(__doc__)
    meter = Meter(arguments)
    settings = Settings(_env_file=None, kafka_bootstrap_servers=arguments.brokers)
    consumer = Consumer(log.consumer_config(settings, "reference"))
    consumer.assign(
        [TopicPartition(arguments.topic, number, 0) for number in range(arguments.partitions)]
    )
    while not meter.over:
        for message in consumer.consume(settings.poll_events, 0.2):
            value, stamp = message.value(), message.timestamp()[1]
            codec.decode_interaction(value, stamp / 1000, settings.use_cases)
            meter.count()
    meter.end()
    consumer.close()


if __name__ == "__main__":
    main()
