"""`python -m api`: serve over HTTP at API_HOST:API_PORT."""

from __future__ import annotations

import os

# before numpy: a read's products are small, and threads would only wait for each other
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import typer

from core.process import cli

app = typer.Typer(add_completion=False)


@app.command()
def serve() -> None:
    """Serve recommendations, events and health over HTTP until SIGTERM or Ctrl-C.

    Everything is set by environment variables.
    """
    from api.server import process as server
    from core import settings
    from core.process import logs

    chosen = settings.load()
    logs.configure(chosen.log_level)
    server.serve(chosen)


if __name__ == "__main__":
    cli.run(app)
