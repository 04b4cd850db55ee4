"""Refuses request heads that a proxy and this server could read differently (request smuggling).

The parser refuses most of them: both framing headers, two lengths, bare line feeds, folded headers.
This module refuses the rest: more than one Host, an ambiguous Transfer-Encoding, a target that
names another host than Host does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from api.errors import ApiError

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]*)(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)(.*)", re.DOTALL)
_SINGLE = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"authorization",
        b"x-api-key",
        b"expect",
    }
)
"""Headers that may occur once: of two, a proxy might obey one and this server the other."""
_CLOSE = {"connection": "close"}


def check(
    method: bytes, target: bytes, version: str, headers: Iterable[tuple[bytes, bytes]]
) -> bytes:
    """The target in origin form (`/path?query`, or `*`). `headers`: names in lower case.

    Raises ApiError 400, after which the connection is closed: where the next request begins is
    uncertain.
    """
    single: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _SINGLE:
            if name in single:
                raise _bad(f"the header {name.decode()} stands more than once")
            single[name] = value
    if version not in ("1.0", "1.1"):
        raise ApiError(505, "http_version_not_supported", "this server speaks HTTP/1.1", _CLOSE)
    host = single.get(b"host")
    if host is None and version == "1.1":
        raise _bad("a request of HTTP/1.1 needs the header Host")
    if host is not None and not _HOST.fullmatch(host.strip()):
        raise _bad("the header Host is no host name, with or without a port")
    if (coding := single.get(b"transfer-encoding")) is not None:
        if b"content-length" in single:
            raise _bad("Content-Length and Transfer-Encoding exclude each other")
        if coding.strip().lower() != b"chunked" or version != "1.1":
            raise _bad("the only Transfer-Encoding is chunked, with HTTP/1.1")
    return _origin_form(method, target, host)


def _origin_form(method: bytes, target: bytes, host: bytes | None) -> bytes:
    if b"#" in target or not target.isascii():
        raise _bad(
            "the request target may hold neither a fragment (#) nor bytes beyond ASCII: "
            "percent-encode them"
        )
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise _bad("the request target must begin with /")
    if host is None or absolute[1].lower() != host.strip().lower():
        raise _bad("the request target and the header Host name different hosts")
    return absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]


def _bad(detail: str) -> ApiError:
    return ApiError(400, "bad_request", detail, _CLOSE)
