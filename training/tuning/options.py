"""Options of a search, by `python -m training tune` or within a retrain; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.data.dataset import Bools


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
    SQLite file of the searches; None: in memory. `output`: JSON file of the results. `threads` 0:
    one a core.
    """

    study: Path | None
    output: Path
    minutes: float
    trials: int | None = None
    negatives: int = 0
    threads: int = 0


def _ignore(_text: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Scope:
    """What a search may use and change.

    `where` (n_events,) bool: the events that it may use; None: all. `start`: the hyperparameters
    that are tried first; None: those of the settings. `candidates`: hyperparameters that are tried
    next. `fixed`: names of hyperparameters that keep the value of `start`. `patience`: the search
    ends after so many trials in a row without a better one; None: never. `report(text)`: called
    often; may raise to stop. `overtime`: complete one trial even when the time is over.
    """

    where: Bools | None = None
    start: Any = None
    candidates: Sequence[Any] = ()
    fixed: frozenset[str] = frozenset()
    patience: int | None = None
    report: Callable[[str], None] = _ignore
    overtime: bool = True


DEFAULTS = Scope()
