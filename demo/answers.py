"""Reads recommendations over HTTP and shows them as tables: the end of a demo."""

from __future__ import annotations

from typing import Any

import httpx
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.errors import ProcessFailed

SHOWN = 5
"""Items of an answer in the table."""


class Reader:
    """A client of the API, as an application engineer would write it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=10.0)

    def ready(self) -> bool:
        """True once the API is ready."""
        try:
            return self._http.get("/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def version(self) -> str | None:
        """The bundle that the API answers from; None before the first one."""
        version: str | None = self._get("/health/ready")["model_version"]
        return version

    def retrain(self) -> str:
        """The step of the running retrain, and how far it is; empty without one."""
        last = self._get("/api/models")["retrain"] or {}
        return ", ".join(text for text in (last.get("step"), last.get("progress")) if text)

    def user(self, user_id: str) -> dict[str, Any]:
        """The state of a user. Raises ProcessFailed."""
        return self._get(f"/api/users/{user_id}")

    def recommendations(self, path: str) -> dict[str, Any]:
        """The answer at `path`. Raises ProcessFailed."""
        return self._get(path)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _get(self, path: str) -> dict[str, Any]:
        try:
            answer = self._http.get(path)
        except httpx.TransportError as error:
            raise ProcessFailed(f"GET {self.url}{path}: {type(error).__name__} {error}") from None
        if answer.status_code != httpx.codes.OK:
            raise ProcessFailed(
                f"GET {self.url}{path} answered {answer.status_code}: {answer.text[:200]}"
            )
        body: dict[str, Any] = answer.json()
        return body


def show(console: Console, kind: str, url: str, answer: dict[str, Any]) -> None:
    """Print one answer as a table, and the curl command that reads it."""
    count = answer["interaction_count"]
    console.print(
        f"\n[bold]{kind}[/] user {escape(answer['user_id'])}, {count} "
        f"interaction{'' if count == 1 else 's'}: "
        f"[bold green]method_used {answer['method_used']}[/]"
    )
    for fallback in answer["fallbacks"]:
        console.print(
            f"  [dim]fell back from {fallback['engine']}: {escape(fallback['cause'])}[/]",
            highlight=False,
        )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("#", justify="right")
    table.add_column("item")
    table.add_column("title")
    table.add_column("score", justify="right")
    table.add_column("why")
    for line in answer["recommendations"][:SHOWN]:
        why = "; ".join(reason["text"] for reason in line["reasons"][:2])
        title = str(line["metadata"].get("title") or "")
        table.add_row(
            str(line["rank"]),
            escape(line["item_id"]),
            escape(title),
            f"{line['score']:.3f}",
            escape(why),
        )
    console.print(table, highlight=False)
    console.print(f"  curl '{url}'", highlight=False, soft_wrap=True, style="dim")
