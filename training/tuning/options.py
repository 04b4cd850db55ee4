"""Options of `python -m training tune`; imports nothing heavy, for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Part(StrEnum):
    """What can be tuned."""

    ALL = "all"
    ALS = "als"
    TWO_TOWER = "two-tower"
    BLEND = "blend"
    ROUTER = "router"


@dataclass(frozen=True)
class TuneOptions:
    """Options of one run of `tune`.

    `minutes`: time budget. `trials`: most trials of each search; None: no limit. `negatives`:
    number of sampled items that ALS ranks the held-out item among; 0: the whole catalogue. `study`:
    SQLite file of the searches. `output`: JSON file of the results. `threads` 0: one a core.
    """

    study: Path
    output: Path
    minutes: float
    trials: int | None = None
    negatives: int = 0
    threads: int = 0
