"""Maps ids to rows of a matrix and back."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from core.errors import ModelCorrupt
from core.process.background import pause, with_pauses
from models import files

UNKNOWN = -1


class IdMap:
    """Row `r` of a matrix belongs to `ids[r]`. Immutable."""

    __slots__ = ("__weakref__", "_rows", "ids")

    def __init__(self, ids: Sequence[str]) -> None:
        """Raises ValueError for a duplicate id."""
        self.ids: list[str] = list(ids)
        self._rows: dict[str, int] = {item_id: row for row, item_id in enumerate(self.ids)}
        if len(self._rows) != len(self.ids):
            duplicate = next(id_ for id_, count in Counter(self.ids).items() if count > 1)
            raise ValueError(f"duplicate id {duplicate!r}")

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._rows

    def row(self, item_id: str) -> int:
        """The row of `item_id`, or UNKNOWN (-1)."""
        return self._rows.get(item_id, UNKNOWN)

    def rows(self, ids: Iterable[str]) -> NDArray[np.int32]:
        """The rows (n,) int32 of `ids`, UNKNOWN (-1) for an unknown id."""
        return np.array([self._rows.get(item_id, UNKNOWN) for item_id in ids], dtype=np.int32)

    def save(self, path: Path) -> None:
        """Write `{"id": row, ...}`."""
        files.write_json(path, self._rows)

    @classmethod
    def load(cls, path: Path) -> IdMap:
        """Read what `save` wrote; a file with the same bytes as one in use has the same map.

        So the parts of a bundle share one map, and two bundles do. Raises ModelMissing,
        ModelCorrupt.
        """
        digest = hashlib.sha256(files.read_bytes(path)).digest()
        if (loaded := _loaded.get(digest)) is not None:
            return loaded
        rows = files.read_entries(path, dict[str, int])
        ids = sorted(rows, key=rows.__getitem__)
        if [rows[item_id] for item_id in with_pauses(ids)] != list(range(len(ids))):
            raise ModelCorrupt(f"{path}: the rows must be 0..{len(ids) - 1}, each once")
        pause()
        loaded = _loaded[digest] = cls(ids)
        return loaded


_loaded: WeakValueDictionary[bytes, IdMap] = WeakValueDictionary()
"""sha256 of a file -> the map that was read from it."""
