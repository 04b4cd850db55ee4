"""`python -m streams dlq list | show | replay`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.codec import encode_json
from core.errors import ConfigurationError
from core.settings import Settings
from store.log.dead_letters import DeadLetter
from streams.dead_letters import letters as dlq
from streams.produce import parse_field


def list_(
    settings: Settings, codes: Sequence[str], topic: str | None, limit: int, as_json: bool
) -> None:
    """Counts by topic and code, and the oldest letters that wait for a replay."""
    dead = dlq.read(settings)
    waiting = dead.select(codes, topic)
    console = Console()
    if as_json:
        for letter in waiting:
            console.file.write(encode_json(_plain(letter)).decode() + "\n")
        return
    counts = Counter((letter.topic, letter.code) for letter in waiting)
    console.print(f"{len(waiting):,} dead letters wait, {len(dead.replayed):,} were replayed")
    table = Table("topic", "code", "letters")
    for (source, code), count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        table.add_row(Text(source), Text(code), f"{count:,}")
    if waiting:
        console.print(table)
    rows = Table("place", "time", "code", "bytes", "reason")
    for letter in waiting[:limit]:
        when = (
            datetime.fromtimestamp(letter.broker_time, UTC).isoformat(timespec="seconds")
            if letter.broker_time > 0
            else "-"
        )
        rows.add_row(
            Text(_place(letter)), when, Text(letter.code), f"{letter.size:,}", Text(letter.reason)
        )
    if waiting:
        console.print(rows)
    if len(waiting) > limit:
        console.print(
            f"... and {len(waiting) - limit:,} more; --limit shows them, --json all of them"
        )


def show(settings: Settings, place: str) -> None:
    """One letter whole."""
    letter = dlq.find(settings, dlq.parse_place(place))
    if letter is None:
        raise ConfigurationError(
            f"there is no dead letter {place}; `python -m streams dlq list` shows those that are"
        )
    console = Console()
    for name, value in _plain(letter).items():
        if name != "value":
            console.print(Text(f"{name}: {value}"))
    original = dlq.original(settings, letter) or b""
    console.print(Text(original.decode("utf-8", "backslashreplace")))


def replay(
    settings: Settings,
    places: Sequence[str],
    codes: Sequence[str],
    topic: str | None,
    fixes: Sequence[str],
    edit: Path | None,
    dry_run: bool,
) -> None:
    """Send letters again, mended, and say what came of it."""
    dead = dlq.read(settings)
    edits = _edits(edit)
    wanted = [dlq.parse_place(place) for place in places] or list(edits)
    for place in wanted:
        if place not in dead.letters:
            raise ConfigurationError(
                f"there is no dead letter {':'.join(map(str, place))}; `python -m streams "
                f"dlq list` shows those that are"
            )
    letters = dead.select(codes, topic, wanted)
    counts = dlq.replay(settings, letters, _fix(fixes), edits, dry_run)
    table = Table("outcome", "letters")
    for outcome, count in counts.most_common():
        table.add_row(
            "would be replayed" if dry_run and outcome == "replayed" else outcome, f"{count:,}"
        )
    before = sum(place in dead.replayed for place in (wanted or dead.letters))
    table.add_row("were replayed before", f"{before:,}")
    Console().print(table)


def _fix(texts: Sequence[str]) -> dict[str, Any]:
    fix: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {text!r} is not of the form field=value")
        fix[name] = parse_field(name, value)
    return fix


def _edits(path: Path | None) -> dict[dlq.Coordinates, bytes]:
    if path is None:
        return {}
    try:
        return dlq.read_edits(path.read_bytes().splitlines())
    except OSError as error:
        raise ConfigurationError(f"--edit {path}: {error.strerror}") from None


def _place(letter: DeadLetter) -> str:
    return f"{letter.topic}:{letter.partition}:{letter.offset}"


def _plain(letter: DeadLetter) -> dict[str, Any]:
    fields: dict[str, Any] = {"place": _place(letter)}
    for name, value in msgspec.structs.asdict(letter).items():
        if name not in ("topic", "partition", "offset"):
            fields[name] = (
                value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
            )
    return fields
