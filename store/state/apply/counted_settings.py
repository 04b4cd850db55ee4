"""Stores the settings on which stored numbers depend, and refuses others."""

from __future__ import annotations

from typing import Any

from core.errors import ConfigurationError
from core.settings import Settings
from store.state import keys, shard_numbers
from store.state.connection import Client, named_errors


def check(client: Client, settings: Settings) -> None:
    """Store the settings on which stored numbers depend, or compare them with the stored ones.

    `client`: of shard 0. Raises ConfigurationError: one key must not mix numbers of two settings.
    """
    shard_numbers.check(client)
    with named_errors("writing settings"):
        pipe: Any = client.pipeline(transaction=True)
        for name, value in _settings(settings).items():
            if value:
                pipe.hsetnx(keys.of(client).settings, name, value)
        pipe.execute()
    compare(client, settings)


def compare(client: Client, settings: Settings) -> None:
    """Compare these settings with the stored ones. Raises ConfigurationError."""
    with named_errors("comparing settings"):
        fields: Any = client.hgetall(keys.of(client).settings)
    stored = {name.decode(): value.decode() for name, value in fields.items()}
    now = _settings(settings)
    changed = [
        f"{name} was {stored[name]} and is {value or 'none'}"
        for name, value in now.items()
        if stored.get(name, value) != value
    ]
    if changed:
        is_default = any(text.startswith("default_use_case ") for text in changed)
        mark = " (default = true marks a use case)" if is_default else ""
        raise ConfigurationError(
            f"settings on which stored numbers depend have changed: {'; '.join(changed)}. Set "
            f"the former values again{mark}, or run `python -m streams rebuild --wipe` to compute "
            f"every number again from the archive"
        )


def _settings(settings: Settings) -> dict[str, str]:
    """The settings on which stored numbers depend.

    An empty one is not stored, so that it may be set later: a default use case counts the events
    from then on.
    """
    return {
        "default_use_case": settings.use_cases.default or "",
        "popularity_half_life_days": f"{settings.popularity_half_life_days:g}",
        "dedup_window": str(settings.dedup_window),
        "redis_shards": str(settings.redis_shards) if settings.redis_shards > 1 else "",
    } | {
        f"weight {use_case or keys.POPULAR_UNLABELLED}/{event_type}": f"{weight:g}"
        for use_case in (None, *settings.use_cases.by_name)
        for event_type, weight in settings.use_cases.weights(use_case).items()
    }
