"""Runs `streams expire`, and kills it around one of its transactions.

`die=before,2`: before the second transaction is sent; `die=after,2`: after it was applied.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from core import settings
from store.state import connection
from streams.expire import command


def main() -> None:
    """Run; the argument is `die=MOMENT,NUMBER`."""
    moment, number = sys.argv[1].removeprefix("die=").split(",")
    execute = connection.execute
    transactions = 0

    def die(at: str) -> None:
        if at == moment and transactions == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    def execute_and_die(pipe: Any) -> bool:
        nonlocal transactions
        transactions += 1
        die("before")
        is_applied = execute(pipe)
        die("after")
        return is_applied

    connection.execute = execute_and_die
    command.run(settings.load())


if __name__ == "__main__":
    main()
