"""Measures the memory of a user with 50 interactions in Redis: `python -m benchmarks.memory`.

The planner and the transactions of ingest write the users, from random events on 10,000 items
(`startup-1234`): counters, history, and what the key space needs for them. MEMORY USAGE of the
users' keys is printed beside `used_memory`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from pydantic import SecretStr
from redis import Redis

from benchmarks.measurements import record
from core.deletions import IdHasher
from core.settings import Settings
from core.types import Interaction
from store.state import connection, keys
from store.state.apply import deletions
from store.state.apply.applier import Applier
from store.state.apply.batches import UNKNOWN_DELETIONS, Event, OffsetRange
from store.state.apply.planner import Planner
from testing.redis import RedisServer

USERS, EVENTS, ITEMS = 5_000, 50, 10_000
COMMAND = "python -m benchmarks.memory"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    pick = random.Random(3)
    types = ["view"] * 6 + ["click"] * 2 + ["like", "apply"]
    with (
        tempfile.TemporaryDirectory(prefix="eddyline-memory-") as folder,
        RedisServer(Path(folder)) as server,
        Redis.from_url(server.url) as redis,
    ):
        settings = Settings(redis_url=SecretStr(server.url))
        planner = Planner(settings.use_cases)
        applier = Applier(
            connection.connect(settings),
            planner,
            settings.history_cap,
            IdHasher(settings.deletion_salt),
        )
        deletions.mark_ready(redis)
        before = int(redis.info("memory")["used_memory"])
        position = 0
        for round_number in range(EVENTS):
            for start in range(0, USERS, 500):
                events = [
                    Event(
                        Interaction(
                            f"{round_number}-{user}",
                            f"user-{user}",
                            f"startup-{pick.randrange(ITEMS)}",
                            pick.choice(types),
                            1.76e9 + 600 * round_number,
                        ),
                        1.76e9,
                    )
                    for user in range(start, start + 500)
                ]
                applier.apply(
                    planner.plan(
                        OffsetRange("interactions", 0, position, position + 500),
                        events,
                        UNKNOWN_DELETIONS,
                    )
                )
                position += 500
        applier.close()
        whole = int(redis.info("memory")["used_memory"]) - before
        names = keys.of(redis)
        counted = sum(
            int(redis.memory_usage(key, samples=0) or 0)
            for user in range(USERS)
            for key in (names.user(f"user-{user}"), names.history(f"user-{user}"))
        )
    a_user = whole / USERS
    by_keys = counted / USERS
    print(
        f"{USERS} users, {EVENTS} interactions each: {a_user:.0f} bytes of used_memory a "
        f"user, {by_keys:.0f} by MEMORY USAGE of its keys"
    )
    record("redis-memory-per-user", a_user, "bytes", "2 KB, the target", 2048.0, COMMAND)


if __name__ == "__main__":
    main()
