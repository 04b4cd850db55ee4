"""Assigns users to the variants of A/B experiments by hashes of their ids; nothing is stored.

The first hash maps every user to a point in [0, 1), and an experiment has the users in a range of
it. Ranges do not overlap: a user takes part in at most one experiment, and to add, widen or remove
one moves no user of another. The second hash is salted with the name of the experiment and divided
by the weights of the variants: each variant has a fair sample of the range, independent of earlier
experiments on it.
"""

from __future__ import annotations

import hashlib
import math
import os
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from core.contract import problems
from core.errors import ConfigurationError
from core.use_cases import UseCases, checked_name

OVERRIDES = (
    "router",
    "cold_start_threshold",
    "warm_user_threshold",
    "content_popularity_share",
    "ensemble_als_weight",
    "ensemble_two_tower_weight",
    "ensemble_fusion",
    "enable_als",
    "enable_two_tower",
    "enable_ensemble",
    "diversity",
    "explore",
)
"""Settings that a variant may change: those that affect answers and need no rebuilt engine."""

_TOKEN = 16
"""Hexadecimal digits before the first dot of an id: 64 random bits, which nobody can guess."""
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Variant(msgspec.Struct, frozen=True):
    """One variant of an experiment.

    `overrides`: name of a setting -> value. `tag` and `outcomes` are those of the experiment; a
    recommendation_id ends with `id`.
    """

    experiment: str
    tag: str
    name: str
    weight: float
    overrides: Mapping[str, Any]
    outcomes: tuple[str, ...]
    id: str

    @property
    def label(self) -> str:
        """Experiment and variant, as an answer names them: `blend.half`."""
        return f"{self.experiment}.{self.name}"


class Experiment(msgspec.Struct, frozen=True):
    """One experiment; the first of `variants` is the control.

    `users`: the range [from, to) of points. `use_cases`: where it runs, empty for everywhere.
    `outcomes`: the event types that count as an outcome, empty for all.
    `tag`, as in `blend-3f2a91`, names it in ids and in Redis: its name, and a digest of all fields
    except `users`. Changed variants have another tag, so their numbers do not mix with the old
    ones; `users` may be widened at any time.
    """

    name: str
    tag: str
    users: tuple[float, float]
    use_cases: tuple[str, ...]
    outcomes: tuple[str, ...]
    variants: tuple[Variant, ...]
    bounds: tuple[float, ...]

    def variant_of(self, user_id: str) -> Variant:
        """The variant of a user in the range of this experiment."""
        return self.variants[bisect_right(self.bounds, point(self.name, user_id))]


class Experiments(msgspec.Struct, frozen=True):
    """The configured experiments, and their variants by id."""

    all: tuple[Experiment, ...] = ()
    by_id: Mapping[str, Variant] = {}

    def assign(self, user_id: str, use_case: str | None) -> Variant | None:
        """The variant for a user in a use case; None outside of every experiment."""
        experiment = self._of_user(user_id)
        if experiment is None or (experiment.use_cases and use_case not in experiment.use_cases):
            return None
        return experiment.variant_of(user_id)

    def variant_of_answer(self, recommendation_id: str, user_id: str) -> Variant | None:
        """The variant of the answer with this id to this user; None if no answer has such an id."""
        variant = self.by_id.get(recommendation_id[_TOKEN + 1 :])
        if variant is None or recommendation_id[_TOKEN] != ".":
            return None
        experiment = self._of_user(user_id)
        return (
            variant
            if experiment is not None and experiment.variant_of(user_id) is variant
            else None
        )

    def _of_user(self, user_id: str) -> Experiment | None:
        if not self.all:
            return None
        position = point("", user_id)
        for experiment in self.all:
            low, high = experiment.users
            if low <= position < high:
                return experiment
        return None


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """The experiment of a tag, recorded beside its numbers: the configuration may be gone later.

    `since`: in seconds since 1970.
    """

    name: str
    since: float
    use_cases: tuple[str, ...]
    variants: tuple[Variant, ...]


class VariantCounts(NamedTuple):
    """One variant: user -> exposures; user -> weight of outcomes; event type -> outcomes."""

    exposed: dict[str, float]
    outcomes: dict[str, float]
    events: dict[str, int]


NONE = Experiments()


def point(salt: str, user_id: str) -> float:
    """A number in [0, 1), uniform over users and independent between salts: 48 bits of SHA-256."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{user_id}".encode()).digest()[:6]) * 2.0**-48


def recommendation_id(variant: Variant | None) -> str:
    """A new id of an answer: random, followed by the id of its variant if it has one."""
    token = os.urandom(_TOKEN // 2).hex()
    return token if variant is None else f"{token}.{variant.id}"


class _Fields(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of an experiment in TOML."""

    users: tuple[_Share, _Share]
    variants: dict[str, dict[str, Any]]
    use_cases: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()


def parse(text: str, use_cases: UseCases, source: str = "experiments") -> Experiments:
    """Parse a configuration of the form that docs/experiments-guide.md shows.

    Raises ConfigurationError, which names the wrong field. core.settings checks the values of
    overrides.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source} is not TOML: {error}") from None
    if unknown := [name for name in raw if name != "experiments"]:
        raise ConfigurationError(
            f"{source}: {unknown[0]!r} is not known there; an experiment is a table "
            f"[experiments.<name>]"
        )
    parsed = tuple(
        _experiment(name, fields, use_cases, source)
        for name, fields in raw.get("experiments", {}).items()
    )
    for before, after in pairwise(sorted(parsed, key=lambda experiment: experiment.users)):
        if after.users[0] < before.users[1]:
            raise ConfigurationError(
                f"{source}: experiments {before.name} and {after.name} share users: "
                f"{list(before.users)} and {list(after.users)} overlap; "
                "a user takes part in one at most"
            )
    return Experiments(
        parsed, {variant.id: variant for experiment in parsed for variant in experiment.variants}
    )


def load(path: Path | None, use_cases: UseCases) -> Experiments:
    """Load the configuration at `path`; None: no experiments. Raises ConfigurationError."""
    if path is None:
        return NONE
    try:
        return parse(path.read_text("utf-8"), use_cases, str(path))
    except OSError as error:
        raise ConfigurationError(
            f"EXPERIMENTS_PATH={path}: {error.strerror}; unset it for no experiments"
        ) from None


def _experiment(name: str, fields: Any, configured: UseCases, source: str) -> Experiment:
    where = f"{source}: experiments.{name}"
    checked_name(name, f"{source}: experiment")
    try:
        parsed = msgspec.convert(fields, _Fields)
    except msgspec.ValidationError as error:
        text = problems.in_words(error, fields, "experiment")
        raise ConfigurationError(f"{where}: {text}") from None
    low, high = parsed.users
    if not low < high:
        raise ConfigurationError(
            f"{where}.users = [{low:g}, {high:g}] is empty; [0.0, 0.2] is a fifth of all users"
        )
    for field, names, known in (
        ("use_cases", parsed.use_cases, configured.by_name),
        (
            "outcomes",
            parsed.outcomes,
            [name for name, weight in configured.event_types.items() if weight],
        ),
    ):
        if unknown := [name for name in names if name not in known]:
            raise ConfigurationError(
                f"{where}.{field} names {unknown[0]!r}; it may name {', '.join(known)}"
            )
    if len(parsed.variants) < 2:
        raise ConfigurationError(
            f"{where} needs at least two variants; the first is the control that the others "
            f"are compared with"
        )
    weights = {
        variant: _weight(fields, f"{where}.variants.{variant}")
        for variant, fields in parsed.variants.items()
    }
    overrides = {
        variant: _overrides(fields, f"{where}.variants.{variant}")
        for variant, fields in parsed.variants.items()
    }
    about = [sorted(parsed.use_cases), sorted(parsed.outcomes), list(weights.items()), overrides]
    definition = msgspec.json.encode(about, order="sorted")
    tag = f"{name}-{hashlib.sha256(definition).hexdigest()[:6]}"
    total = math.fsum(weights.values())
    variants = tuple(
        Variant(
            name,
            tag,
            checked_name(variant, f"{where}: variant"),
            weight,
            overrides[variant],
            parsed.outcomes,
            f"{tag}.{variant}",
        )
        for variant, weight in weights.items()
    )
    bounds = tuple(sum_ / total for sum_ in accumulate(weights.values()))[:-1]
    return Experiment(name, tag, (low, high), parsed.use_cases, parsed.outcomes, variants, bounds)


def _weight(fields: Mapping[str, Any], where: str) -> float:
    weight = fields.get("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < math.inf:
        raise ConfigurationError(
            f"{where}.weight = {weight!r} must be a number above 0; only the ratios of a "
            f"variant's weights count"
        )
    return float(weight)


def _overrides(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    overrides = {name: value for name, value in fields.items() if name != "weight"}
    for name in overrides:
        if name not in OVERRIDES:
            raise ConfigurationError(
                f"{where}.{name} is not known; a variant has a weight and may set "
                f"{', '.join(OVERRIDES)}"
            )
    return overrides
