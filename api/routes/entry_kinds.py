"""What differs between items and users, for the routes that write entries of both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from api.schemas import bodies
from core.codec import decode_item, decode_user
from core.contract.tolerance import Tolerance
from core.settings import Settings
from core.types import Item, User
from store.state.entities.entries import EntryReader

Entry = Item | User


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of entries.

    `read`: the latest applied entry of an id. `body` and `change` are what PUT and PATCH accept.
    """

    name: str
    tag: str
    topic: str
    entry: type[Item | User]
    decode: Callable[[bytes, float, Tolerance], Entry]
    read: Callable[[EntryReader, str], Awaitable[Entry | None]]
    body: type[msgspec.Struct]
    change: type[msgspec.Struct]
    example: Mapping[str, Any]
    example_change: Mapping[str, Any]

    @property
    def id_name(self) -> str:
        """The field with the id."""
        return f"{self.name}_id"


def item_kind(settings: Settings) -> Kind:
    """Entries of the catalogue."""
    return Kind(
        name="item",
        tag="catalogue",
        topic=settings.items_topic,
        entry=Item,
        decode=decode_item,
        read=EntryReader.item,
        body=bodies.NewItem,
        change=bodies.ItemChange,
        example={
            "item_type": "startup",
            "title": "Ledgerly",
            "categories": ["fintech"],
            "tags": ["python", "kafka"],
            "attributes": {"stage": "seed", "team_size": 7},
        },
        example_change={"available": False},
    )


def user_kind(settings: Settings) -> Kind:
    """What users declare."""
    return Kind(
        name="user",
        tag="users",
        topic=settings.users_topic,
        entry=User,
        decode=decode_user,
        read=EntryReader.user,
        body=bodies.User,
        change=bodies.UserChange,
        example={"roles": ["developer"], "interests": ["fintech", "python"]},
        example_change={"interests": ["health"]},
    )
