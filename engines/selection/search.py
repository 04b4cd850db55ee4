"""Searches the catalogue by text: every word must occur in an item."""

from __future__ import annotations

import heapq

from core.process.background import with_pauses
from core.types import Item
from engines.catalogue import Catalogue


def search(catalogue: Catalogue, text: str, limit: int) -> list[Item]:
    """The best `limit` items with every word of `text`, available or not.

    First an item with this id, then those whose title begins with the text, then those with all
    words in id and title, then those with a word in categories, tags, attributes or text only.
    Upper and lower case are the same.
    """
    phrase = " ".join(text.casefold().split())
    words = phrase.split()
    if not words:
        return []
    matches = (
        (rank, item)
        for item in with_pauses(catalogue.entries())
        if (rank := _rank(item, phrase, words)) is not None
    )
    best = heapq.nsmallest(
        limit, matches, key=lambda match: (match[0], match[1].title or "", match[1].item_id)
    )
    return [item for _, item in best]


def _rank(item: Item, phrase: str, words: list[str]) -> int | None:
    """0 is the best; None: a word does not occur."""
    identifier, title = item.item_id.casefold(), (item.title or "").casefold()
    if identifier == phrase:
        return 0
    if title.startswith(phrase):
        return 1
    name = f"{identifier}\n{title}"
    if all(word in name for word in words):
        return 2
    attributes = (str(value) for value in item.attributes.values())
    rest = "\n".join([*item.categories, *item.tags, *attributes, item.text or ""]).casefold()
    return 3 if all(word in name or word in rest for word in words) else None
