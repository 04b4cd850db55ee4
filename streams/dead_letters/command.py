"""The commands `python -m streams dlq list | show | replay`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from core.codec import encode_json
from core.contract.times import TimeUnit, is_plausible
from core.errors import ConfigurationError
from core.process import tables
from core.process.tables import Column, Table
from core.settings import Settings
from store.dead_letters import letters as dlq
from store.dead_letters.corrections import CASTS, Corrections
from store.dead_letters.letters import Coordinates, Selection
from store.log.dead_letters import DeadLetter
from streams.dead_letters.replay import Sending, read_edits
from streams.dead_letters.replay import replay as replay_letters
from streams.produce import parse_field


def list_(
    settings: Settings, selection: Selection, limit: int, as_json: bool, wide: bool = False
) -> None:
    """Print counts by topic and code, and the oldest letters that are not replayed yet."""
    letters = dlq.read(settings)
    waiting = letters.select(selection)
    if as_json:
        for letter in waiting:
            print(encode_json(_plain(letter)).decode())
        return
    console = tables.console(wide)
    console.print(f"{len(waiting):,} dead letters wait, {len(letters.replayed):,} were replayed")
    if not waiting:
        return
    console.print()
    counts = Counter((letter.topic, letter.code) for letter in waiting)
    by_code = Table(Column("topic"), Column("code"), Column("letters", number=True))
    for (source, code), count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        by_code.add(source, code, f"{count:,}")
    by_code.show(console)
    console.print()
    rows = Table(
        Column("place"),
        Column("time", 1),
        Column("code"),
        Column("bytes", 2, number=True),
        Column("reason", wraps=True),
    )
    for letter in waiting[:limit]:
        when = (
            datetime.fromtimestamp(letter.broker_time, UTC).isoformat(timespec="seconds")
            if is_plausible(letter.broker_time)
            else None
        )
        place = dlq.format_place(letter.coordinates)
        rows.add(place, when, letter.code, f"{letter.size:,}", letter.reason)
    rows.show(console)
    if len(waiting) > limit:
        console.print(
            f"... and {len(waiting) - limit:,} more; --limit shows them, --json all of them"
        )


def show(settings: Settings, place: str, as_json: bool = False) -> None:
    """Print one letter with its whole message."""
    letter = dlq.find(settings, dlq.parse_place(place))
    if letter is None:
        raise _no_letter(place)
    original = (dlq.original(settings, letter) or b"").decode("utf-8", "backslashreplace")
    fields = {**_plain(letter), "value": original}
    if as_json:
        tables.print_json(fields)
        return
    del fields["value"]
    tables.show_fields(fields, tables.console())
    print(tables.printable(original))


def corrections_of(
    sets: Sequence[str], casts: Sequence[str], time_unit: TimeUnit | None, edit: Path | None
) -> Corrections:
    """The corrections that the options of `replay` name. Raises ConfigurationError."""
    return Corrections(
        fields={
            name: parse_field(name, value) for name, value in _assignments("--set", "value", sets)
        },
        casts=dict(_assignments("--cast", "type", casts, CASTS)),
        time_unit=time_unit,
        edits=_edits(edit),
    )


def replay(
    settings: Settings, selection: Selection, corrections: Corrections, sending: Sending
) -> None:
    """Correct the selected letters, send them again, and print how many were sent or refused.

    Without coordinates in `selection`, those of the edits count.
    """
    letters = dlq.read(settings)
    selection = selection._replace(coordinates=selection.coordinates or list(corrections.edits))
    for coordinates in selection.coordinates:
        if coordinates not in letters.letters:
            raise _no_letter(dlq.format_place(coordinates))
    counts = replay_letters(settings, letters.select(selection), corrections, sending)
    table = Table(Column("outcome"), Column("letters", number=True))
    for outcome, count in counts.most_common():
        table.add(
            "would be replayed" if sending.dry_run and outcome == "replayed" else outcome,
            f"{count:,}",
        )
    selected = selection.coordinates or letters.letters
    before = sum(coordinates in letters.replayed for coordinates in selected)
    table.add("were replayed before", f"{before:,}")
    table.show(tables.console())


def _no_letter(place: str) -> ConfigurationError:
    return ConfigurationError(
        f"there is no dead letter {place}; `python -m streams dlq list` shows those that exist"
    )


def _assignments(
    option: str, what: str, texts: Sequence[str], allowed: Collection[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Name and value of each `field=value`. Raises ConfigurationError."""
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigurationError(f"{option} {text!r} is not of the form field={what}")
        if allowed is not None and value not in allowed:
            raise ConfigurationError(
                f"{option} {text!r}: {value!r} is none of {', '.join(allowed)}"
            )
        yield name, value


def _edits(path: Path | None) -> dict[Coordinates, bytes]:
    if path is None:
        return {}
    try:
        return read_edits(path.read_bytes().splitlines())
    except OSError as error:
        raise ConfigurationError(f"--edit {path}: {error.strerror}") from None


def _plain(letter: DeadLetter) -> dict[str, Any]:
    fields: dict[str, Any] = {"place": dlq.format_place(letter.coordinates)}
    for name, value in msgspec.structs.asdict(letter).items():
        if name not in ("topic", "partition", "offset"):
            fields[name] = (
                value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
            )
    return fields
