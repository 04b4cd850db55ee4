"""Prints answers and explanations as tables or as JSON, for the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from core.types import Fallback, Recommendations
from engines.explain import Explanation
from models.bundle import Bundle

MIN_WIDTH = 100
"""Characters in a line, at least, when the output is not a terminal."""


def show(value: msgspec.Struct, as_json: bool, render: Callable[[], RenderableType]) -> None:
    """Print `value` as JSON, or the result of `render`."""
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, MIN_WIDTH)
    console.print(render())


def recommendations(answer: Recommendations, bundle: Bundle) -> RenderableType:
    """An answer as a table, with the missing parts of the bundle and the fallbacks."""
    table = Table("#", "item", "title", "score", "method", "why", header_style="bold")
    for item in answer.recommendations:
        why = "; ".join(reason.text for reason in item.reasons)
        if not isinstance(item.propensity, msgspec.UnsetType):
            why += f" (drawn with a probability of {item.propensity:.3g})"
        title = item.metadata.get("title") or ""
        table.add_row(
            str(item.rank),
            escape(item.item_id),
            escape(title),
            f"{item.score:.4g}",
            item.method,
            escape(why),
        )
    head = f"[bold]{answer.method_used}[/] from model {answer.model_version or 'none'}"
    if answer.user_id:
        head += f", {answer.interaction_count} interactions"
    missing = [
        f"[yellow]missing part {part}:[/] {escape(cause)}" for part, cause in bundle.missing.items()
    ]
    body: RenderableType = table if answer.recommendations else "[yellow]nothing to show[/]"
    return Group(head, *missing, *map(_fallback, answer.fallbacks), body)


def explanation(view: Explanation) -> RenderableType:
    """An explanation as two tables."""
    if view.shown:
        verdict = f"[green]shown[/] at rank {view.rank} by {view.method_used}"
    elif view.removed_by:
        verdict = "[red]not shown[/]: " + escape("; ".join(view.removed_by))
    else:
        rank = (
            ""
            if view.rank_if_allowed is None
            else f": rank {view.rank_if_allowed} with {view.method_used}"
        )
        verdict = "[red]not shown[/]" + rank
    engines = Table(
        "engine", "score", "rank", "of", "normalised", "weight", "remark", header_style="bold"
    )
    parts = Table("engine", "contribution", "from", "your items", "attributes", header_style="bold")
    for row in view.engines:
        counts = str(row.rank or ""), str(row.candidates or "")
        engines.add_row(
            row.engine,
            _number(row.score),
            *counts,
            _number(row.normalised),
            _number(row.weight),
            escape(row.cause or ""),
        )
        for reason in row.contributions:
            items, attributes = (
                escape(", ".join(reason.items)),
                escape(", ".join(reason.attributes)),
            )
            parts.add_row(
                row.engine, _number(reason.contribution), escape(reason.text), items, attributes
            )
    return Group(f"[bold]{escape(view.item_id)}[/] {verdict}", view.routing, engines, parts)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _fallback(step: Fallback) -> str:
    return f"[yellow]{step.engine} did not fill the answer:[/] {escape(step.cause)}"
