"""Answers of the connection itself, which no route makes: they close the connection."""

from __future__ import annotations

from http import HTTPStatus

from api.errors import ApiError

_CLOSE = {"connection": "close"}


def head_too_large(most: int) -> ApiError:
    """431: the head has more bytes than the limit."""
    return ApiError(
        431,
        "head_too_large",
        f"the request's head has more than {most} bytes (API_MAX_HEAD_BYTES)",
        _CLOSE,
    )


def head_timeout() -> ApiError:
    """408: the head did not arrive in time."""
    return ApiError(
        408,
        "head_timeout",
        "the request's head did not arrive in time (API_HEAD_TIMEOUT_S)",
        _CLOSE,
    )


def not_http(error: object) -> ApiError:
    """400: the bytes are no valid request."""
    return ApiError(400, "bad_request", f"not a valid request of HTTP/1.1: {error}", _CLOSE)


def encoded(error: ApiError) -> bytes:
    """The bytes of an answer that closes the connection."""
    response = error.response()
    headers = {b"connection": b"close", **dict(response.raw_headers)}
    lines = [b"HTTP/1.1 %d %s" % (error.status, HTTPStatus(error.status).phrase.encode())]
    lines += [name + b": " + value for name, value in headers.items()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body)


def uri_too_long(most: int) -> ApiError:
    """414: the request target is over its limit."""
    return ApiError(
        414,
        "uri_too_long",
        f"the request target has more than {most} bytes (API_MAX_HEAD_BYTES)",
        _CLOSE,
    )


def too_many_headers(most: int) -> ApiError:
    """431: the head has more headers than the limit."""
    return ApiError(
        431, "too_many_headers", f"the head has more than {most} headers (API_MAX_HEADERS)", _CLOSE
    )
