"""Produces events while processes and servers fail.

There are few users, so that several batches have events of the same user. Some messages are
duplicates, and some are bad.
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
"""Age of an event when it is sent: 0, late for one window or for all of them, or in the future."""


class Traffic:
    """Produces during a `with` block; the messages follow from `seed`.

    A burst of `per_burst` messages begins every `pause_s` seconds. `sent`: the number of messages,
    bad ones and duplicates included, in `seconds`. `twice`: every event is sent twice, as by a
    producer that has lost the acknowledgements.
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
        self.sent, self.seconds = 0, 0.0

    def burst(self, producer: Producer, count: int) -> None:
        """Send `count` messages."""
        rng = self._random
        for _ in range(count):
            self.sent += 1
            chance = rng.random()
            if chance < 0.01:
                producer.raw(
                    self._settings.interactions_topic,
                    f"user-{rng.randrange(60)}".encode(),
                    rng.choice(BAD),
                )
                continue
            if chance < 0.05 and self._recent:
                event = rng.choice(self._recent)
            else:
                event = self.event(f"user-{rng.randrange(60)}")
                self._recent = [*self._recent[-300:], event]
            for _ in range(2 if self._twice else 1):
                producer.raw(
                    self._settings.interactions_topic, event.user_id.encode(), encode_json(event)
                )

    def event(self, user_id: str) -> Interaction:
        """A valid new event of a user."""
        rng = self._random
        return Interaction(
            event_id=f"{rng.getrandbits(64):016x}",
            user_id=user_id,
            item_id=f"item:{rng.randrange(200)}",
            event_type=rng.choice(("view", "view", "click", "like", "dismiss", "rating")),
            timestamp=time.time() - rng.choice(AGES_S),
            value=rng.choice((None, 1.0, 4.5, 0.1)),
            use_case=rng.choice((None, "developer_startup", "investor_startup")),
            context=msgspec.Raw(b'{"page":"home"}'),
            recommendation_id=self._answer(user_id),
        )

    def _answer(self, user_id: str) -> str | None:
        """The recommendation_id of an event.

        None, or that of an answer of no variant, of the user's variant, or of another variant.
        """
        running = self._settings.experiments
        variants = [None, *running.by_id.values()]
        return self._random.choice(
            (
                None,
                recommendation_id(running.assign(user_id, None)),
                recommendation_id(self._random.choice(variants)),
            )
        )

    def _run(self) -> None:
        try:
            with Producer(self._settings) as producer:
                begin, due = time.monotonic(), 0.0
                while not self._stop.wait(max(0.0, begin + due - time.monotonic())):
                    self.burst(producer, self._per_burst)
                    due += self._pause_s
                    self.seconds = time.monotonic() - begin
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
