"""The lag that a live worker reports."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer
from faust.types import TP

from streams.live.command import known_end


def test_a_partition_that_a_rebalance_took_away_has_no_known_end() -> None:
    """The client raises there, which would end the worker."""

    async def end() -> int | None:
        consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:9")
        try:
            return known_end(consumer, TP("model-updates", 0))
        finally:
            await consumer.stop()

    assert asyncio.run(end()) is None
