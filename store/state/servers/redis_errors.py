"""Classifies the error replies of Redis: retry or stop, and what the operator does about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import redis

from core.errors import (
    SlotMoving,
    StoreCorrupt,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
)


class Rule(NamedTuple):
    """The meaning of an error reply.

    `error`: StoreUnavailable is retried with back-off; the other classes stop the process.
    """

    error: type[StoreUnavailable] | type[StoreMisconfigured] | type[StoreCorrupt]
    advice: str


MAX_CLIENTS = "max number of clients reached"
"""Text of an `ERR` reply without a code. The server sends it when it refuses a connection."""
NOT_A_NUMBER = (
    "is not an integer",
    "is not a valid float",
    "is not a float",
    "would overflow",
    "would produce NaN",
    "not a number",
)
"""Texts of the `ERR` replies of HINCRBY, INCR and ZINCRBY to a stored value that is no number."""

NO_CLUSTER = "cluster support disabled"
"""Text of the `ERR` reply to CLUSTER of a server that is in no cluster."""

_NO_CREDENTIALS = Rule(
    StoreMisconfigured,
    (
        "put the user name and password of this server into REDIS_URL "
        "(redis://user:password@host:6379/0), and those of the sentinels into "
        "REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD"
    ),
)
_MOVING = Rule(
    SlotMoving,
    (
        "the cluster moves this slot to another node; the next attempt asks where it is. If this "
        "does not end, see CLUSTER NODES, and whether REDIS_URL is redis+cluster://"
    ),
)

RULES: Mapping[str, Rule] = {
    # Temporary: ends by itself or by an action of the operator. No command of the transaction was
    # executed.
    "LOADING": Rule(StoreUnavailable, "it reads its data back from disk; this ends by itself"),
    "BUSY": Rule(
        StoreUnavailable,
        (
            "a Lua script or function occupies it; SCRIPT KILL or FUNCTION KILL ends one that "
            "has not written"
        ),
    ),
    "UNKILLABLE": Rule(
        StoreUnavailable,
        "a script that has written occupies it; wait for its end, or SHUTDOWN NOSAVE and restart",
    ),
    "MAXCLIENTS": Rule(StoreUnavailable, "close unused connections or raise maxclients"),
    "READONLY": Rule(
        StoreUnavailable,
        "it is a replica: point REDIS_URL at the master, or end the fail-over (REPLICAOF NO ONE)",
    ),
    "NOREPLICAS": Rule(
        StoreUnavailable,
        "fewer replicas are connected than min-replicas-to-write: bring them back, or lower it",
    ),
    "MASTERDOWN": Rule(
        StoreUnavailable,
        "it is a replica without its master: bring the master back, or point REDIS_URL at it",
    ),
    "OOM": Rule(
        StoreUnavailable,
        "used memory exceeds maxmemory: raise maxmemory or delete keys that are not Eddyline's",
    ),
    "MISCONF": Rule(
        StoreUnavailable,
        "it cannot write its snapshot or AOF: see its log, free or repair the disk, check dir",
    ),
    "TRYAGAIN": Rule(SlotMoving, "its slots are being moved; this ends with the resharding"),
    "MOVED": _MOVING,
    "ASK": _MOVING,
    "CLUSTERDOWN": Rule(
        StoreUnavailable,
        "the cluster does not serve every slot: see CLUSTER INFO and CLUSTER NODES; this ends when "
        "a replica takes over or the node is back",
    ),
    # An EXECABORT that names no cause: a command before EXEC was refused.
    "EXECABORT": Rule(
        StoreUnavailable, "the transaction was discarded; none of its commands was executed"
    ),
    # Permanent: a retry gives the same reply.
    "NOPERM": Rule(
        StoreMisconfigured,
        "the ACL user of REDIS_URL may not do this: grant the command and the key pattern "
        "that the reply names (ACL SETUSER; "
        "docs/security.md lists what each process needs), then start again",
    ),
    "NOAUTH": _NO_CREDENTIALS,
    "WRONGPASS": _NO_CREDENTIALS,
    "CROSSSLOT": Rule(
        StoreMisconfigured,
        (
            "the keys of a shard lie in one slot, so this is a cluster that REDIS_URL does not "
            "name as one: write redis+cluster://"
        ),
    ),
    "NOCLUSTER": Rule(
        StoreMisconfigured,
        (
            "REDIS_URL is redis+cluster://, but this server is no node of a cluster: write "
            "redis:// (with TLS rediss://), or redis+sentinel:// and the sentinels"
        ),
    ),
    "NOSCRIPT": Rule(
        StoreMisconfigured, "it does not keep Lua scripts: use Redis 7, Valkey 8 or newer"
    ),
    "WRONGTYPE": Rule(
        StoreCorrupt,
        (
            "the key holds a type that Eddyline does not write: find who else writes into this "
            "Redis, and give Eddyline a server of its own"
        ),
    ),
    "NOTANUMBER": Rule(
        StoreCorrupt,
        "a counter holds a value that Eddyline does not write: find who else writes into "
        "this Redis, then run "
        "`python -m streams rebuild --wipe`",
    ),
}
UNKNOWN = Rule(
    StoreMisconfigured,
    (
        "Eddyline has no rule for this reply: check that REDIS_URL points at Redis 7, Valkey 8 "
        "or newer with no command renamed"
    ),
)

_TLS = {
    # texts of OpenSSL -> cause and correction; the first that occurs
    "hostname mismatch": (
        "its certificate names another host: set REDIS_SSL_SERVER_NAME to a name in it, or "
        "REDIS_SSL_CHECK_HOSTNAME=false"
    ),
    "ip address mismatch": (
        "its certificate does not name the address in REDIS_URL: set REDIS_SSL_SERVER_NAME to a "
        "name in it, or REDIS_SSL_CHECK_HOSTNAME=false"
    ),
    "certificate has expired": "its certificate has expired",
    "certificate_verify_failed": (
        "its certificate is not trusted: set REDIS_SSL_CA to the PEM file of its authority"
    ),
    "wrong_version_number": "the port speaks no TLS: use redis:// in REDIS_URL, or the TLS port",
    "record layer failure": "the port speaks no TLS: use redis:// in REDIS_URL, or the TLS port",
    "certificate_required": (
        "it requires a client certificate: set REDIS_SSL_CERTIFICATE and REDIS_SSL_KEY"
    ),
    "certificate required": (
        "it requires a client certificate: set REDIS_SSL_CERTIFICATE and REDIS_SSL_KEY"
    ),
    "alert unknown ca": (
        "it does not trust the client certificate: check REDIS_SSL_CERTIFICATE and its authority"
    ),
}

_PIPELINE = re.compile(r"Command # \d+ \((?P<command>.*)\) of pipeline caused error: ", re.DOTALL)
_ABORTED = "Transaction discarded because of: "
_LONGEST = 200
"""Most characters of a reply or a command in a message."""


def code_of(error: redis.RedisError) -> str:
    """The code of an error of the client library, which is the key in RULES if there is a rule.

    The code of the reply, or MAXCLIENTS, NOCLUSTER or NOTANUMBER by its text; "" for an error that
    is not a reply (a lost connection, a timeout).
    """
    text = _text(error)
    if _ABORTED in text:
        text = text.split(_ABORTED, 1)[1]
    elif (status := getattr(error, "status_code", None)) not in (None, "ERR"):
        return str(status)
    if MAX_CLIENTS in text:
        return "MAXCLIENTS"
    if NO_CLUSTER in text:
        return "NOCLUSTER"
    # replies ERR: a password for a server without one, `invalid password`
    if isinstance(error, redis.AuthenticationError):
        return "WRONGPASS"
    if not isinstance(error, redis.ResponseError | redis.BusyLoadingError):
        return ""
    if any(part in text for part in NOT_A_NUMBER):
        return "NOTANUMBER"
    return text.partition(" ")[0]


def of_reply(what: str, error: redis.RedisError, command: str = "") -> StoreError:
    """The StoreError for an error reply to `command` ("HSET user:42") in the operation `what`."""
    rule = RULES.get(code_of(error), UNKNOWN)
    command = command or _command(error)
    return rule.error(
        f"Redis refused {command + ' ' if command else ''}while {what}: "
        f"{_text(error)[:_LONGEST]}; {rule.advice}"
    )


def is_reply(error: redis.RedisError) -> bool:
    """Whether the error is a reply of the server, and not a lost connection or a timeout."""
    return code_of(error) != ""


def is_denied(error: redis.RedisError) -> bool:
    """Whether the reply says that this user may not run the command, or that it was renamed."""
    return code_of(error) == "NOPERM" or "unknown command" in _text(error).lower()


def refused_handshake(error: BaseException) -> str | None:
    """What is wrong with TLS, and its correction; None for an error of another kind."""
    text = str(error).lower()
    return next((cause for part, cause in _TLS.items() if part in text), None)


def closed_handshake(error: BaseException) -> str:
    """A hint for a TLS connection that was closed without a reason, as a crash closes it, too."""
    if "eof occurred in violation of protocol" not in str(error).lower():
        return ""
    return " A server that requires a client certificate closes so, too (REDIS_SSL_CERTIFICATE)"


def _text(error: redis.RedisError) -> str:
    """The reply as the server sent it, with its code first."""
    text = _PIPELINE.sub("", str(error))
    status = getattr(error, "status_code", None)
    return f"{status} {text}" if status and not text.startswith(status) else text


def _command(error: redis.RedisError) -> str:
    """Name and key, never the values, of the command that a pipeline error quotes."""
    match = _PIPELINE.match(str(error))
    return " ".join(match["command"].split()[:2])[:_LONGEST] if match else ""
