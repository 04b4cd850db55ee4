"""Public layouts whose files do not name their columns."""

from __future__ import annotations

from store.tables.layouts.layout import (
    MOVIE,
    MOVIELENS_MOVIE,
    MOVIELENS_RATING,
    RATING,
    Layout,
)

_GENRES = tuple(f"genre{number}" for number in range(19))
"""MovieLens 100K has a column of 0 and 1 for each genre; they are not read."""

_ID, _TIME, _ASIN, _AMAZON_USER = r"\d*", r"\d{9,10}", r"[0-9A-Z]{10}", r"A[0-9A-Z]{8,21}"
_STARS = r"[1-5](\.0)?"

WITHOUT_HEADER: tuple[Layout, ...] = (
    Layout(
        name="MovieLens ratings",
        header=("userId", "movieId", "rating", "timestamp"),
        cells=(_ID, _ID, r"[0-5](\.[05])?", r"\d{4,10}"),
        columns=MOVIELENS_RATING,
        constants=RATING,
    ),
    Layout(
        name="MovieLens movies",
        kind="items",
        header=("movieId", "title", "genres"),
        cells=(_ID, r".*\(\d{4}\)\s*", r"[A-Z(][^,]*"),
        columns=MOVIELENS_MOVIE,
        constants=MOVIE,
        list_separator="|",
    ),
    Layout(
        name="MovieLens users",
        kind="users",
        header=("userId", "gender", "age", "occupation", "zip"),
        cells=(_ID, "[MF]", r"\d+", r"\d+", ".*"),
        columns={
            "user_id": "userId",
            **{f"attributes.{name}": name for name in ("gender", "age", "occupation", "zip")},
        },
    ),
    Layout(
        name="MovieLens 100K users",
        kind="users",
        header=("userId", "age", "gender", "occupation", "zip"),
        cells=(_ID, r"\d+", "[MF]", r"\w+", ".*"),
        columns={
            "user_id": "userId",
            **{f"attributes.{name}": name for name in ("age", "gender", "occupation", "zip")},
        },
    ),
    Layout(
        name="MovieLens 100K movies",
        kind="items",
        header=("movieId", "title", "released", "video", "url", *_GENRES),
        cells=(_ID, ".*", ".*", ".*", ".*", *["[01]"] * len(_GENRES)),
        columns={"item_id": "movieId", "title": "title"},
        constants=MOVIE,
    ),
    Layout(
        name="Taobao UserBehavior",
        header=("user", "item", "category", "behavior", "timestamp"),
        cells=(_ID, _ID, _ID, "pv|fav|cart|buy", _TIME),
        columns={
            "user_id": "user",
            "item_id": "item",
            "event_type": "behavior",
            "timestamp": "timestamp",
        },
        event_types={"pv": "view", "fav": "like", "cart": "addtocart", "buy": "purchase"},
    ),
    Layout(
        name="Amazon ratings (2014)",
        header=("user", "item", "rating", "timestamp"),
        cells=(_AMAZON_USER, _ASIN, _STARS, _TIME),
        columns={"user_id": "user", "item_id": "item", "value": "rating", "timestamp": "timestamp"},
        constants=RATING,
    ),
    Layout(
        name="Amazon ratings (2018)",
        header=("item", "user", "rating", "timestamp"),
        cells=(_ASIN, _AMAZON_USER, _STARS, _TIME),
        columns={"user_id": "user", "item_id": "item", "value": "rating", "timestamp": "timestamp"},
        constants=RATING,
    ),
    Layout(
        name="Steam-200k",
        header=("user", "game", "behavior", "hours", "zero"),
        cells=(_ID, ".+", "purchase|play", r"\d+(\.\d+)?", "0"),
        columns={"user_id": "user", "item_id": "game", "event_type": "behavior", "value": "hours"},
        event_types={"play": "view"},
    ),
    Layout(
        name="Last.fm 1K listens",
        header=("user", "time", "artist_id", "artist", "track_id", "track"),
        cells=(r"user_\d+", r"\d{4}-\d\d-\d\dT.*", ".*", ".*", ".*", ".*"),
        columns={"user_id": "user", "item_id": "artist_id", "timestamp": "time"},
        constants={"event_type": "view"},
    ),
    Layout(
        name="Last.fm 360K plays",
        header=("user", "artist_id", "artist", "plays"),
        cells=(r"[0-9a-f]{40}", r"[0-9a-f-]{36}|", ".*", r"\d+"),
        columns={"user_id": "user", "item_id": "artist_id", "value": "plays"},
        constants={"event_type": "view"},
    ),
)
"""Recognised by their cells, because the file does not name its columns."""
