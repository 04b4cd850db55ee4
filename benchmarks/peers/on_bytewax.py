"""The counts on Bytewax: state in memory, snapshots in SQLite together with Kafka's offsets.

As its documentation advises: one process with one worker (more workers share the interpreter),
batches of 5,000 from the source, `flat_map_batch` and `stateful_batch`, a recovery partition a
worker, the default of 10 s between snapshots. It reads to the end of the topic, where it writes a
last snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from benchmarks.peers.counts import Event, State, decode_event, decode_state, encode_state
from benchmarks.peers.meter import Meter, options

BATCH = 5_000
SNAPSHOT_S = 10.0


class User(StatefulBatchLogic[Event, None, bytes]):
    """The state of one user."""

    def __init__(self, meter: Meter, snapshot: bytes | None) -> None:
        self._meter = meter
        self._state = State() if snapshot is None else decode_state(snapshot)
        self._sampled = False

    def on_batch(self, values: list[Event]) -> tuple[Iterable[None], bool]:
        for event in values:
            self._state.add(event)
        if not self._sampled:
            self._sampled = True
            if values[0].user_id in self._meter.samples:
                self._meter.samples[values[0].user_id] = self._state
        return (), StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes:
        return encode_state(self._state)


class _Nothing(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        pass


class Discard(DynamicSink[Any]):
    """A dataflow needs an output; the counts are the state."""

    def build(self, *_: object) -> _Nothing:
        return _Nothing()


def main() -> None:
    arguments = options(__doc__)
    meter = Meter(arguments)

    def decode(messages: list[KafkaSourceMessage]) -> Iterable[tuple[str, Event]]:
        meter.begin()
        events = [decode_event(message.value) for message in messages]
        meter.count(len(events))
        return [(event.user_id, event) for event in events]

    flow = Dataflow("counts")
    source = KafkaSource([arguments.brokers], [arguments.topic], tail=False, batch_size=BATCH)
    messages = op.input("events", flow, source)
    users = op.flat_map_batch("decode", messages, decode)
    counted = op.stateful_batch("count", users, lambda snapshot: User(meter, snapshot))
    op.output("discard", counted, Discard())
    if not arguments.resume:
        arguments.state.mkdir(parents=True)
        init_db_dir(arguments.state, 1)
    cli_main(
        flow,
        epoch_interval=timedelta(seconds=SNAPSHOT_S),
        recovery_config=RecoveryConfig(arguments.state),
    )
    meter.end()


if __name__ == "__main__":
    main()
