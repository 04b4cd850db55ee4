"""Builds HTML and SVG as strings.

Text that is not Markup is escaped, so an id or a title can never become part of the page's code.
"""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is already HTML or SVG."""

    __slots__ = ()


def element(tag: str, *content: str | Markup, **attributes: object) -> Markup:
    """`<tag attributes>content</tag>`.

    `content` is escaped unless it is Markup; attributes always are, and those that are None are
    left out. `class_` stands for `class`, `aria_label` for `aria-label`.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>{joined(*content)}</{tag}>")


def joined(*content: str | Markup) -> Markup:
    """Concatenate markup and text; text is escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in content))
