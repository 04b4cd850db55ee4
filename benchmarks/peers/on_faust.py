"""The counts on Faust: a table in RocksDB (rocksdict), backed by a changelog topic.

As its documentation advises for production: the RocksDB store, raw bytes where the application
decodes itself, as many partitions of the table as of the topic, uvloop. It ends after the last
event, when the changelog is written and the offsets are committed.
"""

from __future__ import annotations

import os
import sys

import faust
from mode import loop

from benchmarks.peers.counts import State, decode_event, decode_state, encode_state
from benchmarks.peers.meter import IDLE_S, Meter, options


def main() -> None:
    arguments = options(__doc__)
    meter = Meter(arguments)
    samples = meter.samples
    loop.use("uvloop")
    app = faust.App(
        f"counts-{arguments.state.name}",
        broker=f"kafka://{arguments.brokers}",
        store="rocksdb://",
        datadir=str(arguments.state),
        topic_partitions=arguments.partitions,
        topic_replication_factor=1,
        web_enabled=False,
        processing_guarantee=arguments.guarantee,
    )
    topic = app.topic(arguments.topic, key_serializer="raw", value_serializer="raw")
    table = app.Table(
        "users",
        partitions=arguments.partitions,
        key_type=bytes,
        value_type=bytes,
        options={"driver": "rocksdict"},
    )

    @app.agent(topic)
    async def count(stream: faust.StreamT[bytes]) -> None:
        async for key, value in stream.items():
            event = decode_event(value)
            stored = table.get(key)
            state = State() if stored is None else decode_state(stored)
            state.add(event)
            table[key] = encode_state(state)
            if event.user_id in samples:
                samples[event.user_id] = state
            meter.count()
            if meter.over:
                await finish()

    async def finish() -> None:
        await app.producer.flush()
        await app.consumer.commit()
        meter.end()
        os._exit(0)  # a stop would wait for the agent that asks for it

    async def watch() -> None:
        if meter.idle_s > IDLE_S:
            await finish()

    if arguments.resume:
        app.timer(1.0)(watch)
    sys.argv[1:] = ["worker", "--loglevel=warn"]
    app.main()


if __name__ == "__main__":
    main()
