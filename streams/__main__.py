"""Runs `python -m streams`: the commands that read or write Kafka."""

from __future__ import annotations

import typer

from core.process import cli
from streams.commands import archive, dead_letters, inspection, processes, sending

app = typer.Typer(
    name="python -m streams",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Bring events, items and users into Kafka, and from Kafka into Redis and the archive.",
)

app.command("topics")(processes.topics)
app.command("ingest")(processes.ingest)
app.command("live")(processes.live)
app.command("rebuild")(processes.rebuild)
app.add_typer(archive.app, name="archive")
app.command("expire")(processes.expire)
app.command("simulate")(sending.simulate)
app.command("import")(sending.import_)
app.command("produce")(sending.produce)
app.add_typer(dead_letters.app, name="dlq")
app.add_typer(inspection.app, name="inspect")

if __name__ == "__main__":
    cli.run(app)
