"""Events to be ingested while things die: few users, so that batches overlap in them; duplicates
and bad messages among them.
"""

from __future__ import annotations

import random
import threading
import time
from types import TracebackType
from typing import Self

import msgspec

from core.codec import encode_json
from core.experiments import recommendation_id
from core.settings import Settings
from core.types import Interaction
from store.log.producer import Producer

BAD = (
    b"not json",
    b"{}",
    b'{"event_id":"x","user_id":"","item_id":"i","event_type":"view","timestamp":1}',
    b"\xff\xfe",
)

AGES_S = (0, 0, 0, 1000, 7000, 200_000, 8 * 86_400, -50_000)
"""Seconds since an event happened, when it is sent: now, late for one window or all of them, and
dated ahead.
"""


class Traffic:
    """Produces until it is told to stop; `sent` counts messages, bad ones and duplicates included.
    Deterministic by `seed`.

    `twice`: every event is delivered a second time, as a producer would that lost its
    acknowledgements.
    """

    def __init__(
        self,
        settings: Settings,
        seed: int,
        per_burst: int = 30,
        pause_s: float = 0.05,
        twice: bool = False,
    ) -> None:
        self._settings, self._random = settings, random.Random(seed)
        self._per_burst, self._pause_s, self._twice = per_burst, pause_s, twice
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")
        self._error: Exception | None = None
        self._recent: list[Interaction] = []
        self.sent = 0

    def burst(self, producer: Producer, count: int) -> None:
        """Send `count` messages."""
        pick = self._random
        for _ in range(count):
            self.sent += 1
            dice = pick.random()
            if dice < 0.01:
                producer.raw(
                    self._settings.interactions_topic,
                    f"user-{pick.randrange(60)}".encode(),
                    pick.choice(BAD),
                )
                continue
            if dice < 0.05 and self._recent:
                event = pick.choice(self._recent)
            else:
                event = self.event(f"user-{pick.randrange(60)}")
                self._recent = [*self._recent[-300:], event]
            for _ in range(2 if self._twice else 1):
                producer.raw(
                    self._settings.interactions_topic, event.user_id.encode(), encode_json(event)
                )

    def event(self, user_id: str) -> Interaction:
        """A valid event of a user that was never sent before."""
        pick = self._random
        return Interaction(
            event_id=f"{pick.getrandbits(64):016x}",
            user_id=user_id,
            item_id=f"item:{pick.randrange(200)}",
            event_type=pick.choice(("view", "view", "click", "like", "dismiss", "rating")),
            timestamp=time.time() - pick.choice(AGES_S),
            value=pick.choice((None, 1.0, 4.5, 0.1)),
            use_case=pick.choice((None, "developer_startup", "investor_startup")),
            context=msgspec.Raw(b'{"page":"home"}'),
            recommendation_id=self._answer(user_id),
        )

    def _answer(self, user_id: str) -> str | None:
        """Of the answer that led to an event: none, one that is no experiment's, the user's own
        variant's, somebody else's.
        """
        running = self._settings.experiments
        every = [None, *running.by_id.values()]
        return self._random.choice(
            (
                None,
                recommendation_id(running.assign(user_id, None)),
                recommendation_id(self._random.choice(every)),
            )
        )

    def _run(self) -> None:
        try:
            with Producer(self._settings) as producer:
                while not self._stop.wait(self._pause_s):
                    self.burst(producer, self._per_burst)
        except Exception as error:  # noqa: BLE001  raised again where the test ends
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error
