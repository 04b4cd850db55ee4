"""Runs the app: binds the socket, configures uvicorn, ends on SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
import sys

import structlog
import threadpoolctl
import uvicorn

from api.app import create_app
from api.schemas.document import DocumentedApp
from api.server.connections import Connections
from api.server.protocol import limited
from api.server.worker_metrics import WorkerMetrics
from api.server.workers import NOT_STARTED, Workers
from api.service import Service
from core.errors import ConfigurationError, ProcessFailed
from core.process import stop, tracing
from core.process.stop import SIGNALS
from core.settings import Settings
from store import start

_log = structlog.get_logger(__name__)
BACKLOG = 2048
OTHER_FILES = 128
"""File descriptors besides those of connections: Redis, Kafka, the bundle, logs, and refused
connections that are being closed.
"""
SWITCH_S = 0.0001
"""Seconds after which the thread of the live view yields the interpreter to the event loop.

Python's default is 5 ms, for which reads would wait.
"""
GRACEFUL_S = 10
"""Seconds that requests under way get when the process is told to stop."""
END_MARGIN_S = 15
"""Seconds after that for the threads and clients of a worker to end, before it is killed; with
GRACEFUL_S more than the time after which it ends itself.
"""
_LEFT = "Kafka or Redis did not answer; every write that was answered with success is in the log"
"""What a worker that does not end in time leaves."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigurationError when the address cannot be bound."""
    sys.setswitchinterval(SWITCH_S)
    app = create_app(settings)
    # After the libraries are loaded: only these are limited. One answer is too little work for
    # several threads: those of BLAS wait for each other, and while a bundle is loaded they take the
    # cores from the event loop.
    threadpoolctl.threadpool_limits(1, "blas")
    service: Service = app.state.service
    with bind(settings) as listener:
        start.announce(settings, "api")
        _log.info("serving", url=_url(listener), docs=f"{settings.api_root_path}/docs")
        supervisor = None
        if settings.api_workers > 1:
            workers = Workers(settings.api_workers, GRACEFUL_S + END_MARGIN_S)
            metrics = WorkerMetrics(settings.api_workers)
            number = workers.run()
            if number is None:
                return
            metrics.serve(number, service.metrics.render)
            service.render_metrics = metrics.render
            service.metric_families = metrics.collect
            supervisor = workers.supervisor
        _answer(app, listener, supervisor)


def _answer(app: DocumentedApp, listener: socket.socket, supervisor: int | None) -> None:
    """Answer at `listener` until a signal, or until the pipe `supervisor` ends.

    Raises ProcessFailed when the app could not start.
    """
    service: Service = app.state.service
    settings = service.settings
    connections = Connections(settings, service.metrics, open_files(settings.api_max_connections))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=limited(connections),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="warning",  # `process_started`, `serving` and `api_started` say the rest
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACEFUL_S,
    )
    # A signal before uvicorn handles it would be lost: it waits until then.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    # uvicorn shuts down on these signals and then raises them once more for the handlers below: its
    # end is a success (exit code 0).
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    server = _Server(config, connections, service, supervisor)
    tracing.start(settings, "eddyline-api")
    server.run(sockets=[listener])
    tracing.close()
    if not server.started:
        if supervisor is not None:
            sys.exit(NOT_STARTED)
        raise ProcessFailed("the API could not start; its log has the cause")


class _Server(uvicorn.Server):
    """uvicorn's server; it also checks the deadlines of connections, and freezes what is loaded.

    The garbage collector then does not walk the bundle and the catalogue again: about 7% of a read
    at 10,000 items.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        connections: Connections,
        service: Service,
        supervisor: int | None,
    ) -> None:
        super().__init__(config)
        self._connections, self._service, self._supervisor = connections, service, supervisor

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        stop.watch(_LEFT)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        await super().startup(sockets)
        if self._supervisor is not None:
            asyncio.get_running_loop().add_reader(self._supervisor, self._end_with_supervisor)
        self._deadlines = asyncio.create_task(self._connections.check_deadlines(), name="deadlines")
        gc.collect()
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for end in self._service.end_streams:
            await end()
        await super().shutdown(sockets)

    def _end_with_supervisor(self) -> None:
        assert self._supervisor is not None
        asyncio.get_running_loop().remove_reader(self._supervisor)
        _log.warning("supervisor_ended")
        stop.limit(_LEFT)
        self.should_exit = True


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{_address(host, port)}"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def open_files(connections: int) -> int:
    """Let this process open as many files as `connections` need.

    Returns the number of connections that it may open, fewer under a hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return connections
    allowed = max(1, soft - OTHER_FILES)
    _log.warning(
        "connection_limit_lowered",
        connections=allowed,
        API_MAX_CONNECTIONS=connections,
        open_files_hard_limit=hard,
    )
    return allowed


def bind(settings: Settings) -> socket.socket:
    """A listening socket at API_HOST:API_PORT; at `::` it accepts IPv4 too.

    Raises ConfigurationError.
    """
    host, port = settings.api_host.strip("[]"), settings.api_port
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {_address(host, port)} (API_HOST, API_PORT): {error.strerror}; is "
            f"another process there? API_PORT=0 takes a free one"
        ) from None
