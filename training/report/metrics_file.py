"""Reads metrics.json for the page, and checks it: a bundle may come from another machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import msgspec

from models.router.served import Served
from training.evaluation.evaluate import ENGINES, SEGMENTS


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval, which may be unknown."""

    name: str
    mean: float
    low: float | None
    high: float | None


class Row(msgspec.Struct, frozen=True):
    """A mean over users with its 95% interval.

    None where no user has a value, or the metric has no interval.
    """

    engine: str
    segment: str
    users: int
    metric: str
    mean: float | None
    low: float | None
    high: float | None


class Epoch(msgspec.Struct, frozen=True):
    """Mean loss of an epoch of Two-Tower, and NDCG@10 of users' held-out last items."""

    epoch: int
    loss: float
    ndcg: float | None = msgspec.field(name="ndcg@10", default=None)


class BlendCandidate(msgspec.Struct, frozen=True):
    """A blend that was tried."""

    weights: dict[str, float]
    method: str = msgspec.field(name="fusion")
    ndcg: float = msgspec.field(name="ndcg@10")

    def __post_init__(self) -> None:
        if unknown := self.weights.keys() - set(ENGINES):
            raise ValueError(f"{min(unknown)!r} is no engine")


class Blends(msgspec.Struct, frozen=True):
    """The blend candidates, best first by NDCG@10 of `users` who are not judged."""

    users: int
    tried: list[BlendCandidate]


class Metrics(msgspec.Struct, frozen=True, dict=True):
    """metrics.json, as `training.evaluation.evaluate.save` writes it."""

    rows: list[Row]
    cut: float
    users: int
    users_with_new_items: int
    seed: int
    describes: str = ""
    dataset: str = ""
    two_tower: list[Epoch] = []
    blends: Blends | None = None
    served: Served | None = None

    def of(self, segment: str, engine: str, metric: str) -> Estimate | None:
        """The estimate of one metric, named by its engine."""
        row = self._by_key.get((segment, engine, metric))
        return (
            None
            if row is None or row.mean is None
            else Estimate(engine, row.mean, row.low, row.high)
        )

    def of_engines(self, segment: str, metric: str) -> list[Estimate]:
        """The estimate of each engine that has one."""
        estimates = (self.of(segment, engine, metric) for engine in self.engines)
        return [estimate for estimate in estimates if estimate is not None]

    @cached_property
    def engines(self) -> list[str]:
        """The engines that were evaluated, in the order of the page."""
        present = {row.engine for row in self.rows}
        return [name for name in ENGINES if name in present]

    @cached_property
    def segments(self) -> dict[str, int]:
        """Segment -> its number of users, in the order of the page."""
        users = {row.segment: row.users for row in self.rows}
        return {name: users[name] for name in SEGMENTS if name in users}

    @cached_property
    def _by_key(self) -> dict[tuple[str, str, str], Row]:
        return {(row.segment, row.engine, row.metric): row for row in self.rows}
