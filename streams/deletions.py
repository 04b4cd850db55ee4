"""Users who were deleted, from their own topic into Redis, before any of their interactions is read.

The topic `users` is compacted: once a deleted user comes back, their deletion is gone from it. Ingest therefore writes each deletion to a
topic of its own, and whoever starts from an older state of Redis (or from none) learns of all deletions first.
"""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaError, TopicPartition

from core.errors import LogUnavailable
from core.settings import Settings
from store import apply, experiments, keys, log
from store.connection import Client, named_errors


def recover(settings: Settings, client: Client) -> int:
    """Bring the deletions topic into Redis, as far as it is not there; answers how many were new.

    Raises LogUnavailable, StoreUnavailable.
    """
    known = apply.deletions(client).times
    new = {user_id: time for user_id, time in _read(settings).items() if time > known.get(user_id, -1.0)}
    if new:
        sets = experiments.sets_of_users(client)
        with named_errors("writing deleted users"):
            pipe = client.pipeline(transaction=True)
            for user_id, time in new.items():
                pipe.hset(keys.USERS_DELETED, user_id, repr(time))
                pipe.delete(*keys.all_of_user(user_id))
                for key in sets:
                    pipe.zrem(key, user_id)
            pipe.incr(keys.USERS_DELETED_VERSION)
            pipe.execute()
    return len(new)


def _read(settings: Settings) -> dict[str, float]:
    """User id -> broker time of the deletion (seconds), from the topic's beginning to its end."""
    topic = settings.deletions_topic
    config = log.consumer_config(settings, settings.ingest_group + "-deletions")
    consumer = Consumer(config | {"enable.partition.eof": True, "auto.offset.reset": "earliest"})
    try:
        partitions = list(consumer.list_topics(topic, timeout=settings.kafka_timeout_s).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        times: dict[str, float] = {}
        unread = len(partitions)
        while unread:
            message = consumer.poll(settings.kafka_timeout_s)
            if message is None:
                raise LogUnavailable(f"Kafka at {settings.kafka_bootstrap_servers} did not answer while reading {topic}; is the broker up?")
            error = message.error()
            if error is None:
                times[(message.key() or b"").decode()] = float((message.value() or b"").decode())
            elif error.code() == KafkaError._PARTITION_EOF:
                unread -= 1
            elif error.code() != KafkaError._TRANSPORT:  # one lost connection: the client tries again
                raise LogUnavailable(f"reading {topic}: {error.str()}")
        return times
    finally:
        consumer.close()
