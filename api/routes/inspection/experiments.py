"""Answers the results of experiments: users, outcomes, intervals and verdicts by variant."""

from __future__ import annotations

import time
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from api.errors import invalid, json_response, unavailable
from api.routes.query import plain_query
from api.routes.routing import BUDGET_ERRORS, Operation, add
from api.schemas.document import DocumentedApp
from api.schemas.experiments import ExperimentResults
from api.service import Service
from core.errors import ConfigurationError, StoreError
from engines.experiments.report import compare_all
from store.state.entities import experiments
from store.state.shards import Shards

FRESH_S = 10.0
"""Seconds for which results are answered again; the users of all variants are read for them."""
FRESH_SHARE = 20
"""The same in multiples of the time that they took, where that is longer."""
DETECT = 0.1
"""The relative difference to detect, by default: a tenth."""
MOST_DIFFERENCES = 8
"""Results of different `detect` that are cached."""


class ExperimentRoutes:
    """The route about experiments; the worker's thread reads and compares."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._budget = service.worker.budget("experiments")
        self._results: dict[float, tuple[float, ExperimentResults]] = {}

    def register(self, app: DocumentedApp) -> None:
        """Add the route to `app`."""
        add(
            app,
            Operation(
                method="GET",
                path="/api/experiments",
                handler=self.list,
                answer=ExperimentResults,
                tag="recommendations",
                summary="Results of experiments, with intervals and verdicts",
                parameters=_PARAMETERS,
                errors={
                    **BUDGET_ERRORS,
                    503: "Redis, which has the numbers, does not answer",
                },
            ),
        )

    async def list(self, request: Request) -> Response:
        """The same as `python -m training experiments --json`: each variant beside the control.

        There is no verdict before each variant has the users that a difference of `detect` needs.
        `at` says when the numbers were read: they are cached for ten seconds, or longer where they
        take long.
        """
        detect = _detect(plain_query(request, "detect"))
        fresh_until, results = self._results.get(detect, (0.0, None))
        if results is None or time.monotonic() > fresh_until:
            try:
                results = await self._budget.run(partial(self._compare, detect))
            except (StoreError, ConfigurationError) as error:
                text = f"the numbers cannot be read: {error}"
                raise unavailable("store_unavailable", text) from None
        return json_response(results)

    def _compare(self, detect: float) -> ExperimentResults:
        """Read and compare all. Runs in the worker's thread, so that a request that ended before it
        leaves a result for the next.
        """
        began = time.monotonic()
        settings = self._service.settings
        with Shards(settings, settings.api_redis_timeout_s) as shards:
            recorded = experiments.recorded(shards)
            read = partial(experiments.read, shards)
            reports = compare_all(settings.experiments, recorded, read, detect)
        results = ExperimentResults(experiments=reports, at=time.time())
        now = time.monotonic()
        if len(self._results) >= MOST_DIFFERENCES:
            self._results = {}
        self._results[detect] = now + max(FRESH_S, FRESH_SHARE * (now - began)), results
        return results


def _detect(values: dict[str, str]) -> float:
    text = values.get("detect", str(DETECT))
    try:
        detect = float(text)
    except ValueError:
        detect = 0.0
    if not 0.001 <= detect <= 10:
        raise invalid(f"detect must be a number from 0.001 to 10, not {text[:100]!r}")
    return detect


_PARAMETERS = [
    {
        "name": "detect",
        "in": "query",
        "required": False,
        "schema": {"type": "number", "minimum": 0.001, "maximum": 10, "default": DETECT},
        "description": "the difference that matters, relative to the control: 0.1 is a tenth",
    }
]
