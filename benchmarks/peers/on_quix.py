"""The counts on Quix Streams: state in RocksDB, backed by a changelog topic.

As its documentation advises: raw bytes where the application decodes itself, state by message key,
changelog topics on, a checkpoint every 5 s (the default), and the processing guarantee of the
command line. It ends after the last event with a checkpoint.
"""

from __future__ import annotations

from quixstreams import Application
from quixstreams import State as Store

from benchmarks.peers.counts import State, decode_event, decode_state, encode_state
from benchmarks.peers.meter import IDLE_S, Meter, options


def main() -> None:
    arguments = options(__doc__)
    meter = Meter(arguments)
    samples = meter.samples

    def processed(_topic: str, _partition: int, _offset: int) -> None:
        meter.count()
        if meter.over:
            application.stop()

    application = Application(
        broker_address=arguments.brokers,
        consumer_group=f"counts-{arguments.state.name}",
        auto_offset_reset="earliest",
        processing_guarantee=arguments.guarantee,
        state_dir=arguments.state,
        loglevel="WARNING",
        on_message_processed=processed,
    )

    def count(value: bytes, store: Store) -> None:
        event = decode_event(value)
        stored = store.get_bytes("state")
        state = State() if stored is None else decode_state(stored)
        state.add(event)
        store.set_bytes("state", encode_state(state))
        if event.user_id in samples:
            samples[event.user_id] = state

    topic = application.topic(arguments.topic, key_deserializer="bytes", value_deserializer="bytes")
    application.dataframe(topic).update(count, stateful=True)
    application.run(timeout=IDLE_S if arguments.resume else 0)
    meter.end()


if __name__ == "__main__":
    main()
