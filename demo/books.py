"""Writes the files of a bookshop, as its database would export them: `python -m demo books FOLDER`.

They are a pure function of a seed, the sizes and the last day. Readers have a taste; a book lies
near its genres (which its description shows) and near a circle of readers (which only the events
show). Who reads a volume of a series most often goes on with the next one. So content, ALS and
Two-Tower each have something to learn that the others do not see.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

GENRES = {
    "Crime": "detective murder clue inspector alibi",
    "Thriller": "conspiracy spy chase hostage deadline",
    "Fantasy": "dragon sorcerer kingdom prophecy quest",
    "Science fiction": "starship colony android orbit alien",
    "Romance": "wedding letters heartbreak summer kiss",
    "History": "empire siege letters archive dynasty",
    "Biography": "childhood career diary exile memoir",
    "Travel": "island railway desert harbour map",
    "Cooking": "bread spices kitchen harvest recipe",
    "Nature": "forest birds river mountain seasons",
    "Science": "experiment particle genome theory proof",
    "Philosophy": "ethics reason doubt freedom virtue",
    "Children": "bear adventure school friends treehouse",
    "Poetry": "verses silence moon autumn voice",
}
"""Genre -> words of its descriptions."""
_FIRST = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Henry", "Ida", "Jonas")
_LAST = ("Abel", "Brandt", "Castro", "Dubois", "Eriksen", "Gruber", "Haas", "Ivanov", "Keller")
_ADJECTIVES = ("Silent", "Golden", "Broken", "Hidden", "Last", "Bright", "Distant", "Burning")
_NOUNS = ("River", "House", "Winter", "Garden", "Promise", "Shadow", "Island", "Clock", "Orchard")
_CITIES = ("Berlin", "Hamburg", "Köln", "Leipzig", "München", "Wien", "Zürich")
_DIMENSIONS, _CIRCLES = 16, 10
_DAYS = 240
"""Days over which the events spread."""
_NEW_BOOKS = 0.08
"""Share of the books that appeared within these days."""


@dataclass(frozen=True)
class Shop:
    """How large the shop is, and the midnight (UTC) at which its events end."""

    readers: int
    books: int
    seed: int
    end: datetime


@dataclass(frozen=True)
class _Books:
    """The catalogue by number.

    `vectors` (n, _DIMENSIONS) in taste space; `appeal` (n,) log weight; `day` (n,) of publication,
    counted from the first event; `series` (n,) number of the series or -1, `volume` (n,) from 1.
    """

    rows: list[tuple[str, ...]]
    vectors: F64
    appeal: F64
    day: F64
    series: npt.NDArray[np.int64]
    volume: npt.NDArray[np.int64]


def write(shop: Shop, folder: Path) -> dict[str, int]:
    """Write books.csv, readers.csv and events.csv to `folder`; returns the rows of each."""
    rng = np.random.default_rng(shop.seed)
    genre_vectors = _unit(rng.normal(size=(len(GENRES), _DIMENSIONS)))
    circle_vectors = _unit(rng.normal(size=(_CIRCLES, _DIMENSIONS)))
    books = _draw_books(shop, rng, genre_vectors, circle_vectors)
    readers, events = [], []
    for number in range(shop.readers):
        name = f"r{number + 1:05}"
        favourites = rng.choice(len(GENRES), size=2, replace=False)
        circle = int(rng.integers(_CIRCLES))
        taste = _unit((genre_vectors[favourites].sum(axis=0) + 1.2 * circle_vectors[circle])[None])
        stated = _names(favourites) if rng.random() < 0.8 else ""
        readers.append((name, stated, str(rng.choice(_CITIES))))
        events += _events_of(name, taste[0], books, rng, shop)
    events.sort(key=lambda event: event[4])
    folder.mkdir(parents=True, exist_ok=True)
    header = ("isbn", "title", "author", "genres", "price", "pages", "published", "about")
    _write(folder / "books.csv", header, books.rows)
    _write(folder / "readers.csv", ("reader", "favourites", "city"), readers)
    _write(folder / "events.csv", ("reader", "isbn", "action", "stars", "time"), events)
    return {"books": len(books.rows), "readers": len(readers), "events": len(events)}


def _draw_books(
    shop: Shop, rng: np.random.Generator, genre_vectors: F64, circle_vectors: F64
) -> _Books:
    rows: list[tuple[str, ...]] = []
    vectors, days, series, volumes = [], [], [], []
    serial = 0
    while len(rows) < shop.books:
        genres = rng.choice(len(GENRES), size=1 + int(rng.random() < 0.35), replace=False)
        vector = genre_vectors[genres].mean(axis=0) + 0.9 * circle_vectors[rng.integers(_CIRCLES)]
        author = f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"
        name = f"The {rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}"
        count = int(rng.integers(3, 7)) if rng.random() < 0.08 else 1
        first_day = -float(rng.exponential(900))
        for volume in range(1, count + 1):
            day = first_day + 120.0 * (volume - 1) if count > 1 else first_day
            if count == 1 and rng.random() < _NEW_BOOKS:
                day = float(rng.uniform(0, _DAYS))
            day = min(day, _DAYS - 3.0)
            published = shop.end - timedelta(days=_DAYS - day)
            words = ", ".join(
                str(rng.choice(GENRES[tuple(GENRES)[genre]].split()))
                for genre in [*genres, *genres, *genres]
            )
            rows.append(
                (
                    _isbn(len(rows), rng),
                    f"{name}, volume {volume}" if count > 1 else name,
                    author,
                    _names(genres),
                    f"{rng.gamma(6, 2.5) + 4:.2f}".replace(".", ","),
                    str(int(np.clip(rng.normal(320, 90), 40, 900))),
                    f"{published:%Y-%m-%d}",
                    f"{author} tells of {words}.",
                )
            )
            vectors.append(vector + 0.15 * rng.normal(size=_DIMENSIONS))
            days.append(day)
            series.append(serial if count > 1 else -1)
            volumes.append(volume)
        serial += 1
    appeal = np.log(np.minimum(rng.pareto(1.2, len(rows)) + 0.3, 25))
    return _Books(
        rows, _unit(np.array(vectors)), appeal, np.array(days), np.array(series), np.array(volumes)
    )


def _events_of(
    name: str, taste: F64, books: _Books, rng: np.random.Generator, shop: Shop
) -> list[tuple[str, ...]]:
    """What one reader did, book after book."""
    read = int(min(1 + rng.pareto(1.0) * 5, 120, len(books.rows) // 3))
    begin = float(rng.uniform(0, _DAYS - 1))
    days = np.sort(rng.uniform(begin, _DAYS, read))
    liking = 5.0 * books.vectors @ taste
    score = liking + books.appeal
    events: list[tuple[str, ...]] = []
    seen = np.zeros(len(books.rows), dtype=bool)
    following = -1
    for day in days:
        # the maximum of scores with Gumbel noise draws a book by the softmax of the scores
        candidates = np.where(seen | (books.day > day), -np.inf, score)
        if following >= 0 and np.isfinite(candidates[following]) and rng.random() < 0.7:
            book = following
        else:
            book = int(np.argmax(candidates + rng.gumbel(size=len(candidates))))
            if books.volume[book] > 1 and not seen[book - 1]:
                book -= int(books.volume[book]) - 1  # a series is begun at its first volume
                if seen[book] or books.day[book] > day:
                    continue
        seen[book] = True
        after = book + 1
        is_followed = after < len(books.rows) and books.volume[after] > 1
        following = after if is_followed else -1
        time = shop.end - timedelta(days=_DAYS - float(day))
        events += _visit(name, books.rows[book][0], float(liking[book]), time, rng)
    return events


def _visit(
    reader: str, isbn: str, liking: float, time: datetime, rng: np.random.Generator
) -> list[tuple[str, ...]]:
    """A view, and what followed from it; `liking` is about 0 to 5."""
    share = 1 / (1 + np.exp(2.5 - liking))
    steps = [("view", "")]
    if rng.random() < 0.25 * share:
        steps.append(("wish", ""))
    if rng.random() < 0.7 * share:
        steps.append(("buy", ""))
        if rng.random() < 0.4:
            stars = int(np.clip(round(1.5 + liking * 0.8 + rng.normal()), 1, 5))
            steps.append(("review", str(stars)))
    events: list[tuple[str, ...]] = []
    for action, stars_text in steps:
        # after the last day nothing has happened yet
        events.append((reader, isbn, action, stars_text, f"{time:%Y-%m-%d %H:%M:%S}"))
        time += timedelta(seconds=float(rng.exponential(90)))
    return events


def _isbn(number: int, rng: np.random.Generator) -> str:
    """An ISBN-13 that no other book has."""
    digits = f"9783{number:05}{int(rng.integers(1000)):03}"
    total = sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(digits))
    return f"{digits}{-total % 10}"


def _names(genres: Iterable[int]) -> str:
    names = tuple(GENRES)
    return "/".join(names[genre] for genre in genres)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(header)
        writer.writerows(rows)


def _unit(rows: F64) -> F64:
    unit: F64 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def midnight() -> datetime:
    """The last midnight (UTC)."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
