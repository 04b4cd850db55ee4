"""Keeps what many entries of a catalogue have in common in memory once.

A decoded entry owns each of its strings, lists and maps. Types, categories, tags and attributes
repeat from entry to entry, and are more than half of its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import msgspec

from core.types import Item, Value

T = TypeVar("T")

MOST = 20_000
"""Different parts that are remembered at most: parts that hardly repeat need no more memory."""


class SharedParts:
    """Use one for the entries of one catalogue, and drop it."""

    def __init__(self) -> None:
        self._parts: dict[Hashable, Any] = {}

    def share(self, item: Item) -> Item:
        """An equal entry, whose parts are the objects of earlier entries where these are equal."""
        return msgspec.structs.replace(
            item,
            item_type=self._text(item.item_type),
            categories=self._labels(item.categories),
            tags=self._labels(item.tags),
            attributes=self._attributes(item.attributes),
        )

    def _text(self, text: str) -> str:
        return self._part(text, lambda: text)

    def _labels(self, labels: list[str]) -> list[str]:
        return self._part(tuple(labels), lambda: [self._text(label) for label in labels])

    def _attributes(self, attributes: dict[str, Value]) -> dict[str, Value]:
        # as JSON, because 1, 1.0 and True are one key
        return self._part(
            msgspec.json.encode(attributes),
            lambda: {
                self._text(name): self._text(value) if isinstance(value, str) else value
                for name, value in attributes.items()
            },
        )

    def _part(self, key: Hashable, make: Callable[[], T]) -> T:
        part: T | None = self._parts.get(key)
        if part is None:
            part = make()
            if len(self._parts) < MOST:
                self._parts[key] = part
        return part
