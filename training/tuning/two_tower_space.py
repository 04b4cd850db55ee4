"""Says what the search of Two-Tower varies, and between which limits."""

from __future__ import annotations

from typing import Any

import msgspec

from training.tuning.options import Scope
from training.two_tower.hyperparameters import SEARCHED, Hyperparameters

_HEAD = "head_dimension"
_RANGES: dict[str, tuple[Any, Any]] = {
    _HEAD: (16, 48),
    "layers": (1, 3),
    "dropout": (0.0, 0.6),
    "id_dropout": (0.0, 0.3),
    "learning_rate": (0.0005, 0.01),
}
"""The first and the last on a log scale; each is widened to the configured value.

The dimension is the head dimension times the heads. With two heads, 32 to 96: above, a read takes
more than a millisecond.
"""


def point(hyperparameters: Hyperparameters, scope: Scope) -> dict[str, float]:
    """The search dimensions; a fixed hyperparameter is none."""
    values = {
        _HEAD: hyperparameters.dimension // hyperparameters.heads,
        **{name: getattr(hyperparameters, name) for name in SEARCHED[1:]},
    }
    fixed = {_HEAD if name == "dimension" else name for name in scope.fixed}
    return {name: value for name, value in values.items() if name not in fixed}


def suggest(trial: Any, configured: Hyperparameters, scope: Scope) -> Hyperparameters:
    """The hyperparameters of a new trial."""
    params: dict[str, float] = {}
    for name, value in point(configured, scope).items():
        low, high = _RANGES[name]
        low, high = min(low, value), max(high, value)
        params[name] = (
            trial.suggest_int(name, low, high, log=name == _HEAD)
            if name in (_HEAD, "layers")
            else trial.suggest_float(name, low, high, log=name == "learning_rate")
        )
    return hyperparameters(params, configured)


def hyperparameters(params: dict[str, Any], configured: Hyperparameters) -> Hyperparameters:
    """`configured` with the `params` of a trial."""
    named = {name: value for name, value in params.items() if name != _HEAD}
    if _HEAD in params:
        named["dimension"] = params[_HEAD] * configured.heads
    return msgspec.structs.replace(configured, **named)
