"""The ensemble engine: blends several engines' scores of every item, with the reasons of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.types import Reason, Request, UserState
from engines.base import NO_OPINION, Engine, NotApplicable, Scoring
from engines.blending.scales import blend_scores
from models.ensemble import Blend


class Part(msgspec.Struct, frozen=True):
    """How one engine's score enters the blend.

    `weight` times `normalised` is its share of the blended score.
    """

    normalised: float
    weight: float


class EnsembleEngine(Engine):
    """Blends engines over one catalogue.

    When one of them cannot score, the ensemble cannot either, and the next engine answers.
    """

    name = "ensemble"

    def __init__(self, engines: Mapping[str, Engine], blend: Blend) -> None:
        """`engines`: by name, at least those that `blend` weighs.

        Raises ValueError when their catalogues differ.
        """
        self.blend, self.shares = blend, blend.shares
        self.engines = {name: engines[name] for name in self.shares}
        first = next(iter(self.engines.values()))
        self.catalogue = first.catalogue
        if any(engine.catalogue.ids != self.catalogue.ids for engine in self.engines.values()):
            raise ValueError("the parts of an ensemble must be built over one catalogue")
        self.dead: NDArray[np.intp] = np.flatnonzero(~self.catalogue.alive)

    def score(self, state: UserState, request: Request) -> EnsembleScoring:
        """Blended scores. Raises NotApplicable, naming the part that cannot score."""
        scorings: dict[str, Scoring] = {}
        for name, engine in self.engines.items():
            try:
                scorings[name] = engine.score(state, request)
            except NotApplicable as cause:
                raise NotApplicable(f"{name}: {cause}") from None
        return EnsembleScoring(self, scorings, state.events)

    def over(self, engines: Mapping[str, Engine]) -> EnsembleEngine:
        """The same blend of `engines`."""
        return EnsembleEngine(engines, self.blend)


class EnsembleScoring(Scoring):
    """Blended scores. A learned blend's weights depend on the user's number of events."""

    def __init__(
        self, engine: EnsembleEngine, scorings: Mapping[str, Scoring], events: int
    ) -> None:
        """`scorings`: of the parts, by name; `events`: of the user.

        Raises ValueError for a score that is NaN or infinite.
        """
        self._scorings, blend = scorings, engine.blend
        parts = [scorings[name].scores for name in engine.shares]
        if blend.learned is None:
            assert blend.method != "learned", "Blend.load refuses this"
            self._shares = engine.shares
            self.scores, scaled = blend_scores(
                blend.method, parts, list(self._shares.values()), engine.dead
            )
        else:
            coefficients = blend.learned.at(events)
            self._shares = {name: sum(coefficients[name]) for name in engine.shares}
            bends = [
                [coefficient / share if share else 0.0 for coefficient in coefficients[name]]
                for name, share in self._shares.items()
            ]
            self.scores, scaled = blend_scores(
                "min_max", parts, list(self._shares.values()), engine.dead, bends
            )
        self._normalised = dict(zip(self._shares, scaled, strict=True))

    def part(self, name: str, row: int) -> Part | None:
        """How engine `name` enters the score of `row`; None if the blend does not use it."""
        if name not in self._shares:
            return None
        return Part(float(self._normalised[name][row]), self._shares[name])

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        """Every part's reasons, the part with the largest share first.

        A `contribution` is a share of the blended score.
        """
        by_row: list[list[tuple[float, list[Reason]]]] = [[] for _ in rows]
        for name, scoring in self._scorings.items():
            scored = [index for index, row in enumerate(rows) if scoring.scores[row] > NO_OPINION]
            for index, reasons in zip(
                scored, scoring.reasons([rows[index] for index in scored]), strict=True
            ):
                share = self._share(name, rows[index])
                by_row[index].append((share, _divide(share, reasons)))
        return [
            [
                reason
                for _, reasons in sorted(parts, key=lambda part: -part[0])
                for reason in reasons
            ]
            for parts in by_row
        ]

    def contributions(self, row: int) -> list[Reason]:
        """Every part's contributions, largest first; they add up to the blended score."""
        if self.scores[row] == NO_OPINION:
            return []
        reasons: list[Reason] = []
        for name, scoring in self._scorings.items():
            if scoring.scores[row] > NO_OPINION:
                reasons += _divide(self._share(name, row), scoring.contributions(row))
        return sorted(reasons, key=lambda reason: -(reason.contribution or 0.0))

    def _share(self, name: str, row: int) -> float:
        return self._shares[name] * float(self._normalised[name][row])


def _divide(share: float, reasons: list[Reason]) -> list[Reason]:
    """`share` divided among `reasons` by their contributions above 0.

    Evenly, where none is above 0.
    """
    parts = [max(reason.contribution or 0.0, 0.0) for reason in reasons]
    total = sum(parts)
    if not total > 0:
        parts, total = [1.0] * len(reasons), float(len(reasons))
    return [
        msgspec.structs.replace(reason, contribution=share * part / total)
        for reason, part in zip(reasons, parts, strict=True)
        if part > 0
    ]
