"""Traces arrive at a collector that speaks OTLP over HTTP."""

from __future__ import annotations

import gzip
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from core.settings import Settings
from tests.api.world import KEY, event, port_of, publish
from tests.conftest import Spawn
from tests.support import eventually


class Collector(ThreadingHTTPServer):
    """Keeps the spans that are posted to /v1/traces."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.spans: list[tuple[str, Span]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def named(self, service: str, name: str) -> list[Span]:
        return [span for source, span in self.spans if (source, span.name) == (service, name)]


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(
                attribute.value.string_value
                for attribute in resource.resource.attributes
                if attribute.key == "service.name"
            )
            for scope in resource.scope_spans:
                self.server.spans += [(service, span) for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - of the library
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_trace_leads_from_the_post_to_the_applied_batch_and_one_from_each_read(
    settings: Settings, redis: object, broker: object, spawn: Spawn, collector: Collector
) -> None:
    publish(settings)
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "API_PORT": "0",
        "API_KEYS": KEY,
    }
    api, _ = spawn("api", **variables), spawn("streams", "ingest", **variables)
    port = eventually(lambda: api.alive and port_of(api.log.read_text()), "it serves", timeout=60)
    client_trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"x-api-key": KEY, "traceparent": f"00-{client_trace}-b7ad6b7169203331-01"}

    def call(path: str, body: bytes | None = None) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status

    eventually(lambda: call("/health/ready") == 200, "it is ready")
    eventually(lambda: _accepted(call), "the event is accepted")
    assert call("/api/users/42") == 200
    name = f"apply {settings.interactions_topic}"
    applied = eventually(
        lambda: collector.named("eddyline-ingest", name), "the batch is traced", timeout=60
    )[0]
    post = next(
        span
        for span in eventually(
            lambda: collector.named("eddyline-api", "POST /api/events"), "the POST is traced"
        )
        if span.span_id == applied.parent_span_id
    )
    assert applied.trace_id.hex() == post.trace_id.hex() == client_trace
    assert post.start_time_unix_nano <= applied.start_time_unix_nano <= applied.end_time_unix_nano
    eventually(
        lambda: collector.named("eddyline-api", "GET /api/users/{user_id}"), "the read is traced"
    )


def _accepted(call: Callable[[str, bytes], int]) -> bool:
    """Whether the POST succeeded: a topic that was just made may refuse the first one."""
    try:
        return call("/api/events", json.dumps(event()).encode()) == 202
    except urllib.error.HTTPError:
        return False
