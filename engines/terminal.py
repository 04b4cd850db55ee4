"""Answers as tables for people, or as JSON for programs."""

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

NARROWEST = 100
"""Columns of a table where the output is no terminal."""


def show(value: msgspec.Struct, as_json: bool, render: Callable[[], RenderableType]) -> None:
    """Print `value`: as JSON, or as `render` draws it."""
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, NARROWEST)
    console.print(render())


def recommendations(answer: Recommendations, bundle: Bundle) -> RenderableType:
    """An answer as a table, with what was missing on the way to it."""
    table = Table("#", "item", "title", "score", "method", "why", header_style="bold")
    for line in answer.recommendations:
        why = "; ".join(reason.text for reason in line.reasons)
        if not isinstance(line.propensity, msgspec.UnsetType):
            why += f" (drawn with a probability of {line.propensity:.3g})"
        title = line.metadata.get("title") or ""
        table.add_row(str(line.rank), escape(line.item_id), escape(title), f"{line.score:.4g}", line.method, escape(why))
    head = f"[bold]{answer.method_used}[/] from model {answer.model_version or 'none'}"
    if answer.user_id:
        head += f", {answer.interaction_count} interactions"
    missing = [f"[yellow]missing part {part}:[/] {escape(cause)}" for part, cause in bundle.missing.items()]
    body: RenderableType = table if answer.recommendations else "[yellow]nothing to show[/]"
    return Group(head, *missing, *map(_fallback, answer.fallbacks), body)


def explanation(found: Explanation) -> RenderableType:
    """An explanation as two tables."""
    if found.shown:
        verdict = f"[green]shown[/] at rank {found.rank} by {found.method_used}"
    elif found.removed_by:
        verdict = "[red]not shown[/]: " + escape("; ".join(found.removed_by))
    else:
        place = "" if found.rank_if_allowed is None else f": rank {found.rank_if_allowed} with {found.method_used}"
        verdict = "[red]not shown[/]" + place
    engines = Table("engine", "score", "rank", "of", "normalised", "weight", "remark", header_style="bold")
    parts = Table("engine", "contribution", "from", "your items", "attributes", header_style="bold")
    for view in found.engines:
        numbers = _number(view.score), str(view.rank or ""), str(view.candidates or ""), _number(view.normalised), _number(view.weight)
        engines.add_row(view.engine, *numbers, escape(view.cause or ""))
        for reason in view.contributions:
            named = (escape(", ".join(each)) for each in (reason.items, reason.attributes))
            parts.add_row(view.engine, _number(reason.contribution), escape(reason.text), *named)
    return Group(f"[bold]{escape(found.item_id)}[/] {verdict}", found.routing, engines, parts)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _fallback(step: Fallback) -> str:
    return f"[yellow]{step.engine} did not fill the answer:[/] {escape(step.cause)}"
