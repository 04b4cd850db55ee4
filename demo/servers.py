"""Runs a broker and a Redis for a trial of one's own data: `python -m demo servers`."""

from __future__ import annotations

import shutil
import signal
import threading
from pathlib import Path
from urllib.parse import urlsplit

from core.errors import ConfigurationError
from core.settings import Settings
from testing.brokers import broker, broker_kinds
from testing.ports import HOST
from testing.redis import RedisServer

WATCH_S = 0.5
"""Seconds between two looks whether both servers still run."""
_LOCAL = {HOST, "localhost"}


def run(settings: Settings, folder: Path) -> None:
    """Run both at KAFKA_BOOTSTRAP_SERVERS and REDIS_URL, which must be of this host, until SIGINT
    or SIGTERM.

    The embedded broker forgets its log when it stops, so Redis starts empty with it; Apache Kafka
    (KAFKA_HOME) and its Redis go on. Raises ConfigurationError, ProcessFailed.
    """
    kafka_port = _port("KAFKA_BOOTSTRAP_SERVERS", f"//{settings.kafka_bootstrap_servers}")
    redis_port = _port("REDIS_URL", settings.redis_url.get_secret_value())
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    redis_folder = folder / "redis"
    if broker_kinds()[0] == "tansu":
        shutil.rmtree(redis_folder, ignore_errors=True)
    with (
        broker(folder / "broker", port=kafka_port) as log,
        RedisServer(redis_folder, port=redis_port) as redis,
    ):
        print(f"{log.name} on {log.address} and Redis on {redis.address} run; Ctrl-C ends them")
        while not stopped.wait(WATCH_S):
            log.child.check()
            redis.child.check()


def _port(name: str, address: str) -> int:
    """The port of a server of this host without a password. Raises ConfigurationError."""
    url = urlsplit(address)
    is_plain = url.scheme != "rediss" and "+" not in url.scheme  # no TLS, Sentinel or cluster
    if url.hostname not in _LOCAL or url.port is None or url.password or not is_plain:
        raise ConfigurationError(
            f"{name} names no plain server of this host, so there is nothing to start; set it to "
            f"{HOST}:PORT, or use the server that it names"
        )
    return url.port
