"""The metrics of all workers in one answer, whichever of them is asked.

Each worker writes its own metrics to who connects to its socket on loopback, which the supervisor
has bound before it forks. The worker that answers /metrics reads those of the others, and adds the
label `worker` to every series: a counter that begins again with a new worker is then seen as such.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import closing

import structlog
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

_log = structlog.get_logger(__name__)
_HOST = "127.0.0.1"
READ_S = 1.0
"""Seconds to wait for the metrics of a worker; one that is being replaced is left out."""


class WorkerMetrics:
    """The metrics of `count` workers. Made before they are forked."""

    def __init__(self, count: int) -> None:
        self._sockets = [socket.create_server((_HOST, 0)) for _ in range(count)]
        self._worker = 0
        self._render: Callable[[], bytes]

    def serve(self, worker: int, render: Callable[[], bytes]) -> None:
        """In the worker of this number: write what `render` returns to who connects."""
        self._worker, self._render = worker, render
        threading.Thread(target=self._answer, name="worker-metrics", daemon=True).start()

    def render(self) -> bytes:
        """The metrics of all workers, in Prometheus' text format. Blocks as `collect` does."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Merged(self._texts()))
        return generate_latest(registry)

    def collect(self) -> Iterable[Metric]:
        """The metrics of all workers. Blocks for READ_S at most a worker."""
        return _Merged(self._texts()).collect()

    def _texts(self) -> dict[int, bytes]:
        texts = {self._worker: self._render()}
        for worker, listener in enumerate(self._sockets):
            if worker == self._worker:
                continue
            try:
                texts[worker] = _read(listener.getsockname()[1])
            except OSError as error:
                _log.warning("worker_metrics_missing", worker=worker, error=str(error))
        return texts

    def _answer(self) -> None:
        while True:
            connection, _ = self._sockets[self._worker].accept()
            with closing(connection):
                try:
                    connection.settimeout(READ_S)
                    connection.sendall(self._render())
                except OSError as error:  # it no longer waits
                    _log.debug("worker_metrics_not_read", error=str(error))


class _Merged:
    """Collects the families of all texts, each sample with its worker."""

    def __init__(self, texts: dict[int, bytes]) -> None:
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for worker, text in sorted(self._texts.items()):
            for family in text_string_to_metric_families(text.decode()):
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                merged.samples += [
                    sample._replace(labels={**sample.labels, "worker": str(worker)})
                    for sample in family.samples
                ]
        return families.values()


def _read(port: int) -> bytes:
    with socket.create_connection((_HOST, port), READ_S) as connection:
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)
