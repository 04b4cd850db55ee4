"""Redis' error replies: for each code whether to retry or to stop, and what the operator does about
it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import redis

from core.errors import StoreCorrupt, StoreError, StoreMisconfigured, StoreUnavailable


class Rule(NamedTuple):
    """What an error reply means.

    `error`: StoreUnavailable is retried with back-off, every other class stops the process.
    """

    error: type[StoreUnavailable] | type[StoreMisconfigured] | type[StoreCorrupt]
    advice: str


MAX_CLIENTS = "max number of clients reached"
"""Text of an `ERR` reply that has no code of its own; the server sends it in place of an answer and
closes the connection.
"""
NOT_A_NUMBER = (
    "is not an integer",
    "is not a valid float",
    "is not a float",
    "would overflow",
    "would produce NaN",
    "not a number",
)
"""Texts of the `ERR` replies that HINCRBY, INCR and ZINCRBY give when the stored value is not a
number they can add to.
"""

_NO_CREDENTIALS = Rule(
    StoreMisconfigured,
    (
        "put the user name and password of this server into REDIS_URL "
        "(redis://user:password@host:6379/0)"
    ),
)
_CLUSTER = Rule(
    StoreMisconfigured,
    (
        "Eddyline writes keys of several slots in one transaction: point REDIS_URL at a server "
        "without cluster mode"
    ),
)

RULES: Mapping[str, Rule] = {
    # The server comes back by itself, or when the operator has acted; no command of the transaction
    # was executed.
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
        "it cannot write its snapshot or AOF: see its log, mend the disk (space, permissions, dir)",
    ),
    "TRYAGAIN": Rule(StoreUnavailable, "its slots are being moved; this ends with the resharding"),
    "CLUSTERDOWN": Rule(
        StoreUnavailable,
        (
            "the cluster does not serve every slot: see CLUSTER INFO; Eddyline needs a server "
            "without cluster mode"
        ),
    ),
    # An EXECABORT that names no cause: a command before EXEC was refused, and nothing was done.
    "EXECABORT": Rule(StoreUnavailable, "the transaction was discarded and nothing of it was done"),
    # No retry mends these.
    "NOPERM": Rule(
        StoreMisconfigured,
        "the ACL user of REDIS_URL may not do this: grant the command and the key pattern "
        "that the reply names (ACL SETUSER; "
        "docs/operations.md lists what each process needs), then start again",
    ),
    "NOAUTH": _NO_CREDENTIALS,
    "WRONGPASS": _NO_CREDENTIALS,
    "CROSSSLOT": _CLUSTER,
    "MOVED": _CLUSTER,
    "ASK": _CLUSTER,
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

_PIPELINE = re.compile(r"Command # \d+ \((?P<command>.*)\) of pipeline caused error: ", re.DOTALL)
_ABORTED = "Transaction discarded because of: "
_LONGEST = 200
"""Characters of a reply or a command that are shown."""


def code_of(error: redis.RedisError) -> str:
    """The key in RULES of an error of the client library: the reply's own code, MAXCLIENTS,
    NOTANUMBER, or a code without a rule.

    "" for an error that is no reply (a lost connection, a timeout).
    """
    text = _text(error)
    if _ABORTED in text:
        text = text.split(_ABORTED, 1)[1]
    elif (status := getattr(error, "status_code", None)) not in (None, "ERR"):
        return str(status)
    if MAX_CLIENTS in text:
        return "MAXCLIENTS"
    # replies with ERR: a password for a server that has none, `invalid password`
    if isinstance(error, redis.AuthenticationError):
        return "WRONGPASS"
    if not isinstance(error, redis.ResponseError | redis.BusyLoadingError):
        return ""
    if any(part in text for part in NOT_A_NUMBER):
        return "NOTANUMBER"
    return text.partition(" ")[0]


def of_reply(what: str, error: redis.RedisError, command: str = "") -> StoreError:
    """The error of ours for an error reply to `command` ("HSET user:42") while doing `what`."""
    rule = RULES.get(code_of(error), UNKNOWN)
    command = command or _command(error)
    return rule.error(
        f"Redis refused {command + ' ' if command else ''}while {what}: "
        f"{_text(error)[:_LONGEST]}; {rule.advice}"
    )


def is_reply(error: redis.RedisError) -> bool:
    """Whether the server has answered with an error, in contrast to a lost connection."""
    return code_of(error) != ""


def _text(error: redis.RedisError) -> str:
    """The reply with its code in front, as the server sent it."""
    text = _PIPELINE.sub("", str(error))
    status = getattr(error, "status_code", None)
    return f"{status} {text}" if status and not text.startswith(status) else text


def _command(error: redis.RedisError) -> str:
    """Name and key of the command that the library quotes in a pipeline's error; never its
    values.
    """
    match = _PIPELINE.match(str(error))
    return " ".join(match["command"].split()[:2])[:_LONGEST] if match else ""
