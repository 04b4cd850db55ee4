"""Runs a command line, reports its errors, and serves its metrics."""

from __future__ import annotations

import sys
import threading
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from core.errors import ConfigurationError, EddylineError
from core.redaction import redact

if TYPE_CHECKING:  # pydantic takes longer to import than --help may take
    from core.settings.logs import LogSettings


def run(app: typer.Typer, program: str | None = None) -> None:
    """Run `app` and exit. `program`: its name in the help; by default, as it was called.

    An EddylineError is one line on stderr and its own exit status, 1 unless it says otherwise;
    Ctrl-C is exit status 130; any other exception is a traceback with secrets masked and exit
    status 1.
    """
    threading.excepthook = _print_traceback
    try:
        command_of(app)(prog_name=program)
    except EddylineError as error:
        typer.secho(f"error: {redact(str(error))}", fg=typer.colors.RED, err=True)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # noqa: BLE001 - the text of any exception may contain a secret
        sys.stderr.write(redact(traceback.format_exc()))
        sys.exit(1)


def command_of(app: typer.Typer) -> Any:
    """The command of `app`, whose help names the types of options and arguments in words."""
    command: Any = typer.main.get_command(app)
    commands = [command]
    while commands:
        current = commands.pop()
        commands += getattr(current, "commands", {}).values()
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
