"""One span for each traced message, from its decoding to the transaction that applied it.

Its parent is the span that published the message, by the header traceparent.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind

from store.state.apply.batches import OffsetRange
from streams.ingest.messages import Message
from streams.ingest.partition import Partition

MOST = 10_000
"""Open spans: those of a partition that failed never end, and are dropped when there are more."""


class Traces:
    """The open spans of this process. Thread-safe."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("eddyline.ingest")
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int, int], Span] = {}

    def begin(self, partition: Partition, messages: Sequence[Message]) -> None:
        """Begin a span for each message that has the header traceparent and is not applied yet."""
        for message in messages:
            if message.offset() < partition.start:
                continue
            carrier = {name: value.decode("latin-1") for name, value in message.headers() or ()}
            if "traceparent" not in carrier:
                continue
            span = self._tracer.start_span(
                f"apply {partition.topic}",
                context=propagate.extract(carrier),
                kind=SpanKind.CONSUMER,
                attributes={
                    "messaging.system": "kafka",
                    "messaging.destination.name": partition.topic,
                    "messaging.destination.partition.id": str(partition.number),
                    "messaging.kafka.offset": message.offset(),
                },
            )
            with self._lock:
                if len(self._open) >= MOST:
                    self._open.clear()
                self._open[partition.topic, partition.number, message.offset()] = span

    def end(self, offsets: OffsetRange, events: int) -> None:
        """End the spans of an applied batch of `events`."""
        with self._lock:
            places = [
                place
                for place in self._open
                if place[:2] == (offsets.topic, offsets.partition) and place[2] < offsets.next
            ]
            spans = [self._open.pop(place) for place in places]
        for span in spans:
            span.set_attribute("messaging.batch.message_count", events)
            span.end()
