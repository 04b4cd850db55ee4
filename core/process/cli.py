"""Runs a command line, loads its settings, reports its errors, and serves its metrics."""

from __future__ import annotations

import inspect
import os
import re
import sys
import threading
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from core.errors import ConfigurationError, EddylineError
from core.redaction import redact

if TYPE_CHECKING:  # pydantic takes longer to import than --help may take
    from core.settings import Settings
    from core.settings.logs import LogSettings

INTERRUPTED, BROKEN_PIPE = 130, 141
"""Exit statuses by the convention of shells: 128 and the number of SIGINT or SIGPIPE."""


def run(app: typer.Typer, program: str | None = None) -> None:
    """Run `app` and exit. `program`: its name in the help; by default, as it was called.

    An EddylineError is one line on stderr and its own exit status, 1 unless it says otherwise;
    Ctrl-C is exit status 130; a reader of the output that goes away is, quietly, 141; any other
    exception is a traceback with secrets masked and exit status 1.
    """
    threading.excepthook = _print_traceback
    try:
        command_of(app)(prog_name=program)
    except SystemExit as end:
        # typer and rich end the process with 1 when a write fails
        sys.exit(BROKEN_PIPE if isinstance(end.__context__, BrokenPipeError) else _flushed(end))
    except EddylineError as error:
        typer.secho(f"error: {redact(str(error))}", fg=typer.colors.RED, err=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception:  # noqa: BLE001 - the text of any exception may contain a secret
        sys.stderr.write(redact(traceback.format_exc()))
        sys.exit(1)


def _flushed(end: SystemExit) -> Any:
    """The exit status, or BROKEN_PIPE when the last lines of the output cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it is flushed once more
        return BROKEN_PIPE
    return end.code


def load_settings(service: bool = False) -> Settings:
    """The settings of the environment; they configure the log.

    `service`: of a process that runs until it is stopped: unless on a terminal, its log is JSON
    lines. A command's log is text, beside its results. LOG_FORMAT overrules both.

    Raises ConfigurationError.
    """
    from core import settings
    from core.process import logs

    loaded = settings.load()
    form = loaded.log_format
    text = sys.stderr.isatty() or not service if form == "auto" else form == "text"
    logs.configure(loaded.log_level, text)
    return loaded


def command_of(app: typer.Typer) -> Any:
    """The command of `app`, whose help has whole paragraphs and names types in words."""
    command: Any = typer.main.get_command(app)
    commands = [command]
    while commands:
        current = commands.pop()
        commands += getattr(current, "commands", {}).values()
        paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(current.help or ""))
        current.help = "\n\n".join(" ".join(text.split()) for text in paragraphs)
        for param in [*current.params, current.get_help_option(typer.Context(current))]:
            param.display_type_rich = partial(_type_in_words, param)
    return command


_WORDS = {"bool": "", "str": "text", "int range": "int", "float range": "float"}


def _type_in_words(param: Any, ctx: Any) -> str:
    """`text...` instead of `<list[str]>`, and nothing for a flag."""
    label = str(param.metavar or param.display_type(ctx)).strip("<>")
    repeated = label.startswith("list[")
    label = label.removeprefix("list[").removesuffix("]") if repeated else label
    return _WORDS.get(label, label) + ("..." if repeated else "")


def _print_traceback(failure: threading.ExceptHookArgs) -> None:
    """Print the traceback of a thread that ends with an exception."""
    thread = failure.thread.name if failure.thread else "?"
    lines = traceback.format_exception(failure.exc_type, failure.exc_value, failure.exc_traceback)
    sys.stderr.write(redact(f"Exception in thread {thread}:\n{''.join(lines)}"))


def serve_metrics(settings: LogSettings) -> None:
    """Serve /metrics at METRICS_HOST:METRICS_PORT, unless the port is 0.

    Raises ConfigurationError when the port is in use.
    """
    if settings.metrics_port:
        import prometheus_client

        try:
            prometheus_client.start_http_server(settings.metrics_port, addr=settings.metrics_host)
        except OSError as error:
            text = (
                f"METRICS_PORT={settings.metrics_port} cannot be served: {error.strerror}; give "
                f"each process a port of its own"
            )
            raise ConfigurationError(text) from None
