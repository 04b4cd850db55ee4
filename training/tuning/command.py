"""`python -m training tune`: everything that data should choose, under one time budget, in one file.

    als        factors, regularization, alpha, popularity discount, iterations     training.tune_als
    two-tower  dimension, layers, dropout, id dropout, learning rate               training.tune_two_tower
    blend      the ensemble's weights and fusion, as every retrain chooses them    training.tune_served
    router     COLD_START_THRESHOLD and WARM_USER_THRESHOLD                        training.tune_router

The file is `--hyperparameters` of the other commands. A part that is tuned replaces its own section and leaves the others, and each part
goes by the sections that are there: so parts may be tuned one by one, in this order. Both searches go on where they stood.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from core.errors import ConfigurationError
from core.settings import Settings
from core.types import Item
from training import als
from training.data.dataset import Dataset
from training.tuning import als as tune_als
from training.tuning import served as tune_served
from training.two_tower import command as two_tower_command


class Part(StrEnum):
    """What can be tuned."""

    ALL = "all"
    ALS = "als"
    TWO_TOWER = "two-tower"
    BLEND = "blend"
    ROUTER = "router"


SHARES = {Part.ALS: 2.0, Part.TWO_TOWER: 5.0, Part.BLEND: 3.0, Part.ROUTER: 3.0}
"""How `all` shares its time. Blend and router need one fit of both models, and share it."""


def tune(
    part: Part,
    dataset: Dataset,
    entries: Sequence[Item],
    settings: Settings,
    *,
    minutes: float,
    trials: int | None,
    negatives: int,
    study: Path,
    output: Path,
    threads: int,
    console: Console,
) -> None:
    """Tune `part` for about `minutes`, and at most `trials` more trials of each search; tell, and write `output` after each part.

    `entries`: the catalogue. `negatives`: see tune_als.search. `study`: the SQLite file of the searches. Raises DatasetError when there is
    nothing to judge by, ConfigurationError when Two-Tower is asked for and cannot be had.
    """
    cause = two_tower_command.unavailable(settings)
    if part is Part.TWO_TOWER and cause is not None:
        raise ConfigurationError(f"Two-Tower cannot be tuned: {cause}")
    wanted = [each for each in SHARES if part in (each, Part.ALL) and not (each is Part.TWO_TOWER and cause)]
    if part is Part.ALL and cause is not None:
        console.print(f"Two-Tower is left out: {cause}.")
    asking = [each for each in (Part.BLEND, Part.ROUTER) if each in wanted]
    steps = [each for each in wanted if each not in asking[1:]]
    deadline = time.monotonic() + 60.0 * minutes

    def run(step: Part, left: float) -> Mapping[str, Mapping[str, Any]]:
        if step is Part.ALS:
            found = tune_als.search(
                dataset,
                settings,
                minutes=left,
                trials=trials,
                study_path=study,
                negatives=negatives,
                seed=settings.training_seed,
                threads=threads,
            )
            tune_als.report(found, console)
            return {step: found}
        if step is Part.TWO_TOWER:
            from training.tuning import two_tower as tune_two_tower

            found = tune_two_tower.search(dataset, entries, settings, minutes=left, trials=trials, study_path=study, threads=threads)
            tune_two_tower.report(found, console)
            return {step: found}
        known = output if output.exists() else None
        return tune_served.choose(
            dataset,
            entries,
            two_tower_command.tuned(settings, known),
            als.hyperparameters(settings, known),
            asking,
            minutes=left,
            checkpoints=study.with_name(f"{study.stem}-served"),
            console=console,
            threads=threads,
        )

    for place, step in enumerate(steps):
        share = SHARES[step] / sum(SHARES[each] for each in steps[place:])
        for name, found in run(step, max(deadline - time.monotonic(), 0.0) / 60.0 * share).items():
            add(output, name, found)


def add(path: Path, part: str, found: Mapping[str, Any]) -> None:
    """Put a part's section, and under `tuned` what is told about it, into the file at `path`; replaced whole."""
    try:
        before = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Any]])
    except FileNotFoundError:
        before = {}
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigurationError(f"{path} is there and is no file of `tune` ({error}); move it away or name another --output") from None
    told = {**before.pop("tuned", {}), part: found["tuned"]}
    sections = {name: value for name, value in found.items() if name != "tuned"}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps({**before, **sections, "tuned": told}, indent=2) + "\n", "utf-8")
    unfinished.replace(path)
