"""Lays out parts of the page: sections, figures and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

from training.report.charts import Estimate
from training.report.markup import Markup, element


def section(title: str, content: Markup) -> Markup:
    """A section of the page with its heading."""
    name = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")
    return element("section", element("h2", title, id=name), content, aria_labelledby=name)


def figure(charts: Sequence[Markup], caption: str = "", numbers: Markup | None = None) -> Markup:
    """Charts side by side, their caption, and a table of `numbers` that a click opens."""
    legend = element("figcaption", caption) if caption else ""
    return element(
        "figure",
        element("div", *charts, class_="charts"),
        legend,
        more("The numbers", numbers) if numbers is not None else "",
    )


def more(title: str, content: Markup) -> Markup:
    """Content that a click on `title` opens."""
    return element("details", element("summary", title), content)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int) -> Markup:
    """A table of numbers, whose first `text_columns` columns are text."""
    body = [
        element(
            "tr",
            *(
                element("td", value, class_="text" if column < text_columns else None)
                for column, value in enumerate(row)
            ),
        )
        for row in rows
    ]
    top = element("thead", element("tr", *(element("th", name, scope="col") for name in head)))
    return scrolling(element("table", top, element("tbody", *body), class_="plain"), "The numbers")


def scrolling(content: Markup, label: str) -> Markup:
    """A wide element that scrolls sideways; `label` names it for screen readers."""
    return element("div", content, class_="scrolling", role="region", aria_label=label, tabindex=0)


def cell(estimate: Estimate | None, digits: int, best: float | None) -> Markup:
    """A table cell of the mean, bold if it is `best`, above its interval."""
    if estimate is None:
        return element("td", "–")
    bold = best is not None and estimate.mean >= best > 0
    number = element("b" if bold else "span", f"{estimate.mean:.{digits}f}")
    interval: str | Markup = ""
    if estimate.low is not None and estimate.high is not None:
        interval = element("small", f"{estimate.low:.{digits}f}–{estimate.high:.{digits}f}")
    return element("td", number, interval)
