"""The type of a layout, and what several public layouts share."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from store.tables.options import Kind


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """One public layout.

    `columns`: field -> column, the first that exists of several separated by |. `has`: the columns
    by which it is recognised. `cells`: where the file does not name its columns (`header`), what
    each cell of a row looks like. `event_types`: the data set's word -> Eddyline's.
    """

    name: str
    kind: Kind = "interactions"
    columns: Mapping[str, str]
    constants: Mapping[str, str] = {}
    has: frozenset[str] = frozenset()
    header: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    per_second: float | None = 1.0
    time_formats: tuple[str, ...] = ()
    list_separator: str | None = None
    event_types: Mapping[str, str] = {}


RATING = {"event_type": "rating"}
MOVIE = {"item_type": "movie"}
MS = 1000.0
MOVIELENS_RATING = {
    "user_id": "userId",
    "item_id": "movieId",
    "value": "rating",
    "timestamp": "timestamp",
}
MOVIELENS_MOVIE = {"item_id": "movieId", "title": "title", "categories": "genres"}
