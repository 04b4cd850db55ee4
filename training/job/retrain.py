"""Runs one retrain, from the archive to a live bundle, in eight stages:

    1. snapshot   the archive's positions W; the catalogue and the deletions as of now
    2. dataset    id maps, weighted matrix, sequences, split by time, from the events below W
    3. tune       for at most TUNE_SECONDS and when it may pay, a search for hyperparameters on the
       events before the cut
    4. fit        ALS, then Two-Tower, on the events before the cut; content on the catalogue
    5. evaluate   by engine and by segment, through the recommender that serves, on the events after
       the cut
    6. gate       the live bundle on the same users: a new one that is worse by more than
       GATE_MARGIN, and not by chance, is refused
    7. publish    both models after a short refresh over every event; write the bundle, rename it,
       then move the pointer
    8. prune      bundles beyond KEEP_BUNDLES are deleted, never the live one

One retrain runs at a time, across machines, by a lease in Redis. Killed anywhere, it leaves the old
bundle or the new one live, never half of one; its lease expires and the next retrain starts anew.

The metrics describe the models of step 4, which have not seen the events that they are judged by.
They stay in the bundle (evaluation/als, evaluation/two_tower), so that the next gate compares two
models of the same kind. The published model is the same one after REFRESH_SWEEPS more sweeps
(REFRESH_EPOCHS of Two-Tower) over every event (docs/adr/0005-one-fit-and-a-refresh.md). The refresh
runs beside steps 5 and 6, which keep one core busy, and is discarded when step 6 refuses. What
needs no new model is done beside step 4. Two-Tower is skipped where ENABLE_TWO_TOWER is false or
torch is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import threadpoolctl
from rich.console import Console

from core.errors import ConfigurationError, GateRefused, Interrupted
from core.settings import Settings
from models.registry import Registry
from store.state import connection, retrains
from store.state.lease import Lease
from training import als
from training.job import stages
from training.job.context import Context, Options
from training.job.run import Run
from training.spark import session as spark_session
from training.two_tower import hyperparameters as two_tower

__all__ = ["Options", "retrain"]


def retrain(
    settings: Settings,
    options: Options,
    console: Console,
    about: Mapping[str, str] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> str:
    """Run the eight stages; returns the version that is live now.

    `about`: further fields of `retrain:last`; `stopped`: called between stages and between sweeps.

    Raises GateRefused, DatasetError, LeaseTaken, LeaseLost, StoreUnavailable, ArchiveError,
    Interrupted: whatever is raised, the live bundle is unchanged.
    """
    # loaded before the limit on BLAS threads below, which a library loaded later would not obey
    import implicit.cpu.als  # noqa: F401

    als_hyperparameters = als.hyperparameters(settings, options.hyperparameters)
    two_tower_hyperparameters = two_tower.hyperparameters(settings, options.hyperparameters)
    if not options.lease and options.events is None:
        raise ConfigurationError(
            "--no-lease works without Redis, which alone knows the users who were deleted "
            "from the archive; add --events FILE, or drop it"
        )
    if settings.als_engine == "spark":
        spark_session.require(settings)  # now, not after the steps before the fit
    with ExitStack() as stack:
        client = stack.enter_context(connection.connect(settings)) if options.lease else None
        lease = (
            stack.enter_context(Lease(client, retrains.LEASE, settings.training_lease_s))
            if client is not None
            else None
        )
        # One limit around everything: two that overlap in two threads would each restore what the
        # other had set.
        stack.enter_context(threadpoolctl.threadpool_limits(1, "blas"))
        # once this run has failed, the background task stops at its next sweep
        failures: list[BaseException] = []
        run = Run(
            client,
            lease.holder if lease is not None else "",
            about,
            lambda: bool(failures) or stopped(),
        )
        background = stack.enter_context(ThreadPoolExecutor(1, "background"))
        try:
            version = _run_stages(
                Context(
                    settings=settings,
                    options=options,
                    als=als_hyperparameters,
                    two_tower=two_tower_hyperparameters,
                    registry=Registry(settings.models_path),
                    run=run,
                    console=console,
                    background=background,
                    client=client,
                    lease=lease,
                )
            )
        except BaseException as error:
            failures.append(error)
            # before the status below, which must be the last one in Redis
            background.shutdown(cancel_futures=True)
            run.record(_status(error), error=str(error) or type(error).__name__)
            raise
        run.record(retrains.PUBLISHED, version=version)
        return version


def _run_stages(context: Context) -> str:
    snapshot = stages.take_snapshot(context)
    training = stages.build_training_set(context, snapshot)
    context = stages.tune(context, snapshot, training)
    fitted = stages.fit(context, snapshot, training)
    evaluated = stages.evaluate_fitted(context, snapshot, fitted)
    verdict = stages.decide(context, training, fitted, evaluated)
    version = stages.publish(context, snapshot, training, fitted, evaluated, verdict)
    stages.prune(context, version)
    return version


def _status(error: BaseException) -> str:
    if isinstance(error, GateRefused):
        return retrains.REFUSED
    return (
        retrains.INTERRUPTED
        if isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
        else retrains.FAILED
    )
