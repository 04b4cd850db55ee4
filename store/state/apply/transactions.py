"""Runs packed commands in MULTI and EXEC, such that a command that fails inside is noted.

Redis does not undo a transaction when one command inside EXEC fails (a key of a foreign type, a
permission revoked just then): the other commands and the position stand. The note is part of the
same transaction, so no crash comes between the two. It is written in one of two ways:

- The commands are sent as they are, between two scripts:
  1. The first stores the server's count of error replies.
  2. The commands and the positions.
  3. The last compares the count. No other client's command runs inside EXEC, so a larger count
     means that a command of step 2 failed. It then writes the offsets into `ingest:halted`.
- Where the user may not run INFO, which has that count: one script runs all commands, sees their
  replies, and writes the note. It checks the permissions of all of them first. This takes more time
  in Redis and here (docs/adr/0014-partial-transactions.md).

The process that reads the replies adds the name of the key, if it still runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
import redis

from core.errors import StoreMisconfigured
from store.state import keys
from store.state.apply import halts
from store.state.apply.batches import OffsetRange
from store.state.connection import Pipe
from store.state.keys import Keys

# its own type says tuples of one
_pack = cast("Callable[[tuple[str | bytes, ...]], bytes]", hiredis.pack_command)

_MULTI, _EXEC = _pack(("MULTI",)), _pack(("EXEC",))

_ERRORS = "string.match(redis.call('INFO', 'stats'), 'total_error_replies:(%d+)')"
_COUNT = f"redis.call('HSET', KEYS[1], 'errors', {_ERRORS})"
_COMPARE = (
    f"if redis.call('HGET', KEYS[1], 'errors') ~= {_ERRORS} then "
    "for i = 1, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end end"
)
_GUARDS = 2
"""Replies inside EXEC in addition to those of the payload: one before them, one after."""

_PROBE = """
local stats = redis.pcall('INFO', 'stats')
return type(stats) == 'string' and string.find(stats, 'total_error_replies:') and 1 or 0
"""

# The first line makes Redis refuse the script as a whole when memory is full or it is a replica.
_RUN_ALL = """#!lua
local first = tonumber(ARGV[1]) + 2
local at = first
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  if not redis.acl_check_cmd(unpack(ARGV, at + 1, last)) then
    return redis.error_reply('NOPERM this user may not run ' .. ARGV[at + 1] .. ' ' .. ARGV[at + 2])
  end
  at = last + 1
end
local replies, failed = {}, false
at = first
while at <= #ARGV do
  local last = at + tonumber(ARGV[at])
  local reply = redis.pcall(unpack(ARGV, at + 1, last))
  failed = failed or (type(reply) == 'table' and reply.err ~= nil)
  replies[#replies + 1] = reply
  at = last + 1
end
if failed then
  for i = 2, first - 1, 2 do redis.pcall('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return replies
"""


class Transactions:
    """Runs transactions over one connection."""

    def __init__(self, client: redis.Redis) -> None:
        """Connects, and looks which of the two ways this server allows."""
        self._counts_errors = bool(client.eval(_PROBE, 0))
        self._keys = keys.of(client)
        self.pipe = Pipe(client)

    def run(
        self, ranges: Sequence[OffsetRange], payload: bytes, count: int, what: str
    ) -> list[Any] | None:
        """The replies to the `count` packed commands in `payload`, some of which may be errors.

        None: nothing is applied, because a watched key has changed. Raises redis.ResponseError:
        nothing is applied. Raises StoreMisconfigured: a permission was revoked meanwhile.
        """
        if self._counts_errors:
            self.pipe.send(counted(self._keys, ranges, payload))
            queued, replies = self.pipe.receive_transaction(_GUARDS + count)
        else:
            self.pipe.send(scripted(self._keys, ranges, payload))
            queued, replies = self.pipe.receive_transaction(1)
        if replies is None:
            return None
        # EXECABORT: no command was executed, and an earlier reply has the cause
        if isinstance(replies, redis.ResponseError):
            raise next(
                (reply for reply in queued if isinstance(reply, redis.ResponseError)), replies
            )
        if self._counts_errors:
            _check_guards(what, replies)
            return cast("list[Any]", replies[1:-1])
        if isinstance(replies[0], redis.ResponseError):
            raise replies[0]
        return cast("list[Any]", replies[0])

    def close(self) -> None:
        """Drop the connection."""
        self.pipe.close()


def counted(names: Keys, ranges: Sequence[OffsetRange], payload: bytes) -> bytes:
    """The transaction of the packed commands in `payload`, between the two scripts."""
    counter = names.position(*ranges[0].source)
    return b"".join(
        [
            _MULTI,
            _pack(("EVAL", _COUNT, "1", counter)),
            payload,
            _pack(("EVAL", _COMPARE, "2", counter, names.halted, *halts.notes(ranges))),
            _EXEC,
        ]
    )


def scripted(names: Keys, ranges: Sequence[OffsetRange], payload: bytes) -> bytes:
    """The transaction of one script that runs the packed commands in `payload`."""
    notes = halts.notes(ranges)
    parts: list[str | bytes] = ["EVAL", _RUN_ALL, "1", names.halted, str(len(notes)), *notes]
    reader = hiredis.Reader()
    reader.feed(payload)
    while (command := reader.gets()) is not False:
        parts.append(str(len(command)))
        parts += command
    return _MULTI + _pack(tuple(parts)) + _EXEC


def _check_guards(what: str, replies: Sequence[object]) -> None:
    for guard in (replies[0], replies[-1]):
        if isinstance(guard, Exception):
            raise StoreMisconfigured(
                f"{what}: Redis runs no script that reads INFO stats: {guard}; allow EVAL, "
                f"INFO, HSET and HGET, or start again without INFO"
            )
