"""Runs `streams expire`, and kills it around one of its transactions.

`die=before,2`: before the second transaction is sent; `die=after,2`: after it was applied.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from core import settings
from store.state import connection
from store.state.entities import idle_users
from streams.expire import command


def main() -> None:
    """Run; the argument is `die=MOMENT,NUMBER`."""
    moment, number = sys.argv[1].removeprefix("die=").split(",")
    transactions = 0

    def die(at: str) -> None:
        if at == moment and transactions == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            nonlocal transactions
            transactions += 1
            die("before")
            result = step(*arguments)
            die("after")
            return result

        return run

    connection.execute = dying(connection.execute)
    idle_users.evict_together = dying(idle_users.evict_together)
    command.run(settings.load())


if __name__ == "__main__":
    main()
