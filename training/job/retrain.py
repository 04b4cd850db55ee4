"""One retrain, from the archive to a live bundle:

    1. snapshot   how far the archive reaches is W; the catalogue and the deletions as they stand
    2. dataset    id maps, weighted matrix, sequences, split by time, from the events below W
    3. fit        ALS, then Two-Tower, on the events before the cut; content on the catalogue
    4. evaluate   by engine and by segment, through the recommender that serves, on the events after the cut
    5. gate       the live bundle on the same users: a new one that is worse by more than GATE_MARGIN, and not by chance, is refused
    6. publish    a short refresh of both over every event; the bundle is written, sealed and renamed; then the pointer
    7. prune      bundles beyond KEEP_BUNDLES go, never the live one

One runs at a time, across machines, by a lease in Redis. Killed anywhere, it leaves the old bundle or the new one live, never half of
one; its lease ends by itself and the next retrain starts anew. Which model do the metrics describe? The one of step 3, which has not
seen what it is judged by. It is kept in the bundle (evaluation/als, evaluation/two_tower) so that the next gate compares two models of
the same kind: neither has seen the events it is judged by. What goes live is the same model with REFRESH_SWEEPS more (REFRESH_EPOCHS of
Two-Tower), now over every event (docs/adr/one-fit-and-a-refresh.md); the refresh runs beside steps 4 and 5, which keep one core busy,
and is thrown away if step 5 refuses. All that needs no new model is done beside step 3: content, popularity, who is judged, and what the
live bundle answers them. Two-Tower is left out where ENABLE_TWO_TOWER is false or torch is not installed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import scipy.sparse as sp
import structlog
import threadpoolctl
from rich.console import Console

from core.errors import ConfigurationError, DatasetError, GateRefused, Interrupted
from core.settings import Settings, without_password
from core.types import Item
from models import files
from models.als import ALSModel
from models.bundle import CATALOGUE, Bundle
from models.content import ContentModel
from models.popular import Popularity, PopularModel
from models.registry import Registry
from store import apply, catalogue, connection, retrains
from store.archive import Archive
from store.lease import Lease
from training import als
from training.als import Hyperparameters
from training.blend import mixture as blend
from training.data import dataset, events, items
from training.data.dataset import Dataset, Split
from training.data.popularity import popular
from training.evaluation import evaluate
from training.evaluation.evaluate import Evaluation, Judged
from training.job import gate
from training.job.run import Run
from training.progress import progress
from training.report import page as report
from training.two_tower import command as two_tower_command

LIBRARIES = ("implicit", "numpy", "scipy", "scikit-learn", "pyarrow")

NICENESS = 10
"""Of 19: a tenth of the share that a thread of niceness 0 has of a core."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Options:
    """What a caller may choose. `events`, `items`: files instead of the archive and of Redis; `lease` False: works without Redis."""

    events: Path | None = None
    items: Path | None = None
    hyperparameters: Path | None = None
    users: int = 250
    threads: int = 0
    force: bool = False
    lease: bool = True


@dataclass(frozen=True)
class _Beside:
    """What is made on another core while ALS is fitted. `unjudged`: why `judged` is None; `live`: what the live bundle answers them."""

    content: ContentModel
    popular_at_cut: PopularModel
    popular_now: PopularModel
    matrix: sp.csr_matrix
    judged: Judged | None
    unjudged: str
    live: gate.Live


def retrain(
    settings: Settings,
    options: Options,
    console: Console,
    about: Mapping[str, str] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> str:
    """Run the seven steps; returns the version that is live now.

    `about`: further fields of `retrain:last`; `stopped`: asked between steps and between sweeps.

    Raises GateRefused, DatasetError, LeaseTaken, LeaseLost, StoreUnavailable, ArchiveError, Interrupted: whatever is raised, the live
    bundle is as it was.
    """
    import implicit.cpu.als  # noqa: F401 - a library that is loaded later would not obey the limit below

    chosen = als.hyperparameters(settings, options.hyperparameters)
    settings = two_tower_command.tuned(settings, options.hyperparameters)
    if not options.lease and options.events is None:
        raise ConfigurationError(
            "--no-lease works without Redis, which alone knows the users who were deleted from the archive; add --events FILE, or drop it"
        )
    with ExitStack() as stack:
        client = stack.enter_context(connection.connect(settings)) if options.lease else None
        lease = stack.enter_context(Lease(client, retrains.LEASE, settings.training_lease_s)) if client is not None else None
        # One limit around everything: two that overlap in two threads would each put back what the other had set.
        stack.enter_context(threadpoolctl.threadpool_limits(1, "blas"))
        over: list[BaseException] = []  # what has ended this run: the thread beside it goes on for no longer than a sweep
        run = Run(client, lease.holder if lease is not None else "", about, lambda: bool(over) or stopped())
        beside = stack.enter_context(ThreadPoolExecutor(1, "beside"))
        try:
            live = _steps(settings, options, chosen, client, lease, run, console, beside)
        except BaseException as error:
            over.append(error)
            beside.shutdown(cancel_futures=True)  # the last word in Redis is the one below
            stopping = isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
            status = retrains.REFUSED if isinstance(error, GateRefused) else retrains.INTERRUPTED if stopping else retrains.FAILED
            run.tell(status, error=str(error) or type(error).__name__)
            raise
        run.tell(retrains.PUBLISHED, version=live)
        return live


def _steps(
    settings: Settings,
    options: Options,
    chosen: Hyperparameters,
    client: connection.Client | None,
    lease: Lease | None,
    run: Run,
    console: Console,
    beside: Executor,
) -> str:
    registry, seed = Registry(settings.models_path), settings.training_seed

    run.step("snapshot")
    archive = Archive(settings.archive_url)
    positions = archive.positions(settings.interactions_topic) if options.events is None else {}
    entries = items.read(options.items) if options.items is not None else catalogue.changes(client).items if client is not None else []
    deleted = apply.deletions(client).times if client is not None else {}

    run.step("dataset", f"up to {_positions(positions)}" if options.events is None else f"from {options.events}")
    if options.events is None:
        table, skipped = events.from_archive(archive, settings.interactions_topic, positions, settings.dedup_window, deleted)
    else:
        table, skipped = events.from_file(options.events)
    source = without_password(str(options.events or f"{settings.archive_url}/{settings.interactions_topic}"))
    data = dataset.build(table, settings.use_cases, positions, source, skipped)
    del table
    split, unsplit = _split(data, settings)

    run.step("fit", f"{data.events} events, {len(data.users)} users, {len(data.items)} items; {chosen}")
    # One core's work in Python, while the solver holds the others and not Python's lock.
    waiting = beside.submit(_make_beside, data, split, unsplit, entries, registry, options.users, settings, run)
    fitted = fit(data.matrix(split.train if split is not None else None), data, chosen, seed, options.threads, run)
    made = waiting.result()
    two_tower = two_tower_command.fit_before(data, split.train if split is not None else None, entries, settings, options.threads, run)
    refreshed = beside.submit(_refresh, fitted, made.matrix, data, split, chosen, seed, options.threads, run)
    two_tower_refreshed = beside.submit(two_tower_command.refresh, two_tower, data, split, entries, settings, options.threads, run)

    run.step("evaluate")
    evaluation: Evaluation | None = None
    mixed: blend.Chosen | None = None
    if split is not None and made.judged is not None:
        judged_two_tower = two_tower.model if two_tower is not None else None
        candidate = Bundle.of(catalogue=entries, als=fitted, two_tower=judged_two_tower, content=made.content, popular=made.popular_at_cut)
        evaluation, mixed = evaluated(candidate, made.popular_at_cut.scores, made.judged, data, split, settings, console)
    else:
        log.warning("the model was not evaluated", cause=made.unjudged)

    run.step("gate")
    still = made.live.still(registry)
    live = made.live if still else gate.ask_live(registry, entries, made.popular_at_cut, data, split, made.judged, settings)
    verdict = gate.decide(live, evaluation, made.unjudged, settings)
    log.info("gate", **verdict)
    if verdict["decision"] == gate.REFUSED and not options.force:
        raise GateRefused(f"{verdict['cause']}; the live bundle stays. Look at the evaluation above; --force publishes all the same")
    verdict["forced"] = options.force and verdict["decision"] == gate.REFUSED

    run.step("publish")
    fresh, fresh_two_tower = refreshed.result(), two_tower_refreshed.result()
    run.check()
    if lease is not None:
        lease.check()
    judged_als = _without_users(fitted) if split is not None else None

    def write(folder: Path) -> None:
        files.write_json(folder / CATALOGUE, entries)
        made.content.save(folder / "content")
        made.popular_now.save(folder / "popular")
        dataset.save(data, folder / "dataset", matrix=made.matrix, sequences=False)
        fresh.save(folder / "als")
        if two_tower is not None and fresh_two_tower is not None:
            fresh_two_tower.save(folder / "two_tower")
            if split is not None:
                two_tower.model.save(folder / gate.JUDGED_TWO_TOWER)
        blend.save(mixed, folder / "ensemble")
        if judged_als is not None:
            judged_als.save(folder / gate.JUDGED_ALS)
        if evaluation is not None:
            about = {"describes": gate.JUDGED_ALS, "dataset": data.sha256, "two_tower": two_tower.curve if two_tower else []}
            evaluate.save(evaluation, folder / "evaluation", {**about, "blends": mixed.table() if mixed is not None else None})
            report.write(folder / "evaluation", manifest)

    manifest = _manifest(
        settings, options, chosen, data, split, evaluation, made.unjudged, run.seconds, verdict, two_tower.told if two_tower else None
    )
    manifest["settings"]["ensemble"] = mixed.facts() if mixed is not None else None
    published = registry.publish(write, manifest)
    if client is not None:
        retrains.announce(client, published)

    run.step("prune", f"{published} is live")
    registry.prune(settings.keep_bundles)
    return published


def evaluated(
    candidate: Bundle, popularity: Popularity, judged: Judged, data: Dataset, split: Split, settings: Settings, console: Console
) -> tuple[Evaluation, blend.Chosen | None]:
    """The evaluation of `candidate`, with the blend of ALS and Two-Tower that other users have chosen. `popularity`: as of the cut."""
    entries = candidate.catalogue
    mixed = None
    if candidate.two_tower is not None:
        mixed = blend.choose(candidate, entries, popularity, data, split, judged.users, judged.seed, settings)
    if mixed is not None:
        blend.report(mixed, console)
        candidate = replace(candidate, parts={**candidate.parts, "ensemble": mixed.blend})
    evaluation = evaluate.evaluate(candidate, entries, popularity, data, split, judged, settings)
    evaluate.report(evaluation, console)
    return evaluation, mixed


def _split(data: Dataset, settings: Settings) -> tuple[Split | None, str]:
    try:
        return data.split(settings.holdout_fraction), ""
    except DatasetError as error:
        return None, str(error)


def fit(matrix: sp.csr_matrix, data: Dataset, chosen: Hyperparameters, seed: int, threads: int, run: Run | None = None) -> ALSModel:
    """`als.fit` with a bar. Notes in `run` the seconds of the sweeps themselves, without anything of ours, as `als`."""
    ends: list[float] = []
    with progress("fitting ALS", chosen.iterations) as show:

        def swept(sweep: int, _users: Any, _items: Any) -> None:
            ends.append(time.monotonic())
            show.at(sweep, f"sweep {sweep}")
            if run is not None:
                run.progress(f"sweep {sweep} of {chosen.iterations}")

        model = als.fit(matrix, data.users, data.items, chosen, seed, threads=threads, on_sweep=swept)
    if run is not None and len(ends) > 1:
        run.seconds["als"] = round((ends[-1] - ends[0]) * len(ends) / (len(ends) - 1), 3)
    return model


def _make_beside(
    data: Dataset,
    split: Split | None,
    unsplit: str,
    entries: Sequence[Item],
    registry: Registry,
    users: int,
    settings: Settings,
    run: Run,
) -> _Beside:
    """What takes some seconds beside ALS: popularity at the cut and now, the whole matrix, who is judged, how the live bundle answers."""
    now, content = popular(data, settings), ContentModel.fit(entries)
    at_cut = now if split is None else popular(data, settings, split.train)
    judged, unjudged = None, unsplit
    if split is not None:
        try:
            judged = evaluate.judge(data, split, content, settings, users, settings.training_seed)
        except DatasetError as error:
            unjudged = str(error)
    live = gate.ask_live(registry, entries, at_cut, data, split, judged, settings, run.check)
    return _Beside(content, at_cut, now, data.matrix(), judged, unjudged, live)


def _refresh(
    fitted: ALSModel, matrix: sp.csr_matrix, data: Dataset, split: Split | None, chosen: Hyperparameters, seed: int, threads: int, run: Run
) -> ALSModel:
    """`fitted` with REFRESH_SWEEPS sweeps over every event; itself when it has seen them all."""
    if split is None:
        return fitted
    _take_what_is_left()
    began = time.monotonic()
    short = msgspec.structs.replace(chosen, iterations=als.REFRESH_SWEEPS)

    def swept(sweep: int, _users: Any, _items: Any) -> None:
        run.progress(f"refreshing: sweep {sweep} of {als.REFRESH_SWEEPS}")

    fresh = als.fit(matrix, data.users, data.items, short, seed, start=fitted, threads=threads, on_sweep=swept)
    run.seconds["refresh"] = round(time.monotonic() - began, 3)
    return fresh


def _take_what_is_left() -> None:
    """Give the other threads the cores first. This thread, and those that a solver starts from it, would slow the evaluation down, which
    one core must do alone, and wait for it afterwards. Where a priority is a process's, not a thread's, nothing changes."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _manifest(
    settings: Settings,
    options: Options,
    chosen: Hyperparameters,
    data: Dataset,
    split: Split | None,
    evaluation: Evaluation | None,
    unjudged: str,
    seconds: Mapping[str, float],
    verdict: Mapping[str, Any],
    two_tower: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What it takes to make the bundle again, and how good it is."""
    return {
        "positions": {settings.interactions_topic: {str(partition): offset for partition, offset in data.positions.items()}},
        "seeds": {"training": settings.training_seed},
        "settings": {
            "als": msgspec.to_builtins(chosen),
            "two_tower": two_tower,
            "refresh_sweeps": als.REFRESH_SWEEPS if split is not None else 0,
            "hyperparameters_from": str(options.hyperparameters or "settings"),
            "holdout_fraction": settings.holdout_fraction,
            "popularity_half_life_days": settings.popularity_half_life_days,
            "history_cap": settings.history_cap,
            "dedup_window": settings.dedup_window,
            "event_weights": dict(settings.use_cases.event_types),
        },
        "metrics": {
            "dataset": data.summary(),
            "headline": evaluate.headline(evaluation) if evaluation is not None else {},
            "describes": f"nothing: {unjudged}" if evaluation is None else f"the model in {gate.JUDGED_ALS}, fitted before the cut",
            "cut": split.cut if split is not None else None,
            "seconds": dict(seconds),
        },
        "libraries": {name: version(name) for name in (*LIBRARIES, *(("torch",) if two_tower else ()))},
        "gate": dict(verdict),
    }


def _without_users(model: ALSModel) -> ALSModel:
    return ALSModel(
        model.item_ids,
        model.item_factors,
        regularization=model.regularization,
        alpha=model.alpha,
        popularity_discount=model.confidence.discount,
        item_counts=model.confidence.counts,
    )


def _positions(positions: dict[int, int]) -> str:
    return ", ".join(f"{partition}:{offset}" for partition, offset in positions.items()) or "nothing archived"
