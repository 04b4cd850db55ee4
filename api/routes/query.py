"""Parses the query strings of reads into requests to the engines.

It does so without FastAPI's machinery, because it runs on every read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.requests import Request as HttpRequest

from api.errors import invalid
from core.types import AttributeFilter, Filters, Request, UseCase
from engines.router import CHAIN
from engines.selection.filters import defaults
from store.state.entities.trending import WINDOWS

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_LISTS = frozenset({"category", "item_type", "exclude"})
MAX_VALUES = 1000
"""Values in one filter: with more, a single read would block the process."""


class Query:
    """The parameters of one read.

    Raises ApiError 422, which names the invalid parameter.
    """

    def __init__(self, query_string: bytes, accepted: Iterable[str]) -> None:
        """`accepted`: the names that this route accepts; `attr` stands for every `attr.<name>`."""
        self._scalars: dict[str, str] = {}
        self._lists: dict[str, list[str]] = {}
        self._attributes: dict[str, list[str]] = {}
        names = frozenset(accepted)
        for pair in query_string.split(b"&"):
            if not pair:
                continue
            raw_name, _, raw_value = pair.partition(b"=")
            name, value = _decoded(raw_name), _decoded(raw_value)
            if name.startswith("attr.") and "attr" in names:
                self._attributes.setdefault(name[5:], []).append(value)
            elif name not in names:
                raise invalid(
                    (
                        f"unknown parameter {name!r}; this path accepts "
                        f"{', '.join(sorted(names - {'attr'}))}"
                    )
                    + (", attr.<name>" if "attr" in names else ""),
                    "unknown_parameter",
                )
            elif name in _LISTS:
                self._lists.setdefault(name, []).append(value)
            elif name in self._scalars:
                raise invalid(f"{name} occurs twice")
            else:
                self._scalars[name] = value

    def request(self, max_limit: int, use_case: UseCase | None = None) -> Request:
        """The request to the engines; the use case sets what the query string leaves out."""
        engine = self._scalars.get("engine")
        if engine is not None and engine not in CHAIN:
            raise invalid(f"engine {engine!r} is not one of {', '.join(CHAIN)}")
        window = self._scalars.get("window")
        if window is not None and window not in WINDOWS:
            raise invalid(f"window {window!r} is not one of {', '.join(WINDOWS)}")
        default_filters = defaults(use_case)
        return Request(
            limit=self._limit(max_limit),
            use_case=use_case,
            engine=engine,
            reasons=self.boolean("reasons", True),
            window=window,
            diversity=self._share("diversity"),
            explore=self._share("explore"),
            filters=Filters(
                item_types=self._values("item_type"),
                categories=self._values("category"),
                attributes=tuple(_attribute_filters(self._attributes)),
                available_only=self.boolean("available_only", default_filters.available_only),
                exclude_seen=not self.boolean("include_seen", not default_filters.exclude_seen),
                exclude_items=frozenset(self._values("exclude")),
            ),
        )

    def scalar(self, name: str) -> str | None:
        """The parameter's text, or None."""
        return self._scalars.get(name)

    def boolean(self, name: str, default: bool) -> bool:
        """true/false, 1/0, yes/no, on/off."""
        text = self._scalars.get(name)
        if text is None:
            return default
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise invalid(f"{name} must be true or false, not {text!r}")

    def _limit(self, most: int) -> int:
        text = self._scalars.get("limit")
        if text is None:
            return min(10, most)
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
            raise invalid(f"limit must be a whole number from 1 to {most}, not {text!r}")
        return int(text)

    def _share(self, name: str) -> float | None:
        text = self._scalars.get(name)
        if text is None:
            return None
        share = _number(name, text)
        if not 0 <= share <= 1:
            raise invalid(f"{name} must be a number from 0 to 1, not {text!r}")
        return share

    def _values(self, name: str) -> tuple[str, ...]:
        return _split(name, self._lists.get(name, []))


def _split(name: str, texts: list[str]) -> tuple[str, ...]:
    """The values of a parameter: `a,b` is the same as `a` and `b`.

    A text with a comma is a value, too, so that an id may contain a comma.
    """
    values: dict[str, None] = {}
    for text in texts:
        if "," in text:
            values.update(dict.fromkeys(part for part in text.split(",") if part))
        if text:
            values[text] = None
    if not values and texts:
        raise invalid(f"{name} is empty")
    if len(values) > MAX_VALUES:
        raise invalid(f"{name} has more than {MAX_VALUES} values")
    return tuple(values)


def _attribute_filters(parameters: dict[str, list[str]]) -> Iterable[AttributeFilter]:
    """`stage=seed` equals, `stage=seed,a` one of, `size.min=3` and `size.max=9` a range."""
    ranges: dict[str, dict[str, float]] = {}
    for name, texts in parameters.items():
        base, dot, bound = name.rpartition(".")
        if dot and base and bound in ("min", "max"):
            if len(texts) > 1:
                raise invalid(f"attr.{name} occurs twice")
            ranges.setdefault(base, {})[bound] = _number(f"attr.{name}", texts[0])
            continue
        if not name:
            raise invalid("attr. names no attribute; write attr.<name>=<value>")
        values = _split(f"attr.{name}", texts)
        yield (
            AttributeFilter(name=name, equals=values[0])
            if len(values) == 1
            else AttributeFilter(name=name, one_of=values)
        )
    for name, bounds in ranges.items():
        yield AttributeFilter(name=name, low=bounds.get("min"), high=bounds.get("max"))


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise invalid(f"{name} must be a finite number, not {text!r}")
    return number


def _decoded(raw: bytes) -> str:
    try:
        return (
            unquote_to_bytes(raw.replace(b"+", b" ")).decode()
            if b"%" in raw or b"+" in raw
            else raw.decode()
        )
    except UnicodeDecodeError:
        raise invalid("the query string is not UTF-8 once percent-decoded") from None


def plain_query(request: HttpRequest, *accepted: str) -> dict[str, str]:
    """The parameters of a route that lists something. Raises ApiError 422: unknown, or twice."""
    text = request.scope["query_string"].decode("latin-1")
    values: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in accepted:
            raise invalid(
                f"unknown parameter {name!r}; this path accepts {', '.join(accepted)}",
                "unknown_parameter",
            )
        if name in values:
            raise invalid(f"{name} occurs twice")
        values[name] = value
    return values


def whole_number(values: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A parameter from 1 to `most`. Raises ApiError 422."""
    text = values.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise invalid(f"{name} must be a whole number from 1 to {most}, not {text[:100]!r}")
    return int(text)
