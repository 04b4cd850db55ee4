"""Notes which users are being read, for the live workers: they fold in only these ahead of reads.

A note is a hint. Where one is missing, the read folds the user in itself, with the same answer.
"""

from __future__ import annotations

import time
from collections import deque

from store.state import keys
from store.state.connection import Client, named_errors
from store.state.shards import Shards, users_by_shard

MOST = 100_000
"""Users noted by one process in a quarter of LIVE_READ_S at most, about 20 MB; further ones are not
noted.
"""
_CHUNK = 500
"""Users in one command, which takes Redis a fraction of a millisecond."""


class ReadUsers:
    """Collects who is read, and writes it to Redis.

    A user who is read all the time is noted again after a quarter to a half of LIVE_READ_S.
    Any thread may call `add`, one thread at a time `write`.
    """

    def __init__(self, remember_s: float) -> None:
        """`remember_s`: LIVE_READ_S, the seconds that Redis keeps a note; 0: nothing is noted."""
        self._remember_s = remember_s
        self._recent: set[str] = set()
        self._before: set[str] = set()
        self._until = 0.0
        self._queue: deque[str] = deque()

    def add(self, user_id: str) -> None:
        """Note that a user is read."""
        if user_id in self._recent or user_id in self._before or not self._remember_s:
            return
        if len(self._recent) < MOST:
            self._recent.add(user_id)
            self._queue.append(user_id)

    def write(self, shards: Shards) -> None:
        """Write the notes, and remove those that are older than `remember_s`.

        Notes that cannot be written are dropped. Raises StoreUnavailable, StoreMisconfigured.
        """
        if time.monotonic() >= self._until:
            self._until = time.monotonic() + self._remember_s / 4
            self._before, self._recent = self._recent, set()
        user_ids = [self._queue.popleft() for _ in range(len(self._queue))]
        with named_errors("noting which users are read"):
            for shard, of_shard in users_by_shard(user_ids, len(shards)).items():
                for start in range(0, len(of_shard), _CHUNK):
                    self._write(shards[shard], of_shard[start : start + _CHUNK])

    def _write(self, client: Client, user_ids: list[str]) -> None:
        now, users_read = round(time.time(), 3), keys.of(client).users_read
        pipe = client.pipeline(transaction=False)
        pipe.zadd(users_read, dict.fromkeys(user_ids, now))
        pipe.zremrangebyscore(users_read, 0, now - self._remember_s)
        pipe.expire(users_read, round(self._remember_s) + 1)
        pipe.execute()
