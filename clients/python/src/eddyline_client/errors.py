"""The errors that this package raises.

EddylineClientError
├── InvalidInput          an argument breaks the contract; nothing was sent
├── MissingDependency     Kafka is used without the extra `kafka`
├── Unavailable           no answer after all retries: try again, a repeated event_id counts once
│   └── DeliveryFailed    Kafka did not acknowledge some messages: send `failures` again
├── EventsRejected        some events break the contract: `results` names each
├── RequestRejected       the server refuses the request: `status`, `error` (a stable word)
│   ├── Unauthorized      401, 403: the key is missing, wrong, or not allowed to do this
│   └── NotFound          404: no such use case or path
└── UnexpectedAnswer      another server or a proxy answers at this address
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from eddyline_client.types import EventResults


class EddylineClientError(Exception):
    """Root of the tree.

    `results`: set when `send_events` fails after a part was accepted. An event without a token in
    it was not accepted: send it again with the same event_id.
    """

    results: EventResults | None = None


class InvalidInput(EddylineClientError, ValueError):
    """An argument breaks the contract.

    `code` is the word of the server for the same error.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class MissingDependency(EddylineClientError, ImportError):
    """An optional dependency is not installed; the message names the extra."""


class Unavailable(EddylineClientError):
    """The server or the broker gave no answer in time, or answered that it cannot serve now."""


class FailedDelivery(NamedTuple):
    """A message that Kafka did not acknowledge.

    `entry`: the event, the item, the user, or the id of a deletion that the caller sent.
    """

    topic: str
    entry: object
    reason: str


class DeliveryFailed(Unavailable):
    """Kafka did not acknowledge some messages.

    `failures`: all of them since the last such error.
    """

    def __init__(self, message: str, failures: Sequence[FailedDelivery]) -> None:
        super().__init__(message)
        self.failures = tuple(failures)


class EventsRejected(EddylineClientError):
    """At least one event breaks the contract; the others were accepted."""

    def __init__(self, message: str, results: EventResults) -> None:
        super().__init__(message)
        self.results: EventResults = results


class RequestRejected(EddylineClientError):
    """The server refuses the request: a retry would be refused, too."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error


class Unauthorized(RequestRejected):
    """The API key is missing, wrong, or not allowed to do this."""


class NotFound(RequestRejected):
    """The server has no such use case or path. An unknown user or item is never an error."""


class UnexpectedAnswer(EddylineClientError):
    """The answer is none that Eddyline documents."""
