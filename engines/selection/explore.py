"""Places of an answer that are given to new items by lot, so that each gets a chance whatever the models think of it.

The draw keeps no state: a hash of user, hour and item orders the new items, and the first of them get the places. So a list does not
change when it is loaded again within the hour, every process draws alike, and the probability with which an item was drawn is known
exactly. It stands in the answer as `propensity`, for estimates that weigh outcomes by 1 / propensity (Horvitz and Thompson 1952).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.types import Reason, Recommendation, Request
from engines.catalogue import Catalogue, Mask

METHOD = "exploration"
"""`method` of a line that was drawn; its score is 0, as nothing was scored."""
DRAW_S = 3600
"""Seconds for which a draw holds."""
DAY_S = 24 * 3600
CLOCKS_S = DAY_S
"""Seconds that an item may be created ahead of the request: backends' clocks differ, but an item dated years ahead is not always new."""

Rows = NDArray[np.intp]
Keys = NDArray[np.uint64]


class Drawn(NamedTuple):
    """New items by lot: catalogue `rows`, each drawn with probability `propensity`."""

    rows: list[int]
    propensity: float


class NewItems:
    """The new items of one catalogue: created within `days` before the request, or `young`, which came after the model."""

    def __init__(self, catalogue: Catalogue, days: float, young: Iterable[str] = ()) -> None:
        self._catalogue, self._window_s = catalogue, days * DAY_S
        self._young: Mask = np.zeros(len(catalogue.ids), dtype=np.bool_)
        self._young[catalogue.rows_of(young)] = True
        self._found: tuple[int, Rows] | None = None
        self._keys: tuple[int, Keys] | None = None

    def rows(self, at: float | None) -> Rows:
        """The live rows of the items that are new in the hour of `at`, in seconds since 1970; None: when the latest item was created."""
        hour = self._hour(at)
        found = self._found
        if found is None or found[0] != hour:
            start, created = hour * DRAW_S, self._catalogue.created
            dated = (created >= start - self._window_s) & (created <= start + DRAW_S + CLOCKS_S)
            found = self._found = (hour, np.flatnonzero((dated | self._young) & self._catalogue.alive))
        return found[1]

    def mixed_in(
        self,
        lines: Sequence[Recommendation],
        share: float,
        user_id: str,
        request: Request,
        allowed: Mask,
        metadata: Callable[[str], dict[str, Any]],
    ) -> list[Recommendation]:
        """`lines` with this share of the places given to new items: evenly spread, the last place first, the first place last.

        `allowed`: the rows that the request admits; used up.
        """
        places = share * len(lines)
        allowed[self._catalogue.rows_of(line.item_id for line in lines[: len(lines) - math.floor(places)])] = False
        drawn = self.draw(user_id, request.at, allowed, places)
        count, ids = len(drawn.rows), [self._catalogue.ids[row] for row in drawn.rows]
        reasons = [Reason(kind="new", text="new in the catalogue")] if request.reasons else []
        explored = {
            -(-len(lines) * number // count): Recommendation(
                item_id=item_id,
                score=0.0,
                rank=0,
                method=METHOD,
                reasons=reasons,
                metadata=metadata(item_id),
                propensity=drawn.propensity,
            )
            for number, item_id in enumerate(ids, 1)
        }
        others = (line for line in lines if line.item_id not in ids)
        return [msgspec.structs.replace(explored.get(rank) or next(others), rank=rank) for rank in range(1, len(lines) + 1)]

    def draw(self, user_id: str, at: float | None, allowed: Mask, places: float) -> Drawn:
        """Draw `places` new items (the fraction is the chance of one more) among the `allowed` of `rows(at)`. Each has the same chance."""
        hour, rows = self._hour(at), self.rows(at)
        keys = self._hashed(hour, rows)
        open_to = allowed[rows]
        rows, keys = rows[open_to], keys[open_to]
        digest = blake2b(f"{hour} {user_id}".encode(), digest_size=16).digest()
        seed, lot = (int.from_bytes(half, "little") for half in (digest[:8], digest[8:]))
        least = math.floor(places)
        chance = places - least
        count = least + (lot < chance * 2.0**64)
        drawn = _scattered(keys ^ np.uint64(seed))
        first = np.argpartition(drawn, count)[:count] if count < len(drawn) else np.arange(len(drawn))
        first = first[np.argsort(drawn[first])]
        expected = chance * min(least + 1, len(rows)) + (1 - chance) * min(least, len(rows))
        return Drawn(rows[first].tolist(), expected / len(rows) if len(rows) else 0.0)

    def _hour(self, at: float | None) -> int:
        return int((float(np.nanmax(self._catalogue.created, initial=0.0)) if at is None else at) // DRAW_S)

    def _hashed(self, hour: int, rows: Rows) -> Keys:
        """A hash of each row's id, kept for the hour."""
        held = self._keys
        if held is None or held[0] != hour:
            ids = self._catalogue.ids
            hashes = b"".join([blake2b(ids[row].encode(), digest_size=8).digest() for row in rows.tolist()])
            held = self._keys = (hour, np.frombuffer(hashes, dtype="<u8").astype(np.uint64))
        return held[1]


def _scattered(keys: Keys) -> Keys:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every bit of the key moves every bit of the result."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
