"""Command line of `python -m training`: from the archive to a published bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.process import cli, tables
from core.process.cli import load_settings
from core.process.tables import AsJson, Wide
from store.tables.command_line import with_reading_options
from store.tables.options import Options
from training.als_command import fit_als
from training.command_options import (
    EVENTS_READING,
    ITEM_CONTENT_READING,
    Events,
    Folder,
    HyperparametersFile,
    ItemContent,
    Threads,
    Users,
    refuse_torchrun,
    table_file,
)
from training.experiments_command import experiments
from training.export_command import export_data
from training.model_app import models_app
from training.retrain_commands import request, retrain, worker
from training.tuning.options import Part, TuneOptions

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="""
Train models on the archived events, judge them, and publish them as a bundle.

`retrain` runs all steps, by hand or by cron; the other commands run single steps.
Events come from the Parquet archive (ARCHIVE_URL) unless `--events FILE` names a table with the
columns user_id, item_id, event_type and optionally timestamp, value and use_case, or a public data
set, such as MovieLens; the options of an import, such as `--map`, read others: docs/imports.md.
Every setting is an environment variable: `python -m core.settings` lists them.
""",
)
app.callback()(refuse_torchrun)
app.add_typer(models_app, name="models")


@app.command()
@with_reading_options(reading=EVENTS_READING)
def dataset(
    *,
    reading: Options,
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("data/dataset"),
    events: Events = None,
) -> None:
    """Make the training set: interactions (scipy CSR), both id maps, sequences, dataset.json.

    Example: `python -m training dataset --events ratings.parquet --output data/dataset`
    """
    from training import commands

    commands.make_dataset(
        load_settings(), output, table_file(events, reading, EVENTS_READING), tables.console()
    )


app.command("als")(fit_als)


@app.command("two-tower")
@with_reading_options(reading=ITEM_CONTENT_READING)
def two_tower(
    *,
    reading: Options,
    output: Annotated[
        Path, typer.Option(help="Folder to write the model to; TWO_TOWER_MODEL_PATH may name it.")
    ] = Path("data/two_tower"),
    folder: Folder = Path("data/dataset"),
    items: ItemContent = None,
    hyperparameters: HyperparametersFile = None,
    threads: Threads = 0,
) -> None:
    """Train Two-Tower on a whole dataset and write item_vectors.npy, user_tower.npz, the id map,
    the vocabulary and two_tower.json.

    A killed run that is started again resumes after its last epoch. `--items`: the content of
    items, so that new ones have vectors. Nothing is published: try it with
    `TWO_TOWER_MODEL_PATH=data/two_tower python -m api`, or use `retrain`.

    In two processes, which continue after one is killed:
    `torchrun --standalone --nproc-per-node 2 --max-restarts 3 -m training two-tower`, with the same
    options; docs/two-tower-guide.md has more.
    """
    from training.two_tower.command import fit_two_tower

    content = table_file(items, reading, ITEM_CONTENT_READING)
    fit_two_tower(load_settings(), folder, content, hyperparameters, output, threads)


@app.command()
@with_reading_options(reading=ITEM_CONTENT_READING)
def evaluate(
    *,
    reading: Options,
    folder: Folder = Path("data/dataset"),
    items: ItemContent = None,
    hyperparameters: HyperparametersFile = None,
    users: Users = 250,
    threads: Threads = 0,
    output: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json, metrics.csv and report.html.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help=(
                "A column of the table, with its interval, such as map@10; may be repeated "
                "(default: NDCG@10, and others where there is room)."
            )
        ),
    ] = None,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """Fit on the events before the cut and judge each engine, and the routed answers, by the events
    after it.

    Precision, recall, MAP and NDCG at 5, 10 and 20, diversity, coverage and novelty; by segment;
    with 95% intervals. Two-Tower and the ensemble are fitted and judged too, unless
    ENABLE_TWO_TOWER=false or torch is not installed.
    """
    from training import commands

    options = commands.EvaluationOptions(
        folder,
        table_file(items, reading, ITEM_CONTENT_READING),
        hyperparameters,
        users,
        threads,
        output,
        metric or (),
    )
    console = tables.console(wide, quiet=as_json)
    commands.evaluate_dataset(load_settings(), options, console, as_json)


@app.command()
def report(
    model: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="A published version; without it, the live one."),
    ] = None,
    output: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("data/report.html"),
) -> None:
    """Write the evaluation of a published bundle as one page to look at, to mail or to print: a
    table, curves and plots by segment.

    A bundle has the same page within: evaluation/report.html.
    """
    from training import commands

    commands.write_report(load_settings(), model, output)


app.command("retrain")(retrain)
app.command("worker")(worker)
app.command("request")(request)


@app.command()
@with_reading_options(reading=ITEM_CONTENT_READING)
def tune(
    *,
    reading: Options,
    part: Annotated[Part, typer.Argument(help="What to tune.")] = Part.ALL,
    output: Annotated[
        Path,
        typer.Option(
            help="JSON to write, for --hyperparameters; other parts' sections in it stay."
        ),
    ] = Path("data/hyperparameters.json"),
    folder: Folder = Path("data/dataset"),
    items: ItemContent = None,
    minutes: Annotated[
        float, typer.Option(min=0.05, help="Time budget of this run, shared by the parts.")
    ] = 15.0,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Most trials of each search in this run.")
    ] = None,
    negatives: Annotated[
        int,
        typer.Option(
            min=0,
            help="ALS: rank the held-out item among that many samples; 0: the whole catalogue.",
        ),
    ] = 0,
    study: Annotated[
        Path, typer.Option(help="SQLite file of the searches; a further run continues them.")
    ] = Path("data/tune.sqlite"),
    threads: Threads = 0,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """Find hyperparameters of ALS and Two-Tower (TPE), the blend, and whether the router's two
    thresholds suit this data.

    The parts, in this order, each with the results of those before it: `als`, `two-tower`, `blend`,
    `router`. All are judged by NDCG@10 of users' next items, held out from the training events. A
    killed search resumes; a later run with more `--minutes` continues it.

    Example: `python -m training tune --items items.jsonl --minutes 60`, then
    `python -m training retrain --hyperparameters data/hyperparameters.json`
    """
    from training import commands

    options = TuneOptions(study, output, minutes, trials, negatives, threads)
    console = tables.console(wide, quiet=as_json)
    commands.tune(
        load_settings(),
        part,
        folder,
        table_file(items, reading, ITEM_CONTENT_READING),
        options,
        console,
    )
    if as_json and output.exists():
        typer.echo(output.read_text("utf-8"), nl=False)


app.command("experiments")(experiments)
app.command("export")(export_data)

if __name__ == "__main__":
    cli.run(app)
