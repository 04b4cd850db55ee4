"""Serves the API over HTTP at API_HOST:API_PORT: `python -m api`."""

from __future__ import annotations

import os

# before numpy is imported: the products of a read are too small for several threads
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import typer

from core.process import cli

app = typer.Typer(add_completion=False)


@app.command()
def serve() -> None:
    """Serve recommendations, events and health over HTTP until SIGTERM or Ctrl-C.

    Environment variables set everything (docs/settings.md).
    """
    from api.server import process as server

    server.serve(cli.load_settings(service=True))


if __name__ == "__main__":
    cli.run(app)
