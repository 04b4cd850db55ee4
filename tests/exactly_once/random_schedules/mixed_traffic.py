"""Produces messages of every kind: events, transactions of events, changes of users and items, bad
messages.
"""

from __future__ import annotations

import random
import threading
import time
import uuid

from confluent_kafka import KafkaException
from confluent_kafka import Producer as KafkaProducer

from core.codec import encode_json
from core.settings import Settings
from core.types import Interaction, Item, User
from store.log import client as log
from store.log.producer import Producer
from tests.exactly_once.traffic import Traffic

PAUSE_S = 0.04
"""Seconds between the starts of two bursts."""
_LATE_S = 0.2
"""Seconds of bursts that are made up for after a delay."""
USERS, ITEMS = 60, 40
_NOT_ENTRIES = (
    b"{",
    b"[]",
    b'{"user_id":"another","item_id":"another","item_type":"startup"}',
    b"\xff",
)


class MixedTraffic:
    """Produces in its own thread between `start` and `pause`.

    The messages follow from `seed`, their times do not. `transactions`: some events go through a
    transactional producer, and some of its transactions are aborted. `bad_entries`: some users and
    items have a good key and a bad value; compaction would replace a good record by such a one.
    """

    def __init__(
        self,
        settings: Settings,
        seed: int,
        *,
        transactions: bool,
        bad_entries: bool = True,
        events_per_s: int = 300,
    ) -> None:
        """`events_per_s`: on a machine that can; on a busy one there are fewer."""
        self._burst = round(events_per_s * PAUSE_S)
        self._settings, self._random = settings, random.Random(seed)
        self._transactions, self._bad_entries = transactions, bad_entries
        self._events = Traffic(settings, seed + 1)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._transactional_id = f"mixed-{uuid.uuid4().hex[:8]}"
        self._error: Exception | None = None
        self.sent, self.seconds = 0, 0.0

    def start(self) -> None:
        """Start to produce, with new producers, which have no metadata of former topics."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="mixed-traffic")
        self._thread.start()

    def stop(self) -> None:
        """Stop when every message is delivered."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def pause(self) -> None:
        """`stop`, and raise the error that ended the thread, if any."""
        self.stop()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with Producer(self._settings) as producer:
                transactional: KafkaProducer | None = None
                begin = due = time.monotonic()
                before = self.seconds
                while not self._stop.wait(max(0.0, due - time.monotonic())):
                    due = max(due, time.monotonic() - _LATE_S) + PAUSE_S
                    self._events.burst(producer, self._burst)
                    self.sent += self._burst
                    self.seconds = before + time.monotonic() - begin
                    if self._random.random() < 0.3:
                        self._change(producer)
                    if self._settings.redis_shards > 1 and self._random.random() < 0.1:
                        self._elsewhere(producer)
                    if self._transactions and self._random.random() < 0.1:
                        transactional = self._transaction(transactional)
        except Exception as error:  # noqa: BLE001  raised again by `pause`
            self._error = error

    def _change(self, producer: Producer) -> None:
        """Produce one change of the catalogue or of the users."""
        rng, settings = self._random, self._settings
        user_id, item_id = f"user-{rng.randrange(USERS)}", f"item:{rng.randrange(ITEMS)}"
        chance = rng.random()
        if chance < 0.25:
            producer.user(user_id, self._user(user_id))
        elif chance < 0.4:
            producer.user(user_id, None)
        elif chance < 0.5:  # delete a user who is active at once, and may get a profile again
            producer.user(user_id, None)
            for _ in range(rng.randrange(4)):
                producer.interaction(self._event(user_id))
            if rng.random() < 0.5:
                producer.user(user_id, self._user(user_id))
        elif chance < 0.75:
            producer.item(item_id, self._item(item_id))
        elif chance < 0.85:
            producer.item(item_id, None)
        elif chance < 0.9:
            producer.item(item_id, None)
            producer.item(item_id, self._item(item_id))
        else:
            key = rng.choice(
                (user_id.encode() if self._bad_entries else b" ", b"", b"\xff", b"a\x00b")
            )
            producer.raw(
                rng.choice((settings.users_topic, settings.items_topic)),
                key,
                rng.choice((*_NOT_ENTRIES, None)),
            )
        self.sent += 1

    def _elsewhere(self, producer: Producer) -> None:
        """Produce an event or a profile into any partition, as another partitioner does: often it
        is one of another shard.
        """
        rng, settings = self._random, self._settings
        user_id, partition = (
            f"user-{rng.randrange(USERS)}",
            rng.randrange(settings.topic_partitions),
        )
        topic, value = (
            (settings.interactions_topic, encode_json(self._event(user_id)))
            if rng.random() < 0.7
            else (settings.users_topic, encode_json(self._user(user_id)))
        )
        producer.raw(topic, user_id.encode(), value, partition=partition)
        self.sent += 1

    def _transaction(self, producer: KafkaProducer | None) -> KafkaProducer | None:
        """Produce some events in a transaction, committed or aborted.

        Returns the producer for the next transaction; None after a failure.
        """
        rng = self._random
        events = [self._event(f"user-{rng.randrange(USERS)}") for _ in range(rng.randrange(1, 8))]
        try:
            if producer is None:
                producer = KafkaProducer(
                    log.client_config(self._settings)
                    | {
                        "transactional.id": self._transactional_id,
                        "partitioner": "murmur2_random",
                        "transaction.timeout.ms": 10_000,
                    }
                )
                producer.init_transactions(20)
            producer.begin_transaction()
            for event in events:
                producer.produce(
                    self._settings.interactions_topic, encode_json(event), event.user_id.encode()
                )
            if rng.random() < 0.4:
                producer.flush(10)  # the aborted records are in the log
                producer.abort_transaction(20)
            else:
                producer.commit_transaction(20)
        except KafkaException:  # no broker: the next producer with this id ends the transaction
            return None
        self.sent += len(events)
        return producer

    def _event(self, user_id: str) -> Interaction:
        return self._events.event(user_id)

    def _user(self, user_id: str) -> User:
        return User(
            user_id=user_id,
            roles=["developer"],
            interests=[f"interest-{self._random.randrange(1000)}"],
        )

    def _item(self, item_id: str) -> Item:
        rng = self._random
        return Item(
            item_id=item_id,
            item_type="startup",
            title=f"title {rng.randrange(1000)}",
            available=rng.random() < 0.9,
        )
