"""Measures every engine by group of users on a split by time: `python -m benchmarks.headline`.

It adds its rows to results/quality.json. Everything is fitted on the first 80% of the events: ALS
with hyperparameters that `python -m training tune als` found within them (--tune MINUTES searches
again), Two-Tower with those of headline_fits, content, and what was popular by then. The new
interactions after it judge the lists; every list comes from the recommender that serves
(training/evaluation/evaluate.py), and users fold in as when serving.

    cold, warm, hot   users with events before the cut, by their number: 1-4, 5-19, 20 and more.
                      Half of them, another half with each seed, are judged; the other half chooses
                      the blend of `ensemble` (training/blend/grid.py)
    new users         users whose first event is after the cut: read when they had 1, 2, 3 and 4
                      events, the mean of the four; `before any event`, where users declare
                      interests
    new items         items without an event before the cut, read when 90% of the events had
                      happened, with everything that serving knows by then but the old models:
                      histories of users, the catalogue, what is popular. Recall@10 of new items
                      alone, and the share of places that new items get

Each fit runs in a process of its own, which reports its processor time and its peak memory. `--keep
FOLDER` stores the models, so that another run only judges.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.ranking import headline_worlds, quality
from benchmarks.ranking.headline_fits import Costs, fit, tune
from benchmarks.ranking.headline_judge import SHOWN, Means, judge
from benchmarks.ranking.headline_worlds import World
from core.process import logs
from models.als import ALSModel
from models.two_tower import TwoTowerModel
from training.evaluation.evaluate import SEGMENTS

PROTOCOL = "by time, fitted on the first 80%"
SINGLE = ("popular", "content_based", "als", "two_tower")


Run = tuple[Means, dict[str, int], Costs]
"""Of one seed: every mean, the number of users by group, what the fit took."""


def run(world: World, seed: int, keep: Path, threads: int) -> Run:
    """Judge the models of a seed: those in `keep`, or those of a process that fits them there."""
    folder = keep / world.name / str(seed)
    if not (folder / "costs.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "benchmarks.headline",
            "--dataset",
            world.name,
            "--keep",
            str(keep),
        ]
        subprocess.run(
            [*command, "--fit", str(seed), "--threads", str(threads)], cwd=quality.ROOT, check=True
        )
    costs = msgspec.json.decode((folder / "costs.json").read_bytes(), type=Costs)
    return *judge(
        world, ALSModel.load(folder / "als"), TwoTowerModel.load(folder / "two_tower"), seed
    ), costs


def rows(world: str, runs: Sequence[Run], seeds: Sequence[int], command: str) -> list[quality.Row]:
    """What goes into quality.json: the mean of the seeds."""

    def row(
        group: str, engine: str, metric: str, values: Sequence[float], digits: int = 4
    ) -> quality.Row:
        return quality.Row(
            world,
            f"{PROTOCOL}: {group}",
            engine,
            metric,
            round(float(np.mean(values)), digits),
            list(seeds),
            command,
        )

    every = [means for means, _, _ in runs]
    keys = [key for key in every[0] if all(key in means for means in every)]
    rows = [
        row(group, engine, _title(metric), [means[group, engine, metric] for means in every])
        for group, engine, metric in keys
    ]
    for group in runs[0][1]:
        rows.append(row(group, "", "users", [users[group] for _, users, _ in runs], 1))
        alone = {
            name: np.mean([means[group, name, "ndcg@10"] for means in every])
            for name in SINGLE
            if (group, name, "ndcg@10") in keys
        }
        if group in SEGMENTS:
            best = max(alone, key=lambda name: alone[name])
            if not all(means[group, best, "ndcg@10"] for means in every):
                print(f"{world}, {group}: {best}, the best single model, has no hit by some seed")
                continue
            ratios = [
                means[group, "ensemble", "ndcg@10"] / means[group, best, "ndcg@10"]
                for means in every
            ]
            print(
                f"{world}, {group}: ensemble / {best}, its best single model: "
                f"{', '.join(f'{ratio:.3f}' for ratio in ratios)} by seed"
            )
            rows.append(row(group, "ensemble / best single model", "ratio of NDCG@10", ratios, 3))
    for engine, metric, field in (
        ("als", "processor s", "als_cpu_s"),
        ("two_tower", "processor s", "two_tower_cpu_s"),
        ("als, then two_tower", "peak MB", "peak_mb"),
    ):
        rows.append(
            row("training", engine, metric, [getattr(costs, field) for _, _, costs in runs], 1)
        )
    return rows


def _title(metric: str) -> str:
    return (
        metric.replace("ndcg", "NDCG").replace("recall", "Recall").replace("precision", "Precision")
    )


def report(measured: Sequence[quality.Row]) -> None:
    """The table of the documentation: engines by groups of users, each cell the metrics SHOWN; then
    the rest of the rows as lines.
    """
    cells: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for row in measured:
        cells[row.engine, row.protocol.removeprefix(f"{PROTOCOL}: ")][row.metric] = row.mean
    shown = [_title(metric) for metric in SHOWN]
    whole = {
        key: "/".join(_short(means.get(name)) for name in shown)
        for key, means in cells.items()
        if shown[0] in means
    }
    groups = list(dict.fromkeys(group for _, group in whole))
    print(
        f"\n{measured[0].dataset}: {' / '.join(shown)}\n\n| | {' | '.join(groups)} "
        f"|\n|{'---|' * (len(groups) + 1)}"
    )
    for engine in dict.fromkeys(engine for engine, _ in whole):
        print(f"| {engine} | {' | '.join(whole.get((engine, group), '') for group in groups)} |")
    print()
    for (engine, group), means in cells.items():
        if (engine, group) not in whole:
            print(
                f"{group}, {engine}: "
                f"{', '.join(f'{name} {value:g}' for name, value in means.items())}"
            )


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}".removeprefix("0")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset",
        choices=headline_worlds.WORLDS,
        action="append",
        help="only this one; may come twice",
    )
    parser.add_argument(
        "--seeds", default=",".join(map(str, quality.SEEDS)), help="comma-separated"
    )
    parser.add_argument("--threads", type=int, default=0, help="of the fits; 0: one a core")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="where models are kept, and taken from"
    )
    parser.add_argument(
        "--tune", type=float, metavar="MINUTES", help="search ALS hyperparameters first"
    )
    parser.add_argument(
        "--fit",
        type=int,
        metavar="SEED",
        help="only fit, into --keep: what this command runs in processes of their own",
    )
    arguments = parser.parse_args()
    logs.configure("warning")
    folder = quality.data_folder()
    for name in arguments.dataset or headline_worlds.WORLDS:
        if folder is None and name != "simulator":
            print(
                f"{name} is skipped: EDDYLINE_DATA names no folder (default ../shared/data)",
                file=sys.stderr,
            )
            continue
        world = headline_worlds.load(name, folder or Path())
        if arguments.fit is not None:
            fit(world, arguments.fit, arguments.threads, arguments.keep / name / str(arguments.fit))
            continue
        if arguments.tune:
            tune(world, arguments.tune, arguments.threads)
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
        with tempfile.TemporaryDirectory() as temporary:
            keep = arguments.keep or Path(temporary)
            runs = [run(world, seed, keep, arguments.threads) for seed in seeds]
        command = f"python -m benchmarks.headline --dataset {name} --seeds {arguments.seeds}"
        command += f" --threads {arguments.threads}" if arguments.threads else ""
        means = rows(name, runs, seeds, command)
        quality.record(means)
        report(means)


if __name__ == "__main__":
    main()
