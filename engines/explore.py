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
        created = [np.nan if item is None or item.created_at is None else item.created_at for item in catalogue.items]
        self._created: NDArray[np.float64] = np.array(created, dtype=np.float64)
        self._young: Mask = np.zeros(len(catalogue.ids), dtype=np.bool_)
        self._young[catalogue.rows_of(young)] = True
        self._held: tuple[int, Rows, Keys] | None = None

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
        """Draw `places` new items (the fraction is the chance of one more) among the `allowed` rows, for a request at time `at`.

        `at`: seconds since 1970; None: when the latest item was created. Each of the pool has the same chance.
        """
        if at is None:
            at = float(np.nanmax(self._created, initial=0.0))
        hour = int(at // DRAW_S)
        rows, keys = self._pool(hour)
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

    def _pool(self, hour: int) -> tuple[Rows, Keys]:
        """Live rows of the items that are new in an hour, and a hash of each one's id."""
        held = self._held
        if held is None or held[0] != hour:
            at = hour * DRAW_S
            dated = (self._created >= at - self._window_s) & (self._created <= at + DRAW_S + CLOCKS_S)
            rows = np.flatnonzero((dated | self._young) & self._catalogue.alive)
            ids = self._catalogue.ids
            hashes = b"".join([blake2b(ids[row].encode(), digest_size=8).digest() for row in rows.tolist()])
            held = self._held = (hour, rows, np.frombuffer(hashes, dtype="<u8").astype(np.uint64))
        return held[1:]


def _scattered(keys: Keys) -> Keys:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every bit of the key moves every bit of the result."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
