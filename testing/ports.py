"""Finds free ports on loopback."""

from __future__ import annotations

import random
import socket
from collections import deque

from core.errors import ProcessFailed

HOST = "127.0.0.1"

PORTS = range(15_000, 32_000)
"""The range of free ports: below the ephemeral range of every system, so that no client socket
takes the port of a killed server.
"""
_picked: deque[int] = deque(maxlen=1000)
"""Ports that this process has picked: whoever got one may not listen on it yet."""


def free_port(besides: int | None = None) -> int:
    """A port on loopback that nothing listens on now, and that was not picked before.

    `besides`: a port that is about to be used, too. Raises ProcessFailed.
    """
    for port in random.sample(PORTS, 200):
        if port != besides and port not in _picked and port_is_free(port):
            _picked.append(port)
            return port
    raise ProcessFailed(f"no free port on {HOST} within {PORTS.start}-{PORTS.stop - 1}")


def port_is_free(port: int) -> bool:
    """True when nothing listens on `port` of loopback."""
    with socket.socket() as probe:
        # As the servers do: connections of a former server in TIME_WAIT do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
