"""Holds what every stage of one retrain shares: settings, options, the lease, the progress report
and the background thread.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from core.settings import Settings
from models.registry import Registry
from store.state.connection import Client
from store.state.lease import Lease
from training.als import Hyperparameters
from training.job.run import Run


@dataclass(frozen=True)
class Options:
    """Options of one retrain.

    `events`, `items`: files to read instead of the archive and of Redis. `users`: the most that are
    judged. `threads`: of the solver, 0 for all cores. `force`: publish although the gate refuses.
    `lease` False: work without Redis.
    """

    events: Path | None = None
    items: Path | None = None
    hyperparameters: Path | None = None
    users: int = 250
    threads: int = 0
    force: bool = False
    lease: bool = True


@dataclass(frozen=True)
class Context:
    """One retrain. `settings` hold the hyperparameters of Two-Tower, `als` those of ALS; `client`
    and `lease` are None without Redis.

    `background` runs one task at a time beside the main thread.
    """

    settings: Settings
    options: Options
    als: Hyperparameters
    registry: Registry
    run: Run
    console: Console
    background: Executor
    client: Client | None
    lease: Lease | None

    @property
    def seed(self) -> int:
        """Seed of every random choice of this retrain."""
        return self.settings.training_seed
