"""Says in plain words why something cannot be decoded.

msgspec names types and paths of its own (Expected `str`, got `int` - at `$.user_id`); people who
send events read: user_id must be text, this event has the number 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

_SHOWN = 60
"""Characters of a value that are shown."""
_TYPES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float,),
    "bool": (bool,),
    "array": (list, tuple),
    "object": (dict,),
    "null": (type(None),),
}
_AT = re.compile(r" - at `(?:key in )?\$(.*?)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]|(\[\.\.\.\])")
_UNITS = {"str": "characters", "array": "entries", "object": "fields", "bytes": "bytes"}
_SYNTAX = {
    "Input data was truncated": "it ends before its last bracket or quote is closed",
    "invalid character": "an unexpected character",
    "trailing characters": "text after its end",
    "object keys must be strings": "a field name that is not in double quotes",
}


def in_words(error: Exception, source: Any = None, noun: str = "event") -> str:
    """What is wrong, without the words of a library.

    `error`: what decoding raised. `source`: the JSON (bytes), or the object that was converted, so
    that the wrong value can be named. `noun`: what it is to the person: event, item, file, ...
    """
    text = str(error)
    if isinstance(error, msgspec.ValidationError):
        return _invalid(text, source, noun)
    if isinstance(error, UnicodeDecodeError):
        return f"the {noun} is not UTF-8: it has the byte 0x{error.object[error.start]:02x}"
    if isinstance(error, RecursionError):
        return f"the {noun} is nested too deeply"
    if isinstance(error, msgspec.DecodeError):
        return f"the {noun} is not JSON: {_syntax(text)}"
    return text


def wrong_type(name: str, types: str, raw: msgspec.Raw, noun: str = "event") -> str:
    """That the field `name` must be one of `types` (`object | null`), and what it has: `raw`, which
    need not be JSON.
    """
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = bytes(raw).decode("utf-8", "replace")
    return f"{name} must be {_types(types)}, this {noun} has {_value(value)}"


def _invalid(text: str, source: Any, noun: str) -> str:
    at = _AT.search(text)
    problem = text[: at.start()] if at else text
    steps = _STEP.findall(at.group(1)) if at else []
    match = re.fullmatch(r"Expected `([^`]+)`, got `(\w+)`", problem)
    got = match.group(2) if match else None
    name, value = _located(steps, source, got)
    subject = name or f"the {noun}"
    if match is not None:
        has = _value(value[0]) if value else _TYPES.get(got or "", got)
        verb = f"this {noun} has" if name else "it is"
        return f"{subject} must be {_types(match.group(1))}, {verb} {has}"
    for pattern, words in _PROBLEMS:
        if match := re.fullmatch(pattern, problem):
            return words(match, name, subject)
    return f"{subject}: {problem.replace('`', '')}"


_Steps = Sequence[tuple[str, str, str]]
_Place = tuple[str | int, ...]
"""Field names, keys and indexes."""


def _located(steps: _Steps, source: Any, got: str | None) -> tuple[str, list[Any]]:
    """The name of the place that a path leads to, and the value there if it can be read."""
    try:
        root = msgspec.json.decode(source) if isinstance(source, bytes) else source
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        root = None
    for place, value in _walk(steps, root, ()):
        if got is None or _is(value, got):
            return _name(place), [value]
    return _name([field or int(index) for field, index, _ in steps if field or index]), []


def _walk(steps: _Steps, value: Any, place: _Place) -> Iterator[tuple[_Place, Any]]:
    """Each place to which the path may lead, and its value: a path leaves out keys of objects."""
    if not steps:
        yield place, value
        return
    (field, index, _), rest = steps[0], steps[1:]
    if field:
        if isinstance(value, dict) and field in value:
            yield from _walk(rest, value[field], (*place, field))
    elif index:
        if isinstance(value, list | tuple) and int(index) < len(value):
            yield from _walk(rest, value[int(index)], (*place, int(index)))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(rest, inner, (*place, str(key)))


def _name(place: Sequence[str | int]) -> str:
    """`entry 2 of attributes.sizes`; the innermost place first."""
    groups: list[str] = []
    for step in place:
        if isinstance(step, int):
            groups.append(f"entry {step + 1}")
        elif groups and not groups[-1].startswith("entry "):
            groups[-1] += f".{step}"
        else:
            groups.append(step)
    return " of ".join(reversed(groups))


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, _PYTHON_TYPES.get(kind, object))


def _types(names: str) -> str:
    """`float | null` in words; a number includes whole ones."""
    kinds = names.split(" | ")
    words = [_TYPES.get(kind, kind) for kind in kinds if kind != "int" or "float" not in kinds]
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
        return f"the text {shown!r}"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"


def _syntax(text: str) -> str:
    problem, _, place = text.removeprefix("JSON is malformed: ").partition(" (byte ")
    words = _SYNTAX.get(problem, problem)
    return f"{words} at byte {place.rstrip(')')}" if place else words


def _length(match: re.Match[str], _name: str, subject: str) -> str:
    kind, bound, count = match.groups()
    limit = {"<=": "at most ", ">=": "at least "}.get(bound or "", "")
    return f"{subject} must have {limit}{count} {_UNITS.get(kind, 'parts')}"


def _between(match: re.Match[str], _name: str, subject: str) -> str:
    kind, low, high = match.groups()
    return f"{subject} must have {low} to {high} {_UNITS.get(kind, 'parts')}"


def _bound(match: re.Match[str], _name: str, subject: str) -> str:
    kind, bound, limit = match.groups()
    words = {"<=": "at most", ">=": "at least", "<": "below", ">": "above"}[bound]
    return f"{subject} must be {_TYPES[kind]}, {words} {limit.removesuffix('.0')}"


def _missing(match: re.Match[str], name: str, _subject: str) -> str:
    return f"{match.group(1)}{f' of {name}' if name else ''} is missing"


def _unknown(match: re.Match[str], name: str, _subject: str) -> str:
    return f"{match.group(1)}{f' of {name}' if name else ''} is no known field"


_PROBLEMS: tuple[tuple[str, Callable[[re.Match[str], str, str], str]], ...] = (
    (r"Object missing required field `(.+)`", _missing),
    (r"Object contains unknown field `(.+)`", _unknown),
    (r"Expected `(\w+)` of length (\d+) to (\d+)(?:, got \d+)?", _between),
    (r"Expected `(\w+)` of length (<=|>=)? ?(\d+)(?:, got \d+)?", _length),
    (r"Expected `(int|float)` (<=|>=|<|>) ([-\w.+]+)", _bound),
    (
        r"Expected `int` that's a multiple of (\d+)",
        lambda match, _name, subject: f"{subject} must be a multiple of {match[1]}",
    ),
    (
        r"Expected `str` matching regex (.+)",
        lambda match, _name, subject: f"{subject} must match {match[1]}",
    ),
    (
        r"(?:Number|Integer value) out of range",
        lambda _match, _name, subject: f"{subject} is a number that is out of range",
    ),
    (
        r"Invalid (?:enum )?value (.+)",
        lambda match, _name, subject: f"{subject} is {match[1]}, which is none of its values",
    ),
)
