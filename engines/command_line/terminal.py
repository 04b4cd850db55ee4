"""Prints answers and explanations as tables or as JSON, for the command line."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from rich.console import Console
from rich.markup import escape

from core.process import tables
from core.process.tables import Column, Table
from core.types import Recommendations
from engines.explain import Explanation
from models.bundle import Bundle


def show(
    value: msgspec.Struct, as_json: bool, wide: bool, render: Callable[[Console], None]
) -> None:
    """Print `value` as JSON, or let `render` print it."""
    if as_json:
        tables.print_json(value)
    else:
        render(tables.console(wide))


def recommendations(answer: Recommendations, bundle: Bundle, console: Console) -> None:
    """Print an answer as a table, with the missing parts of the bundle and the fallbacks."""
    head = f"[bold]{answer.method_used}[/] from model {answer.model_version or 'none'}"
    if answer.user_id:
        head += f", {answer.interaction_count} interactions"
    console.print(head)
    for part, cause in bundle.missing.items():
        console.print(f"[yellow]missing part {part}:[/] {escape(cause)}")
    for step in answer.fallbacks:
        console.print(f"[yellow]{step.engine} did not fill the answer:[/] {escape(step.cause)}")
    if not answer.recommendations:
        console.print("[yellow]nothing to show[/]")
        return
    console.print()
    table = Table(
        Column("#", number=True),
        Column("item"),
        Column("title", 2, wraps=True),
        Column("score", number=True),
        Column("method", 1),
        Column("why", wraps=True),
    )
    for item in answer.recommendations:
        why = "; ".join(reason.text for reason in item.reasons)
        if not isinstance(item.propensity, msgspec.UnsetType):
            why += f" (drawn with a probability of {item.propensity:.3g})"
        title = item.metadata.get("title") or ""
        table.add(item.rank, item.item_id, title, f"{item.score:.4g}", item.method, why)
    table.show(console)


def explanation(view: Explanation, console: Console) -> None:
    """Print an explanation as two tables."""
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
    console.print(f"[bold]{escape(view.item_id)}[/] {verdict}")
    console.print(view.routing)
    console.print()
    engines = Table(
        Column("engine"),
        Column("score", number=True),
        Column("rank", number=True),
        Column("of", number=True),
        Column("normalised", 1, number=True),
        Column("weight", number=True),
        Column("remark", wraps=True),
    )
    parts = Table(
        Column("engine"),
        Column("contribution", number=True),
        Column("from", wraps=True),
        Column("your items", 1, wraps=True),
        Column("attributes", 2, wraps=True),
    )
    for row in view.engines:
        engines.add(
            row.engine,
            _number(row.score),
            row.rank or "",
            row.candidates or "",
            _number(row.normalised),
            _number(row.weight),
            row.cause or "",
        )
        for reason in row.contributions:
            items, attributes = ", ".join(reason.items), ", ".join(reason.attributes)
            parts.add(row.engine, _number(reason.contribution), reason.text, items, attributes)
    engines.show(console)
    console.print()
    parts.show(console)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
