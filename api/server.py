"""The process around the app: socket, event loop, HTTP parser."""

from __future__ import annotations

import gc
import socket
import sys

import structlog
import threadpoolctl
import uvicorn

from api.app import create_app
from core.errors import ConfigurationError
from core.settings import Settings

_log = structlog.get_logger(__name__)
BACKLOG = 2048
KEEP_ALIVE_S = 75
"""Longer than the usual minute after which proxies and client pools drop an idle connection: they close it, not we under their feet."""
SWITCH_S = 0.0001
"""Seconds after which the thread that keeps the live view fresh hands the interpreter to the event loop; by default 5 ms, for which reads
would wait."""
GRACEFUL_S = 10
"""Seconds that requests under way get when the process is told to stop."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigurationError when the address cannot be bound."""
    sys.setswitchinterval(SWITCH_S)
    app = create_app(settings)
    # After the libraries are loaded, for only these obey. One answer is too little work to share: threads of BLAS wait for each other, and
    # while a bundle is loaded they take the cores from the event loop.
    threadpoolctl.threadpool_limits(1, "blas")
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_S,
    )
    listener = bind(settings)
    host, port = listener.getsockname()[:2]
    _log.info("serving", url=f"http://{f'[{host}]' if ':' in host else host}:{port}", docs="/docs")
    with listener:
        _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Once the bundle and the catalogue are there, the garbage collector need not walk them again: some 7% of a read at 10,000 items."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()


def bind(settings: Settings) -> socket.socket:
    """A listening socket at API_HOST:API_PORT. Raises ConfigurationError."""
    host, port = settings.api_host, settings.api_port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port} (API_HOST, API_PORT): {error.strerror}; is another process there? API_PORT=0 takes a free one"
        ) from None
