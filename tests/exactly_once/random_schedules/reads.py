"""Reads recommendations of the schedule's users through the API, all the time."""

from __future__ import annotations

import http.client
import random
from pathlib import Path
from typing import Self

from core.settings import Settings
from testing.process import Child, module, settings_environment
from tests.api.world import port_of, publish
from tests.exactly_once.random_schedules.mixed_traffic import USERS
from tests.support import Background, eventually

PAUSE_S = 0.01
LONGEST_S = 30.0
"""Seconds after which a read has failed."""


class Reads:
    """An API process, and a thread that asks it. `failures`: answers that are not 200."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        publish(settings)
        self._api: Child = module(
            "api",
            directory=directory / "children",
            environment=settings_environment(settings),
            label="api",
        )
        self._thread: _Thread | None = None

    def start(self) -> Self:
        """Start, and return once the API answers."""
        self._api.start()
        port = eventually(
            lambda: self._api.check() or port_of(self._api.log.read_text()), "the API serves", 60
        )
        assert port is not None
        self._thread = _Thread(port)
        self._thread.__enter__()
        return self

    def stop(self) -> None:
        """Stop reading, and end the API."""
        if self._thread is not None:
            self._thread.ended.set()
            self._thread.__exit__()
        self._api.kill()

    @property
    def answers(self) -> int:
        """Reads so far."""
        return 0 if self._thread is None else self._thread.answers

    @property
    def problems(self) -> list[str]:
        """One line if reads have failed, or if there were few."""
        failures = [] if self._thread is None else self._thread.failures
        if failures:
            return [f"{len(failures)} of {self.answers} reads failed: {failures[:3]}"]
        return [] if self.answers > 100 else [f"only {self.answers} reads were answered"]


class _Thread(Background):
    def __init__(self, port: int) -> None:
        super().__init__()
        self._port, self._random = port, random.Random(port)
        self.answers, self.failures = 0, list[str]()

    def run(self, number: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LONGEST_S)
        while not self.ended.wait(PAUSE_S):
            user_id = f"user-{self._random.randrange(USERS)}"
            try:
                client.request("GET", f"/api/recommendations/{user_id}")
                answer = client.getresponse()
                body = answer.read()
            except OSError as error:
                self.failures.append(f"{user_id}: {error!r}")
                client.close()
                continue
            self.answers += 1
            if answer.status != 200:
                self.failures.append(f"{user_id}: {answer.status} {body[:200]!r}")
        client.close()
