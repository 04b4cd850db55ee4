"""Holds what the stages of one retrain share, such as settings, lease and progress report."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from core.settings import Settings
from models.registry import Registry
from store.state.connection import Client
from store.state.lease import Lease
from training import als
from training.data.table_files import Source
from training.job.run import Run
from training.tuning.record import Record
from training.two_tower import hyperparameters as two_tower


@dataclass(frozen=True)
class Options:
    """Options of one retrain.

    `events`, `items`: files to read instead of the archive and of Redis. `users`: the most that are
    judged. `threads`: of the solver, 0 for all cores. `force`: publish although the gate refuses.
    `lease` False: work without Redis.
    """

    events: Source | None = None
    items: Source | None = None
    hyperparameters: Path | None = None
    users: int = 250
    threads: int = 0
    force: bool = False
    lease: bool = True


@dataclass(frozen=True)
class Context:
    """One retrain.

    `als`, `two_tower`: hyperparameters, and `tuning`: how they were found; None when they are those
    of the settings or of a file. `client` (of shard 0), `lease`: None without Redis. `background`
    runs one task at a time beside the main thread.
    """

    settings: Settings
    options: Options
    als: als.Hyperparameters
    two_tower: two_tower.Hyperparameters
    registry: Registry
    run: Run
    console: Console
    background: Executor
    client: Client | None
    lease: Lease | None
    tuning: Record | None = None

    @property
    def seed(self) -> int:
        """Seed of every random choice of this retrain."""
        return self.settings.training_seed
