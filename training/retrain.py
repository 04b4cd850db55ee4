"""One retrain, from the archive to a live bundle:

    1. snapshot   how far the archive reaches is W; the catalogue and the deletions as they stand
    2. dataset    id maps, weighted matrix, sequences, split by time, from the events below W
    3. fit        ALS on the events before the cut; content on the catalogue
    4. evaluate   by engine and by segment, through the recommender that serves, on the events after the cut
    5. gate       the live bundle on the same users: a new one that is worse by more than GATE_MARGIN, and not by chance, is refused
    6. publish    two more sweeps of ALS over every event; the bundle is written, sealed and renamed; then the pointer
    7. prune      bundles beyond KEEP_BUNDLES go, never the live one

One runs at a time, across machines, by a lease in Redis. Killed anywhere, it leaves the old bundle or the new one live, never half of
one; its lease ends by itself and the next retrain starts anew. Which model do the metrics describe? The one of step 3, which has not
seen what it is judged by. It is kept in the bundle (evaluation/als) so that the next gate compares two models of the same kind: neither
has seen the events it is judged by. What goes live is the same model with REFRESH_SWEEPS more sweeps, now over every event
(docs/adr/one-fit-and-a-refresh.md).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import structlog
import typer
from rich.console import Console

from core.errors import ConfigurationError, DatasetError, EddylineError, GateRefused
from core.settings import Settings
from core.types import Item
from models import files
from models.als import ALSModel
from models.bundle import CATALOGUE, Bundle
from models.content import ContentModel
from models.popular import PopularModel
from models.registry import Registry
from store import apply, catalogue, connection, retrains
from store.archive import Archive
from store.lease import Lease
from training import als, dataset, evaluate, events, gate, items
from training.als import Hyperparameters
from training.dataset import Dataset
from training.evaluate import Evaluation
from training.popularity import popular
from training.progress import progress

STEPS = ("snapshot", "dataset", "fit", "evaluate", "gate", "publish", "prune")
LIBRARIES = ("implicit", "numpy", "scipy", "scikit-learn", "pyarrow")

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


class _Run:
    """Where a retrain stands: a line a step for people, the same in Redis for everybody else, seconds for the manifest."""

    def __init__(self, client: connection.Client | None, holder: str) -> None:
        self._client, self._holder = client, holder
        self._started, self._began = datetime.now(UTC), time.monotonic()
        self.seconds: dict[str, float] = {}
        self._step, self._since = "", time.monotonic()

    def step(self, name: str, text: str = "") -> None:
        self._stop_clock()
        self._step, self._since = name, time.monotonic()
        self.tell("running")
        typer.echo(f"{STEPS.index(name) + 1}/{len(STEPS)} {name} {text}".rstrip(), err=True)

    def tell(self, status: str, **more: str) -> None:
        self._stop_clock()
        if self._client is not None:
            retrains.record(
                self._client,
                {
                    "status": status,
                    "step": self._step,
                    "started": self._started.isoformat(timespec="seconds"),
                    "holder": self._holder,
                    "at": datetime.now(UTC).isoformat(timespec="seconds"),
                    "seconds": f"{time.monotonic() - self._began:.3f}",
                    **more,
                },
            )

    def _stop_clock(self) -> None:
        if self._step:
            self.seconds[self._step] = round(time.monotonic() - self._since, 3)


def retrain(settings: Settings, options: Options, console: Console) -> str:
    """Run the seven steps; returns the version that is live now.

    Raises GateRefused, DatasetError, LeaseTaken, StoreUnavailable, ArchiveError: whatever is raised, the live bundle is as it was.
    """
    chosen = als.hyperparameters(settings, options.hyperparameters)
    if not options.lease and options.events is None:
        raise ConfigurationError(
            "--no-lease works without Redis, which alone knows the users who were deleted from the archive; add --events FILE, or drop it"
        )
    with ExitStack() as stack:
        client = stack.enter_context(connection.connect(settings)) if options.lease else None
        lease = stack.enter_context(Lease(client, retrains.LEASE, settings.training_lease_s)) if client is not None else None
        beside = stack.enter_context(ThreadPoolExecutor(1, "beside"))
        run = _Run(client, lease.holder if lease is not None else "")
        try:
            live = _steps(settings, options, chosen, client, lease, run, console, beside)
        except EddylineError as error:
            run.tell("refused" if isinstance(error, GateRefused) else "failed", error=str(error))
            raise
        run.tell("published", version=live)
        return live


def _steps(
    settings: Settings,
    options: Options,
    chosen: Hyperparameters,
    client: connection.Client | None,
    lease: Lease | None,
    run: _Run,
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
    source = str(options.events or f"{settings.archive_url}/{settings.interactions_topic}")
    data = dataset.build(table, settings.use_cases, positions, source, skipped)
    del table
    split, unjudged = _split(data, settings)

    run.step("fit", f"{data.events} events, {len(data.users)} users, {len(data.items)} items; {chosen}")
    # One core's work in Python, while the solver holds the others and not Python's lock.
    others = beside.submit(_fit_others, data, split, entries, settings)
    fitted = fit(data.matrix(split.train if split is not None else None), data, chosen, seed, options.threads, clock=run.seconds)
    content, at_cut, popular_now = others.result()

    run.step("evaluate")
    evaluation: Evaluation | None = None
    if split is not None:
        try:
            judged = evaluate.judge(data, split, content, settings, options.users, seed)
        except DatasetError as error:
            unjudged = str(error)
        else:
            candidate = Bundle.of(catalogue=entries, als=fitted, content=content, popular=at_cut)
            evaluation = evaluate.evaluate(candidate, entries, at_cut.scores, data, split, judged, settings)
            evaluate.report(evaluation, console)
    if evaluation is None:
        log.warning("the model was not evaluated", cause=unjudged)

    run.step("gate")
    verdict = gate.decide(registry, evaluation, unjudged, entries, at_cut, data, settings)
    log.info("gate", **verdict)
    if verdict["decision"] == gate.REFUSED and not options.force:
        raise GateRefused(f"{verdict['cause']}; the live bundle stays. Look at the evaluation above; --force publishes all the same")
    verdict["forced"] = options.force and verdict["decision"] == gate.REFUSED

    run.step("publish")
    refresh = msgspec.structs.replace(chosen, iterations=als.REFRESH_SWEEPS)
    everything = data.matrix()
    fresh = fitted if split is None else fit(everything, data, refresh, seed, options.threads, start=fitted, clock=run.seconds)
    manifest = {
        "positions": {settings.interactions_topic: {str(partition): offset for partition, offset in positions.items()}},
        "seeds": {"training": seed},
        "settings": {
            "als": msgspec.to_builtins(chosen),
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
            "seconds": run.seconds,
        },
        "libraries": {name: version(name) for name in LIBRARIES},
        "gate": verdict,
    }
    if lease is not None:
        lease.check()
    judged_als = _without_users(fitted) if split is not None else None

    def write(folder: Path) -> None:
        files.write_json(folder / CATALOGUE, entries)
        content.save(folder / "content")
        popular_now.save(folder / "popular")
        dataset.save(data, folder / "dataset", matrix=everything, sequences=False)
        fresh.save(folder / "als")
        if judged_als is not None:
            judged_als.save(folder / gate.JUDGED_ALS)
        if evaluation is not None:
            evaluate.save(evaluation, folder / "evaluation", {"describes": gate.JUDGED_ALS, "dataset": data.sha256})

    live = registry.publish(write, manifest)
    if client is not None:
        retrains.announce(client, live)

    run.step("prune", f"{live} is live")
    registry.prune(settings.keep_bundles)
    return live


def _split(data: Dataset, settings: Settings) -> tuple[dataset.Split | None, str]:
    try:
        return data.split(settings.holdout_fraction), ""
    except DatasetError as error:
        return None, str(error)


def fit(
    matrix: Any,
    data: Dataset,
    chosen: Hyperparameters,
    seed: int,
    threads: int,
    start: ALSModel | None = None,
    clock: dict[str, float] | None = None,
) -> ALSModel:
    """`als.fit` with a bar. Adds the seconds of the sweeps themselves, without anything of ours, to `clock["als"]`."""
    ends: list[float] = []
    with progress("refreshing ALS" if start is not None else "fitting ALS", chosen.iterations) as show:

        def swept(sweep: int, _users: Any, _items: Any) -> None:
            ends.append(time.monotonic())
            show.at(sweep, f"sweep {sweep}")

        model = als.fit(matrix, data.users, data.items, chosen, seed, start=start, threads=threads, on_sweep=swept)
    if clock is not None and len(ends) > 1:
        clock["als"] = round(clock.get("als", 0.0) + (ends[-1] - ends[0]) * len(ends) / (len(ends) - 1), 3)
    return model


def _fit_others(
    data: Dataset, split: dataset.Split | None, entries: Sequence[Item], settings: Settings
) -> tuple[ContentModel, PopularModel, PopularModel]:
    """What takes a second beside ALS: content, what was popular at the cut, and what is now."""
    now = popular(data, settings)
    return ContentModel.fit(entries), now if split is None else popular(data, settings, split.train), now


def _without_users(model: ALSModel) -> ALSModel:
    return ALSModel(model.item_ids, model.item_factors, regularization=model.regularization, alpha=model.alpha)


def _positions(positions: dict[int, int]) -> str:
    return ", ".join(f"{partition}:{offset}" for partition, offset in positions.items()) or "nothing archived"
