"""Measures what one read costs: `python -m benchmarks.read_costs`.

The answers of `python -m benchmarks.reads` (personal ALS, 10,000 items, ten recommendations with
reasons and metadata, 16 connections, one API process): processor time of the API and of Redis,
bytes from Redis and over HTTP; the memory of the API process, and that of the catalogue in Redis.
benchmarks/scale_model.py calculates with these rows. The reference is the empty route, or the bytes
of an item's JSON.
"""

from __future__ import annotations

import argparse
import urllib.request

import numpy as np
import psutil
from redis import Redis

from benchmarks.api.serving import ITEMS, Served, catalogue, drive, serving
from benchmarks.measurements import record
from benchmarks.peers.ours import cpu_seconds
from core.codec import encode_json
from store.state import keys

COMMAND = "python -m benchmarks.read_costs"
CONNECTIONS = 16


def cost(
    served: Served, redis: Redis, paths: list[str], seconds: float
) -> tuple[float, float, float]:
    """Of one answer: microseconds of the API's processor time, of Redis's, and bytes from Redis."""
    pids = (served.pid, int(redis.info("server")["process_id"]))
    begin = [cpu_seconds(pid) for pid in pids]
    sent = int(redis.info("stats")["total_net_output_bytes"])
    # the client's first half second is not in its report
    report = drive(served.port, paths, CONNECTIONS, seconds)
    answers = report.per_second * (seconds + 0.5)
    api, in_redis = (
        1e6 * (cpu_seconds(pid) - before) / answers for pid, before in zip(pids, begin, strict=True)
    )
    return api, in_redis, (int(redis.info("stats")["total_net_output_bytes"]) - sent) / answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each route")
    arguments = parser.parse_args()
    with serving(arguments.users, CONNECTIONS) as served:
        redis = Redis.from_url(served.settings.redis_url.get_secret_value())
        empty, *_ = cost(served, redis, ["/health/live"], arguments.seconds)
        api, in_redis, from_redis = cost(served, redis, served.paths, arguments.seconds)
        sizes = []
        for path in served.paths[:50]:
            url = f"http://127.0.0.1:{served.port}{path}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                sizes.append(len(answer.read()))
        memory = psutil.Process(served.pid).memory_info().rss / 2**20
        in_catalogue = int(redis.memory_usage(keys.of(redis).items, samples=0) or 0) / ITEMS
        files = [path for path in served.settings.models_path.rglob("*") if path.is_file()]
        on_disk = sum(path.stat().st_size for path in files) / 2**20
        redis.close()
    text = sum(len(encode_json(item)) for item in catalogue(np.random.default_rng(42))) / ITEMS
    route = ("the empty route", empty)
    item = ("bytes of an item as JSON", text)
    answer_bytes = sum(sizes) / len(sizes)
    for name, value, unit, (reference, reference_value) in (
        ("read-api", api, "us of CPU a read", route),
        ("read-redis", in_redis, "us of CPU a read", route),
        ("read-redis-bytes", from_redis, "bytes a read from Redis", item),
        ("read-http-bytes", answer_bytes, "bytes of an answer", item),
        ("item-bytes", in_catalogue, "bytes an item in the catalogue", item),
        ("api-memory", memory, f"MB of an API process, {ITEMS} items", ("MB of files", on_disk)),
    ):
        record(f"unit-{name}", value, unit, reference, reference_value, COMMAND)
        print(f"unit-{name:20} {value:8.1f} {unit}   {reference}: {reference_value:.1f}")


if __name__ == "__main__":
    main()
