"""Masks secrets in all output: settings, errors, logs, tracebacks.

`masked_url` makes a URL safe to print, `error_text` another library's error about a URL. `redact`
masks, in every log line and traceback, the secrets of the settings of this process, which
`register` stores.

Of a URL whose secret cannot be located (an unescaped `#`, `/`, `?` or `@` in a password) only the
scheme is printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, unquote_plus

MASK = "***"
"""Replaces a secret."""
HARMLESS = frozenset(
    {
        "allow_bucket_creation",
        "allow_bucket_deletion",
        "charset",
        "connect_timeout",
        "db",
        "endpoint_override",
        "protocol",
        "region",
        "scheme",
        "ssl_cert_reqs",
        "sslmode",
        "timeout",
    }
)
"""Parameters of a URL whose values are printed; the values of all others are masked."""
SECRET_NAMES = frozenset(
    {
        "access_key",
        "api_key",
        "key",
        "passwd",
        "password",
        "secret",
        "secret_key",
        "session_token",
        "sslpassword",
        "token",
        "user",
        "username",
    }
)
"""Parameters whose names are printed beside the mask.

Any other name may be part of a password with an unescaped `&`.
"""
MIN_PART = 3
"""Minimum length of a part of a secret for which `error_text` hides another library's error."""
MIN_REGISTERED = 6
"""Minimum length of a secret that `redact` masks.

A shorter one occurs in ordinary words, where the mask would reveal it.
"""
KINDS = frozenset(
    {
        "file",
        "gs",
        "http",
        "https",
        "mysql",
        "postgres",
        "postgresql",
        "redis",
        "rediss",
        "s3",
        "sqlite",
        "unix",
    }
)
"""Schemes that are printed of a hidden URL.

Any other text before `://` may be part of a password.
"""

_PLAIN = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^@/?#\s]*)@)?"
    r"(?P<place>(?:[^@:/?#,\s\[\]]*|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
    # further sentinels
    r"(?:,(?:[^@:/?#,\s\[\]]*|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?)*"
    r"(?:/[^@?#\s]*)?)(?:\?(?P<query>[^@#\s]*))?"
)
_DELIMITERS = re.compile(r"[^0-9A-Za-z]+")

REDIS_FORM = "redis://[[user]:password@]host[:port][/database]"
SENTINEL_FORM = "redis+sentinel://[[user]:password@]host[:port],host[:port]/service[/database]"
CLUSTER_FORM = "redis+cluster://[[user]:password@]host[:port],host[:port]"
_HOST = r"(?:[^@:/?#,\s\[\]]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
_LOGIN = r"(?:[^@/?#\s\[\]]*@)?"
_REDIS = re.compile(
    rf"(?:rediss?://{_LOGIN}{_HOST}(?:/\d*)?"
    rf"|rediss?\+sentinel://{_LOGIN}{_HOST}(?:,{_HOST})*/[A-Za-z0-9_.-]+(?:/\d*)?"
    rf"|rediss?\+cluster://{_LOGIN}{_HOST}(?:,{_HOST})*/?"
    rf"|unix://{_LOGIN}/[^@?#\s]+)"
    r"(?:\?[A-Za-z_]+=[^&#\s]*(?:&[A-Za-z_]+=[^&#\s]*)*)?"
)

_registered: list[str] = []


def check_redis_url(url: str) -> None:
    """Raise ValueError for a URL that the client library would parse wrongly.

    The message shows the right form and no part of `url`.
    """
    if not _REDIS.fullmatch(url):
        raise ValueError(
            f"is not of the form {REDIS_FORM} (or rediss://, unix://), for Sentinel "
            f"{SENTINEL_FORM} (or rediss+sentinel://), or for a cluster {CLUSTER_FORM} (or "
            "rediss+cluster://). In user name and password write # as %23, "
            "/ as %2F, ? as %3F, @ as %40, : as %3A, [ as %5B, ] as %5D and % as %25; the URL is "
            "not shown, as it may hold a password"
        )


def is_plain(url: str) -> bool:
    """Whether the secret in a URL can be located.

    A path (no `://`) is plain unless it looks like `KEY:SECRET@bucket`.
    """
    return bool(_PLAIN.fullmatch(url)) if "://" in url else not re.search(r":.*@", url, re.DOTALL)


def masked_url(url: str) -> str:
    """A URL (or path) with user, password and the values of unlisted parameters masked."""
    if not is_plain(url):
        kind = url.partition("://")[0].lower()
        return f"{kind}://{MASK}" if kind.partition("+")[0] in KINDS else MASK
    match = _PLAIN.fullmatch(url)
    if match is None:
        return url
    user = "" if match["user"] is None else MASK + "@"
    query = (
        ""
        if match["query"] is None
        else "?" + "&".join(_parameter(text) for text in match["query"].split("&"))
    )
    return f"{match['scheme']}://{user}{match['place']}{query}"


def secrets_of(url: str) -> list[str]:
    """The parts of a URL that must not be printed, in every encoding, longest first.

    In doubt, a part counts as secret.
    """
    rest = url.partition("://")[2] or url
    secrets = [] if is_plain(url) else [rest]
    if "@" in rest:
        user = rest.rpartition("@")[0]
        name, colon, password = user.partition(":")
        secrets += [user, password] if colon else [user]
        # an access key; replies of a database or Redis often name the user, who is no secret
        if colon and url.startswith(("s3:", "gs:")):
            secrets.append(name)
    for parameter in rest.partition("?")[2].split("&"):
        name, _, value = parameter.partition("=")
        if name not in HARMLESS:
            secrets.append(value)
            # the rest of a password after an unescaped `&` looks like a name
            if name not in SECRET_NAMES:
                secrets.append(name)
    forms = {
        form
        for secret in secrets
        for form in (
            secret,
            unquote(secret),
            unquote_plus(secret),
            quote(secret, safe=""),
            quote_plus(secret),
        )
    }
    return sorted((form for form in forms if form), key=len, reverse=True)


def error_text(error: BaseException, *urls: str) -> str:
    """The text of another library's error about `urls`, on one line.

    Only its type, if the text may contain part of a secret of these URLs.
    """
    hidden = f"{type(error).__name__} (its text is not shown, as it may hold a part of a password)"
    if not all(is_plain(url) for url in urls):
        return hidden
    text = " ".join(str(error).split())
    secrets = [secret for url in urls for secret in secrets_of(url)]
    parts = {
        part
        for secret in secrets
        for part in (secret, *_DELIMITERS.split(secret))
        if len(part) >= MIN_PART
    }
    lowered = text.lower()  # a host name comes back in lower case
    if any(part.lower() in lowered for part in parts):
        return hidden
    return text


def register(secrets: Iterable[str]) -> None:
    """Store secrets of this process, which `redact` masks from now on."""
    for secret in secrets:
        if len(secret) >= MIN_REGISTERED and secret not in _registered:
            _registered.append(secret)
    _registered.sort(key=len, reverse=True)


def redact(text: str) -> str:
    """`text` with every registered secret masked."""
    for secret in _registered:
        text = text.replace(secret, MASK)
    return text


def _parameter(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not equals:
        return MASK
    return text if name in HARMLESS else f"{name}={MASK}" if name in SECRET_NAMES else MASK
