"""Keeps secrets out of everything that is shown: settings, errors, logs, tracebacks.

`masked_url` is how a URL may be shown, `error_text` how another library's error about it may be.
`redact` is the last net under both: it masks the secrets of this process' settings, which
`register` notes, in every log line and traceback.

A URL in which the secret cannot be told from the rest (an unescaped `#`, `/`, `?` or `@` in a
password) is not shown at all, only its kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, unquote_plus

MASK = "***"
"""What stands in the place of a secret."""
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
    }
    | {"sslmode", "ssl_cert_reqs", "timeout"}
)
"""Parameters of a URL whose values are shown; the value of every other one is masked."""
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
"""Parameters whose names are shown beside a mask; any other name may be a part of a password that
holds an unescaped `&`.
"""
MIN_PART = 3
"""Characters from which a part of a secret in another library's error makes that error unfit to be
shown.
"""
MIN_REGISTERED = 6
"""Characters of the shortest secret that `redact` masks: a shorter one occurs in ordinary words,
where masking it would tell it.
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
"""Schemes that are shown of a URL that is not shown: anything else before `://` may be a part of a
password.
"""

_PLAIN = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^@/?#\s]*)@)?(?P<place>(?:[^@:/?#\s\[\]]*|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
    r"(?:/[^@?#\s]*)?)(?:\?(?P<query>[^@#\s]*))?"
)
_DELIMITERS = re.compile(r"[^0-9A-Za-z]+")

REDIS_FORM = "redis://[[user]:password@]host[:port][/database]"
_REDIS = re.compile(
    r"(?:rediss?://(?:[^@/?#\s\[\]]*@)?(?:[^@:/?#\s\[\]]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/\d*)?|unix://(?:[^@/?#\s\[\]]*@)?/[^@?#\s]+)"
    r"(?:\?[A-Za-z_]+=[^&#\s]*(?:&[A-Za-z_]+=[^&#\s]*)*)?"
)

_registered: list[str] = []


def check_redis_url(url: str) -> None:
    """Raises ValueError, which shows the right form and nothing of `url`, for one that the client
    library would take apart wrongly.
    """
    if not _REDIS.fullmatch(url):
        raise ValueError(
            f"is not of the form {REDIS_FORM} (or rediss://, unix://). In user name and "
            f"password write # as %23, / as %2F, "
            "? as %3F, @ as %40, : as %3A, [ as %5B, ] as %5D and % as %25; the URL is not "
            "shown, as it may hold a password"
        )


def is_plain(url: str) -> bool:
    """Whether the secret of a URL can be told from the rest.

    A path (no `://`) is plain unless it looks like `KEY:SECRET@bucket`.
    """
    return bool(_PLAIN.fullmatch(url)) if "://" in url else not re.search(r":.*@", url, re.DOTALL)


def masked_url(url: str) -> str:
    """A URL (or path) as it may be shown: user, password and the values of unlisted parameters
    masked.
    """
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
        else "?" + "&".join(_parameter(each) for each in match["query"].split("&"))
    )
    return f"{match['scheme']}://{user}{match['place']}{query}"


def secrets_of(url: str) -> list[str]:
    """What of a URL must never be shown, in every way of writing it, longest first.

    Rather too much than too little.
    """
    rest = url.partition("://")[2] or url
    found = [] if is_plain(url) else [rest]
    if "@" in rest:
        user = rest.rpartition("@")[0]
        name, colon, password = user.partition(":")
        found += [user, password] if colon else [user]
        # an access key; the user of a database or Redis is named in many replies
        if colon and url.startswith(("s3:", "gs:")):
            found.append(name)
    for each in rest.partition("?")[2].split("&"):
        name, _, value = each.partition("=")
        if name not in HARMLESS:
            found.append(value)
            # what follows an unescaped `&` of a password reads as a name
            if name not in SECRET_NAMES:
                found.append(name)
    forms = {
        form
        for each in found
        for form in (
            each,
            unquote(each),
            unquote_plus(each),
            quote(each, safe=""),
            quote_plus(each),
        )
    }
    return sorted((form for form in forms if form), key=len, reverse=True)


def error_text(error: BaseException, *urls: str) -> str:
    """The text of another library's error about `urls`, on one line; only its type if it may hold a
    part of a secret of theirs.
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
    """Note secrets of this process, which `redact` masks from now on."""
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
