"""Parses use cases and event weights from TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import msgspec

from core.contract import problems
from core.errors import ConfigurationError
from core.types import UseCase

WEIGHT_STEP = 1 / 64
"""Weights are rounded to this step, so that sums of them are exact in a float64 in any order."""

MAX_WEIGHT = 1000.0
"""Maximum weight of one event; a larger one would outweigh a whole history."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class UseCases(msgspec.Struct, frozen=True):
    """The accepted event types with their weights, and the use cases by name and by API path.

    `default`: the name of the use case in which an event without one counts; None: in no use case.
    """

    event_types: Mapping[str, float]
    by_name: Mapping[str, UseCase]
    by_path: Mapping[str, UseCase]
    default: str | None = None

    def weights(self, use_case: str | None) -> Mapping[str, float]:
        """Event type -> weight in `use_case` (None: the default weights).

        Raises KeyError for a name that is not configured.
        """
        return self.event_types if use_case is None else self.by_name[use_case].weights

    def weight(self, event_type: str, value: float | None, use_case: str | None = None) -> float:
        """Weight of one event: that of its type, times `value` unless None.

        The result is in [0, MAX_WEIGHT], in steps of WEIGHT_STEP.
        """
        weight = (self.event_types if use_case is None else self.by_name[use_case].weights)[
            event_type
        ]
        return weight if value is None else round_weight(weight * value)


def round_weight(weight: float) -> float:
    """Round `weight` to a step of WEIGHT_STEP, at most MAX_WEIGHT."""
    return round(min(weight, MAX_WEIGHT) / WEIGHT_STEP) * WEIGHT_STEP


def parse(text: str, source: str = "use cases") -> UseCases:
    """Parse a configuration of the form of core/use_cases.toml.

    Raises ConfigurationError, which names the wrong field.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source} is not TOML: {error}") from None
    event_types: dict[str, float] = {}
    for name, weight in raw.get("event_types", {}).items():
        event_types[checked_name(name, f"{source}: event type")] = _checked_weight(
            weight, f"{source}: event_types.{name}"
        )
    if not event_types:
        raise ConfigurationError(
            f"{source}: [event_types] is empty, so every event would be dead-lettered; name "
            f"at least one"
        )
    by_name: dict[str, UseCase] = {}
    by_path: dict[str, UseCase] = {}
    for name, fields in raw.get("use_cases", {}).items():
        where = f"{source}: use_cases.{name}"
        checked_name(name, f"{source}: use case")
        weights = dict(event_types)
        for event_type, weight in fields.get("weights", {}).items():
            if event_type not in event_types:
                raise ConfigurationError(
                    f"{where}.weights names {event_type!r}, which is not in [event_types]"
                )
            weights[event_type] = _checked_weight(weight, f"{where}.weights.{event_type}")
        try:
            use_case = msgspec.convert({**fields, "name": name, "weights": weights}, UseCase)
        except msgspec.ValidationError as error:
            text = problems.in_words(error, fields, "use case")
            raise ConfigurationError(f"{where}: {text}") from None
        if use_case.path in by_path:
            raise ConfigurationError(
                f"{where}.path {use_case.path!r} is already that of {by_path[use_case.path].name}"
            )
        if not re.fullmatch(r"[a-z0-9_-]+/for-[a-z0-9_-]+", use_case.path):
            raise ConfigurationError(
                f"{where}.path {use_case.path!r} is not of the form <items>/for-<role>"
            )
        by_name[name] = by_path[use_case.path] = use_case
    return UseCases(
        MappingProxyType(event_types),
        MappingProxyType(by_name),
        MappingProxyType(by_path),
        _default(by_name, source),
    )


def _default(by_name: Mapping[str, UseCase], source: str) -> str | None:
    """The only use case, or the marked one. Raises ConfigurationError."""
    marked = [name for name, use_case in by_name.items() if use_case.default]
    if len(marked) > 1:
        raise ConfigurationError(
            f"{source}: default = true stands in {' and '.join(marked)}; one use case at most "
            f"counts the events that name none"
        )
    return next(iter(by_name if len(by_name) == 1 else marked), None)


def load(path: Path | None) -> UseCases:
    """Load the configuration at `path`; None: the built-in one. Raises ConfigurationError."""
    if path is None:
        return parse(
            resources.files("core").joinpath("use_cases.toml").read_text("utf-8"),
            "core/use_cases.toml",
        )
    try:
        return parse(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise ConfigurationError(
            f"USE_CASES_PATH={path}: {error.strerror}; unset it for the built-in marketplace"
        ) from None


def checked_name(name: str, what: str) -> str:
    """Return `name` if it is valid in a configuration, a key and a path.

    Raises ConfigurationError.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{what} {name!r} must be lower-case letters, digits and _ (64 at most), "
            f"starting with a letter"
        )
    return name


def _checked_weight(weight: object, what: str) -> float:
    if (
        not isinstance(weight, int | float)
        or isinstance(weight, bool)
        or not 0 <= weight <= MAX_WEIGHT
    ):
        raise ConfigurationError(f"{what} = {weight!r} must be a number from 0 to {MAX_WEIGHT:g}")
    return round_weight(float(weight))
