"""Exploration: gives some places of an answer to new items, drawn at random.

The draw does not depend on the scores of the models.

The draw keeps no state: a hash of user, hour and item orders the new items, and the first ones get
the places. A list therefore does not change when it is requested again within the hour, every
process draws the same items, and the probability of each draw is known exactly. The answer holds it
as `propensity`, for estimates that weight outcomes by 1 / propensity (Horvitz and Thompson 1952).
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
"""`method` of a line whose item was drawn; its score is 0, because no engine scored it."""
DRAW_S = 3600
"""Seconds for which a draw is valid."""
DAY_S = 24 * 3600
CLOCK_SKEW_S = DAY_S
"""Seconds by which an item may be created after the request: clocks of backends differ, but an item
dated years ahead is not new.
"""

Rows = NDArray[np.intp]
Keys = NDArray[np.uint64]


class Draw(NamedTuple):
    """Drawn new items: catalogue `rows`, each drawn with probability `propensity`."""

    rows: list[int]
    propensity: float


class NewItems:
    """The new items of one catalogue.

    They were created within `days` before the request, or are in `untrained`: ids that came after
    the model.
    """

    def __init__(self, catalogue: Catalogue, days: float, untrained: Iterable[str] = ()) -> None:
        self._catalogue, self._window_s = catalogue, days * DAY_S
        self._is_untrained: Mask = np.zeros(len(catalogue.ids), dtype=np.bool_)
        self._is_untrained[catalogue.rows_of(untrained)] = True
        self._rows: tuple[int, Rows] | None = None  # of the hour
        self._keys: tuple[int, Keys] | None = None  # of the hour

    def rows(self, at: float | None) -> Rows:
        """Live rows (n,) of the items that are new in the hour of `at`, in seconds since 1970.

        None: the hour in which the latest item was created.
        """
        hour = self._hour(at)
        cached = self._rows
        if cached is None or cached[0] != hour:
            start, created = hour * DRAW_S, self._catalogue.created
            is_dated = (created >= start - self._window_s) & (
                created <= start + DRAW_S + CLOCK_SKEW_S
            )
            cached = self._rows = (
                hour,
                np.flatnonzero((is_dated | self._is_untrained) & self._catalogue.alive),
            )
        return cached[1]

    def insert(
        self,
        lines: Sequence[Recommendation],
        share: float,
        user_id: str,
        request: Request,
        allowed: Mask,
        metadata: Callable[[str], dict[str, Any]],
    ) -> list[Recommendation]:
        """`lines` with this share of the places given to new items.

        The places are evenly spread; the last place is the first to be given, the first the last.

        `allowed` (n_rows,) bool: rows that pass the request's filters; overwritten.
        """
        places = share * len(lines)
        allowed[
            self._catalogue.rows_of(
                line.item_id for line in lines[: len(lines) - math.floor(places)]
            )
        ] = False
        drawn = self.draw(user_id, request.at, allowed, places)
        count, ids = len(drawn.rows), [self._catalogue.ids[row] for row in drawn.rows]
        reasons = [Reason(kind="new", text="new in the catalogue")] if request.reasons else []
        new_lines = {
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
        return [
            msgspec.structs.replace(new_lines.get(rank) or next(others), rank=rank)
            for rank in range(1, len(lines) + 1)
        ]

    def draw(self, user_id: str, at: float | None, allowed: Mask, places: float) -> Draw:
        """Draw `places` new items among the `allowed` of `rows(at)`.

        Each has the same probability.

        The fraction of `places` is the probability of one item more.
        """
        hour, rows = self._hour(at), self.rows(at)
        keys = self._hash(hour, rows)
        is_allowed = allowed[rows]
        rows, keys = rows[is_allowed], keys[is_allowed]
        digest = blake2b(f"{hour} {user_id}".encode(), digest_size=16).digest()
        seed, dice = (int.from_bytes(half, "little") for half in (digest[:8], digest[8:]))
        whole = math.floor(places)
        fraction = places - whole
        count = whole + (dice < fraction * 2.0**64)
        order_keys = _scatter(keys ^ np.uint64(seed))
        first = (
            np.argpartition(order_keys, count)[:count]
            if count < len(order_keys)
            else np.arange(len(order_keys))
        )
        first = first[np.argsort(order_keys[first])]
        expected_count = fraction * min(whole + 1, len(rows)) + (1 - fraction) * min(
            whole, len(rows)
        )
        return Draw(rows[first].tolist(), expected_count / len(rows) if len(rows) else 0.0)

    def _hour(self, at: float | None) -> int:
        return int(
            (float(np.nanmax(self._catalogue.created, initial=0.0)) if at is None else at) // DRAW_S
        )

    def _hash(self, hour: int, rows: Rows) -> Keys:
        """A hash of each row's id (n,) u64, cached for the hour."""
        cached = self._keys
        if cached is None or cached[0] != hour:
            ids = self._catalogue.ids
            hashes = b"".join(
                [blake2b(ids[row].encode(), digest_size=8).digest() for row in rows.tolist()]
            )
            cached = self._keys = (hour, np.frombuffer(hashes, dtype="<u8").astype(np.uint64))
        return cached[1]


def _scatter(keys: Keys) -> Keys:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014).

    Every bit of a key affects every bit of the result.
    """
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
