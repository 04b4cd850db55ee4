"""Counts the rows of an import by what became of them, and shows the counts as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from core.process.tables import Column, Table
from store.tables.rows import Reject

_FIRST = 3
_ADVICE = {"no timestamp": "give --default-timestamp to send them"}


class Tally:
    """What became of the rows.

    `read`: rows of the source; `counts`: `sent`, `rejected`, `duplicates` and each reason to leave
    a row out; `missing`: missing cells by column.
    """

    def __init__(self) -> None:
        self.read = 0
        self.counts: Counter[str] = Counter()
        self.missing: Mapping[str, int] = {}
        self.by_code: Counter[str] = Counter()
        self._first: dict[str, list[Reject]] = {}

    def reject(self, reject: Reject) -> None:
        """Count a rejected row."""
        self.counts["rejected"] += 1
        self.by_code[reject.code] += 1
        first = self._first.setdefault(reject.code, [])
        if len(first) < _FIRST:
            first.append(reject)

    @property
    def rejected_share(self) -> float:
        """The share of the rows that was rejected."""
        return self.counts["rejected"] / self.read if self.read else 0.0

    def table(self, title: str) -> Table:
        """The counts, with the first three row numbers of each reason to reject."""
        table = Table(
            Column("rows"),
            Column("count", number=True),
            Column("first rows", 1),
            Column("reason of the first", wraps=True),
            title=title,
        )
        table.add("read", f"{self.read:,}", "", "")
        for name, count in sorted(self.counts.items(), key=lambda item: item[0] != "sent"):
            if name != "rejected":
                table.add(name, f"{count:,}", "", _ADVICE.get(name, ""))
        for column, count in self.missing.items():
            table.add(f"missing {column}", f"{count:,}", "", "")
        for code, count in self.by_code.most_common():
            first = self._first[code]
            numbers = ", ".join(str(reject.number) for reject in first)
            table.add(f"rejected: {code}", f"{count:,}", numbers, _text(first[0].reason))
        return table

    def facts(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "read": self.read,
            **self.counts,
            "missing": dict(self.missing),
            "rejects": [
                {
                    "code": code,
                    "rows": count,
                    "first_rows": [reject.number for reject in self._first[code]],
                    "reason": _text(self._first[code][0].reason),
                }
                for code, count in self.by_code.most_common()
            ],
        }


def _text(reason: str) -> str:
    """The reason without the surrogates of a text that is no UTF-8."""
    return reason.encode("utf-8", "backslashreplace").decode()
