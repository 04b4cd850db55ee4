"""Fits a retrain's ALS by the engine that ALS_ENGINE names.

Spark reads the events itself, from the snapshot's positions of the archive or from the table of
`--events`. MLlib cannot start from a model, so the model that is published is a second whole fit,
over every event, where `implicit` makes one more sweep.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from models.als import ALSModel
from store.state.apply.deletions import DeletedUsers
from training.data.dataset import Dataset, Interactions, Split
from training.job import fitting
from training.job.context import Context
from training.spark import events as spark_events
from training.spark import fit as spark_fit
from training.spark import session as spark_session


@dataclass(frozen=True)
class ALSFits:
    """The two fits of one retrain: before the cut, and the refresh over every event.

    `positions`, `deleted`: of the snapshot.
    """

    context: Context
    positions: Mapping[int, int]
    deleted: DeletedUsers

    def before_cut(self, data: Dataset, split: Split | None) -> ALSModel:
        """The model of the events before the cut, or of all without one. Raises Interrupted."""
        context = self.context
        if context.settings.als_engine == "spark":
            return self._by_spark("als", None if split is None else split.cut)
        train = None if split is None else split.train
        return fitting.fit_als(
            data.interactions(train),
            context.als,
            context.seed,
            context.options.threads,
            context.run,
        )

    def refreshed(
        self, fitted: ALSModel, interactions: Interactions, split: Split | None
    ) -> ALSModel:
        """`fitted` with the events after the cut; `interactions`: of all. Raises Interrupted."""
        if split is not None and self.context.settings.als_engine == "spark":
            return self._by_spark("refresh", None)
        return fitting.refresh_als(self.context, fitted, interactions, split)

    def _by_spark(self, name: str, before: float | None) -> ALSModel:
        """Fit by Spark; its seconds go into the manifest as `name`."""
        context, started = self.context, time.monotonic()
        settings, table = context.settings, context.options.events
        source: spark_events.Events = (
            spark_events.of_archive(settings, self.positions, self.deleted)
            if table is None
            else spark_events.TableEvents(table)
        )
        with spark_session.cluster(settings) as cluster:
            model = spark_fit.fit(
                cluster,
                spark_fit.TrainingEvents(source, settings.use_cases, before),
                context.als,
                context.seed,
                lambda: context.run.progress("fitting ALS by Spark"),
            ).model
        context.run.seconds[name] = round(time.monotonic() - started, 3)
        return model
