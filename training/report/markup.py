"""HTML and SVG by string building: what is not markup already is escaped, so no id or text of
anybody's can become a part of a page.
"""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is markup already."""

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
    """One piece of markup after the other; plain text is escaped."""
    return Markup("".join(each if isinstance(each, Markup) else escape(each) for each in content))
