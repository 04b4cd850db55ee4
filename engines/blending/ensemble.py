"""The ensemble: several engines' scores of every item on one scale, summed by weight, with the reasons of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.types import Reason, Request, UserState
from engines.base import NO_OPINION, Engine, NotApplicable, Scoring
from engines.blending.fusion import fuse
from models.ensemble import Blend


class Part(msgspec.Struct, frozen=True):
    """How one engine's score enters the blend: `weight` x `normalised` is its share of the blended score."""

    normalised: float
    weight: float


class EnsembleEngine(Engine):
    """Blends engines over one catalogue. Answers only when each of them does: else the router's chain goes on, and the answer says why."""

    name = "ensemble"

    def __init__(self, engines: Mapping[str, Engine], chosen: Blend) -> None:
        """`engines`: by name, at least those that `chosen` weighs. Raises ValueError when they do not share their rows."""
        self.chosen, self.shares = chosen, chosen.shares
        self.engines = {name: engines[name] for name in self.shares}
        first = next(iter(self.engines.values()))
        self.catalogue = first.catalogue
        if any(engine.catalogue.ids != self.catalogue.ids for engine in self.engines.values()):
            raise ValueError("the parts of an ensemble must be built over one catalogue")
        self.dead: NDArray[np.intp] = np.flatnonzero(~self.catalogue.alive)

    def score(self, state: UserState, request: Request) -> EnsembleScoring:
        """Raises NotApplicable, naming the part that has nothing to go by."""
        scorings: dict[str, Scoring] = {}
        for name, engine in self.engines.items():
            try:
                scorings[name] = engine.score(state, request)
            except NotApplicable as nothing:
                raise NotApplicable(f"{name}: {nothing}") from None
        return EnsembleScoring(self, scorings, state.events)

    def over(self, engines: Mapping[str, Engine]) -> EnsembleEngine:
        """The same blend of newer engines."""
        return EnsembleEngine(engines, self.chosen)


class EnsembleScoring(Scoring):
    """`scorings`: the parts', by name; `events`: how many the user has, which a learned blend goes by."""

    def __init__(self, engine: EnsembleEngine, scorings: Mapping[str, Scoring], events: int) -> None:
        """Raises ValueError for scores that cannot be put on a scale."""
        self._scorings, chosen = scorings, engine.chosen
        parts = [scorings[name].scores for name in engine.shares]
        if chosen.learned is None:
            assert chosen.fusion != "learned", "refused when it was loaded"
            self._shares = engine.shares
            self.scores, scaled = fuse(chosen.fusion, parts, list(self._shares.values()), engine.dead)
        else:
            numbers = chosen.learned.at(events)
            self._shares = {name: sum(numbers[name]) for name in engine.shares}
            bends = [[number / share if share else 0.0 for number in numbers[name]] for name, share in self._shares.items()]
            self.scores, scaled = fuse("min_max", parts, list(self._shares.values()), engine.dead, bends)
        self._normalised = dict(zip(self._shares, scaled, strict=True))

    def part(self, name: str, row: int) -> Part | None:
        """How engine `name` entered the score of `row`; None for an engine that is not blended."""
        if name not in self._shares:
            return None
        return Part(float(self._normalised[name][row]), self._shares[name])

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """Every part's reasons, the part that gave most first; a `contribution` is a share of the blended score."""
        why: list[list[tuple[float, list[Reason]]]] = [[] for _ in rows]
        for name, scoring in self._scorings.items():
            spoken = [at for at, row in enumerate(rows) if scoring.scores[row] > NO_OPINION]
            for at, reasons in zip(spoken, scoring.reasons([rows[at] for at in spoken]), strict=True):
                share = self._share(name, rows[at])
                why[at].append((share, _apportioned(reasons, share)))
        return [[reason for _, reasons in sorted(parts, key=lambda part: -part[0]) for reason in reasons] for parts in why]

    def contributions(self, row: int) -> list[Reason]:
        """Every part's contributions; together they are the blended score."""
        if self.scores[row] == NO_OPINION:
            return []
        found: list[Reason] = []
        for name, scoring in self._scorings.items():
            if scoring.scores[row] > NO_OPINION:
                found += _apportioned(scoring.contributions(row), self._share(name, row))
        return sorted(found, key=lambda reason: -(reason.contribution or 0.0))

    def _share(self, name: str, row: int) -> float:
        return self._shares[name] * float(self._normalised[name][row])


def _apportioned(reasons: list[Reason], share: float) -> list[Reason]:
    """`share` divided among `reasons` by their contributions above 0, evenly where none is above 0."""
    parts = [max(reason.contribution or 0.0, 0.0) for reason in reasons]
    total = sum(parts)
    if not total > 0:
        parts, total = [1.0] * len(reasons), float(len(reasons))
    return [
        msgspec.structs.replace(reason, contribution=share * part / total) for reason, part in zip(reasons, parts, strict=True) if part > 0
    ]
