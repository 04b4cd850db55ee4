"""The answer of the route about experiments."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from api.schemas.answers import Answer
from engines.experiments.report import Report


class ExperimentResults(Answer, frozen=True, kw_only=True):
    """The results of all experiments with numbers, those that run first."""

    experiments: list[Report]
    at: Annotated[
        float,
        Meta(description="when the numbers were read, in seconds since 1970", examples=[1.79e9]),
    ]
