"""What readers notice of a swap: `python -m benchmarks.swap` writes the rows `swap` and `swap-seconds`.

The API process, catalogue, users and connections of `benchmarks.reads`, and a second bundle of the same size. Quiet runs and runs during
which one bundle after the other is promoted, without a pause between the swaps, take turns.

swap          p99 of reads while swaps never end, beside the p99 of the quiet runs; the target is a ratio of 2 at most
swap-seconds  from a promotion to the answer by the new bundle, REFRESH_S included; beside it, loading such a bundle in a process of its own
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
from pydantic import SecretStr
from redis import Redis

from benchmarks.quality import ROOT
from benchmarks.reads import EVENTS, catalogue, check, drive, fill, publish, serving_port
from benchmarks.results import record
from core.settings import Settings
from demo.processes import module, settings_environment
from demo.servers import RedisServer, TansuBroker
from models.registry import Registry

COMMAND = "python -m benchmarks.swap"
REFRESH_S = 0.1
LOAD = """
import sys, time
from pathlib import Path
from models.registry import Registry
Registry(Path(sys.argv[1])).load()  # imports, once
began = time.perf_counter()
Registry(Path(sys.argv[1])).load()
print(time.perf_counter() - began)
"""


class Swaps:
    """Promotes one of two versions after the other, as fast as the API follows, until the block is left."""

    def __init__(self, registry: Registry, versions: list[str], port: int) -> None:
        self._registry, self._versions, self._port = registry, versions, port
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seconds: list[float] = []

    def _run(self) -> None:
        while not self._ended.is_set():
            version = self._versions[len(self.seconds) % 2]
            began = time.perf_counter()
            self._registry.promote(version)
            while self._serving() != version:
                time.sleep(0.02)
            self.seconds.append(time.perf_counter() - began)

    def _serving(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health/ready", timeout=30) as answer:
            return str(json.load(answer)["model_version"])

    def __enter__(self) -> Swaps:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind, in turn; the median counts")
    arguments = parser.parse_args()
    rng = np.random.default_rng(42)
    with (
        tempfile.TemporaryDirectory(prefix="eddyline-swap-") as folder,
        RedisServer(Path(folder) / "redis") as server,
        TansuBroker(Path(folder) / "broker") as broker,
    ):
        settings = Settings(
            redis_url=SecretStr(server.url),
            models_path=Path(folder) / "models",
            api_port=0,
            kafka_bootstrap_servers=broker.address,
            warm_user_threshold=EVENTS + 1,
            refresh_s=REFRESH_S,
        )
        items = catalogue(rng)
        versions = [publish(settings, items, rng) for _ in range(2)]
        registry = Registry(settings.models_path)
        with Redis.from_url(server.url) as client:
            fill(client, items, arguments.users, rng)
        child = module("api", directory=Path(folder) / "api", environment=settings_environment(settings)).start()
        try:
            port = serving_port(child)
            paths = [f"/api/recommendations/startups/for-developer/{user}?limit=10" for user in rng.permutation(arguments.users)]
            check(port, paths[0])
            drive(port, paths, arguments.connections, 1.0)
            quiet, swapping, seconds = [], [], []
            for _ in range(arguments.rounds):
                quiet.append(drive(port, paths, arguments.connections, arguments.seconds))
                with Swaps(registry, versions, port) as swaps:
                    swapping.append(drive(port, paths, arguments.connections, arguments.seconds))
                seconds += swaps.seconds
        finally:
            child.stop()
        command = [sys.executable, "-c", LOAD, str(settings.models_path)]
        alone = float(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)
    p99_quiet, p99_swapping = (statistics.median(run.p99_ms for run in runs) for runs in (quiet, swapping))
    what = f"p99 of quiet reads, {arguments.connections} connections"
    row = record("swap", p99_swapping, "ms", what, p99_quiet, COMMAND)
    record("swap-seconds", statistics.median(seconds), "s", "loading the bundle in a process of its own", alone, COMMAND)
    for name, runs in (("quiet", quiet), ("swapping", swapping)):
        for run in runs:
            print(f"{name:>8}: {run.per_second:8.0f}/s   p50 {run.p50_ms:6.2f} ms   p99 {run.p99_ms:6.2f} ms")
    print(f"{len(seconds)} swaps of {statistics.median(seconds):.2f} s each; p99 {row.ratio:.2f} times the quiet one (target 2)")


if __name__ == "__main__":
    main()
