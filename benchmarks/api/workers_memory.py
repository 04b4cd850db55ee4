"""Measures what one more process of the API takes of memory: `python -m benchmarks.workers_memory`.

One API after the other over the same bundle, of 200,000 items with 128 factors each, with 1, 2 and
4 processes at its port (API_WORKERS); once with the bundle's arrays mapped (MODELS_MAPPED, the
default), once with a copy in each process. The memory is the sum of PSS over the processes and
their supervisor, after reads through all of them. PSS counts a page that n processes share as 1/n
page for each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from pydantic import SecretStr

from benchmarks.api import serving
from benchmarks.measurements import record
from core.settings import Settings
from models import disk
from models.registry import Registry
from testing.process import Child, module, settings_environment
from testing.redis import RedisServer

COMMAND = "python -m benchmarks.workers_memory"
WORKERS = (1, 2, 4)
START_S = 180.0


def memory(child: Child) -> float:
    """MB of PSS of a process and of the processes that it started."""
    parent = psutil.Process(child.pid)
    processes = [parent, *parent.children(recursive=True)]
    return sum(process.memory_full_info().pss for process in processes) / 1e6


def ready(child: Child, workers: int) -> int:
    """Wait until all workers serve the bundle; returns their port. Raises RuntimeError."""
    deadline = time.monotonic() + START_S
    while child.log.read_text("utf-8").count("bundle_live") < workers:
        child.check()
        if time.monotonic() > deadline:
            raise RuntimeError(child.describe("did not load the bundle"))
        time.sleep(0.2)
    return serving.serving_port(child, START_S)


def measure(settings: Settings, folder: Path) -> float:
    """MB that an API with these settings takes after reads through all of its workers."""
    label = f"api-{settings.api_workers}-{settings.models_mapped}"
    child = module(
        "api", directory=folder, environment=settings_environment(settings), label=label
    ).start()
    try:
        port = ready(child, settings.api_workers)
        paths = [f"/api/items/startup-{number}/similar?limit=10" for number in range(64)]
        serving.drive(port, paths, 8 * settings.api_workers, 3.0)
        return memory(child)
    finally:
        child.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--factors", type=int, default=128)
    arguments = parser.parse_args()
    rng = np.random.default_rng(42)
    with (
        tempfile.TemporaryDirectory(prefix="eddyline-workers-") as name,
        RedisServer(Path(name) / "redis") as server,
    ):
        settings = Settings(
            redis_url=SecretStr(server.url),
            models_path=Path(name) / "models",
            api_port=0,
            kafka_bootstrap_servers="127.0.0.1:9",
        )
        items = serving.catalogue(rng, arguments.items)
        version = serving.publish(settings, items, rng, width=arguments.factors)
        folder = Registry(settings.models_path).path / version
        size = disk.folder_bytes(folder) / 1e6
        arrays = sum(path.stat().st_size for path in folder.rglob("*.np[yz]")) / 1e6
        print(f"bundle: {size:.0f} MB, of which arrays {arrays:.0f} MB", flush=True)
        for mapped in (False, True):
            sums = [
                measure(
                    settings.model_copy(update={"api_workers": count, "models_mapped": mapped}),
                    Path(name),
                )
                for count in WORKERS
            ]
            more = (sums[-1] - sums[0]) / (WORKERS[-1] - WORKERS[0])
            line = ", ".join(
                f"{count}: {pss:.0f} MB" for count, pss in zip(WORKERS, sums, strict=True)
            )
            print(f"mapped={mapped}  sum of PSS by processes {line}; one more: {more:.0f} MB")
            if mapped:
                reference = f"MB of the arrays in the bundle, {arguments.items:,} items"
                record("worker-memory", more, "MB", reference, arrays, COMMAND)


if __name__ == "__main__":
    main()
