"""Runs `python -m training tune`.

It tunes the parts below under one time budget and writes the results into one file.

    als        factors, regularization, alpha, popularity discount, iterations   tuning/als.py
    two-tower  dimension, layers, dropout, id dropout, learning rate             tuning/two_tower.py
    blend      the ensemble's weights and method, as every retrain chooses them  tuning/served.py
    router     COLD_START_THRESHOLD and WARM_USER_THRESHOLD                      tuning/router.py

Other commands read the file with `--hyperparameters`. A part replaces its own section and leaves
the others, and it uses the sections that are in the file: so parts can be tuned one by one, in this
order. Both searches resume where they stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from core.contract import problems
from core.errors import ConfigurationError
from core.settings import Settings
from core.types import Item
from training.data.dataset import Dataset
from training.tuning import als as tune_als
from training.tuning import served as tune_served
from training.tuning.options import Part, TuneOptions
from training.two_tower import command as two_tower_command

SHARES = {Part.ALS: 2.0, Part.TWO_TOWER: 5.0, Part.BLEND: 3.0, Part.ROUTER: 3.0}
"""How `all` divides its time. Blend and router use one fit of both models, so they are one step."""


def tune(
    part: Part,
    dataset: Dataset,
    entries: Sequence[Item],
    settings: Settings,
    options: TuneOptions,
    console: Console,
) -> None:
    """Tune `part` within `options.minutes`, and print the results.

    `options.output` is written after each part. `entries`: the catalogue.

    Raises DatasetError when there is nothing to judge by, ConfigurationError when `part` is
    Two-Tower and it cannot be trained here.
    """
    cause = two_tower_command.unavailable(settings)
    if part is Part.TWO_TOWER and cause is not None:
        raise ConfigurationError(f"Two-Tower cannot be tuned: {cause}")
    parts = [
        name
        for name in SHARES
        if part in (name, Part.ALL) and not (name is Part.TWO_TOWER and cause)
    ]
    if part is Part.ALL and cause is not None:
        console.print(f"Two-Tower is skipped: {cause}.")
    served_parts = [name for name in (Part.BLEND, Part.ROUTER) if name in parts]
    steps = [name for name in parts if name not in served_parts[1:]]
    deadline = time.monotonic() + 60.0 * options.minutes

    def run(step: Part, minutes: float) -> Mapping[str, Mapping[str, Any]]:
        step_options = replace(options, minutes=minutes)
        if step is Part.ALS:
            sections = tune_als.search(dataset, settings, step_options)
            tune_als.report(sections, console)
            return {step: sections}
        if step is Part.TWO_TOWER:
            from training.tuning import two_tower as tune_two_tower

            sections = tune_two_tower.search(dataset, entries, settings, step_options)
            tune_two_tower.report(sections, console)
            return {step: sections}
        return tune_served.choose(dataset, entries, settings, served_parts, step_options, console)

    for place, step in enumerate(steps):
        share = SHARES[step] / sum(SHARES[name] for name in steps[place:])
        remaining_minutes = max(deadline - time.monotonic(), 0.0) / 60.0
        for name, sections in run(step, remaining_minutes * share).items():
            add(options.output, name, sections)


def add(path: Path, part: str, sections: Mapping[str, Any]) -> None:
    """Write the sections of `part` into the file at `path`, replacing the file as a whole.

    The sections of other parts stay.

    The facts about the search in `sections["tuned"]` go to the section `tuned` under the name of
    the part. Raises ConfigurationError when the file is not one of `tune`.
    """
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Any]])
    except FileNotFoundError:
        stored = {}
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigurationError(
            f"{path} exists and is no file of `tune` ({problems.in_words(error, noun='file')}); "
            f"move it away or name "
            f"another --output"
        ) from None
    tuned = {**stored.pop("tuned", {}), part: sections["tuned"]}
    updated = {name: value for name, value in sections.items() if name != "tuned"}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(
        json.dumps({**stored, **updated, "tuned": tuned}, indent=2) + "\n", "utf-8"
    )
    unfinished.replace(path)
