"""Defines every error that Eddyline raises on purpose.

EddylineError
├── ConfigurationError      a setting is missing or wrong: the message names it
│   └── MissingColumns      a table has no column for a required field
├── BadEvent                bytes that are no valid event: to the dead-letter topic
├── StoreError              Redis
│   ├── StoreUnavailable    no connection, or an answer too late: retry, or answer degraded
│   │   └── SlotMoving      a shard moves to another node of the cluster: retry
│   ├── StoreMisconfigured  no retry helps (eviction, version, password, ...): change the server
│   ├── StoreCorrupt        a key of another type, or an incomplete partition: ingest stops
│   ├── Stale               a batch does not start at the partition position: seek to `position`
│   ├── LeaseTaken          another process has the lease: wait, or end that process
│   └── LeaseLost           the lease of this process expired: start again
├── LogError                Kafka
│   ├── LogUnavailable      no connection, or an answer too late
│   │   └── LogRefused      the login, the certificate or a permission is refused
│   ├── LogMisconfigured    a topic would lose events: the message has the command to correct it
│   ├── LogGap              events were deleted unread: rebuild, or continue with --from-log
│   └── LogRewound          the log ends before the position, or is another one: start over
├── ArchiveError            the Parquet archive overlaps, has a gap, or cannot be read
│   └── Overtaken           another process archived the range: seek to the archive's position
├── DatasetError            events from which nothing can be trained or evaluated
├── ModelError
│   ├── ModelMissing        no such version, or a bundle without this part
│   ├── ModelCorrupt        the sha256 of a file differs from the manifest
│   ├── DiskFull            no space for a new bundle: the live one is unchanged
│   └── GateRefused         a new bundle is worse than the live one by more than the margin
├── SparkFailed             Spark did not start, or ended a job: its log says more
├── Interrupted             a retrain was told to stop: the live bundle is unchanged
├── SourceFailed            a file or a database cannot be read to its end
├── NothingImported         no row of an import became an event
├── TooManyRejects          an import sent its valid rows, but rejected too many: exit status 3
├── RefusedAgain            dead letters that the running ingest would refuse again: none was sent
├── NotSent                 lines for `streams produce` that are no valid event
└── ProcessFailed           a child process did not start, died, or did not answer in time

Each message says what failed, where, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence


class EddylineError(Exception):
    """Root of the tree; a command prints its message as one line and exits with `exit_status`."""

    exit_status = 1


class ConfigurationError(EddylineError):
    """A setting is missing or wrong."""


class MissingColumns(ConfigurationError):
    """A table with `columns` has none for the required `fields`."""

    def __init__(self, fields: Sequence[str], columns: Sequence[str], message: str) -> None:
        super().__init__(message)
        self.fields, self.columns = fields, columns


class BadEvent(EddylineError):
    """Bytes from Kafka or HTTP that are not a valid event.

    `code` is a short stable word that metrics count by (`not_json`, `bad_field`, `too_large`, ...);
    the message is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StoreError(EddylineError):
    """Redis failed, or holds what it should not."""


class StoreUnavailable(StoreError):
    """Redis cannot be reached, or answered too late."""


class SlotMoving(StoreUnavailable):
    """A shard is being moved to another node of the cluster, which answers otherwise."""


class StoreMisconfigured(StoreError):
    """The configuration of the Redis server prevents work, or could lose counted data."""


class StoreCorrupt(StoreError):
    """A key has a type or value that Eddyline did not write, or a transaction applied in part."""


class Stale(StoreError):
    """A batch does not start at the partition position in Redis; seek to `position`."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


class LeaseTaken(StoreError):
    """Another process has the lease."""


class LeaseLost(StoreError):
    """The lease of this process expired: Redis was away for longer than the lease lasts."""


class LogError(EddylineError):
    """Kafka failed, or its log does not fit the state."""


class LogUnavailable(LogError):
    """The broker cannot be reached, or answered too late."""


class LogRefused(LogUnavailable):
    """Kafka refuses the login, the certificate or a permission.

    A process that starts ends with it. One that runs retries: a broker that restarts may refuse
    for a moment what it accepts again.
    """


class LogMisconfigured(LogError):
    """The configuration of a topic would lose events."""


class LogGap(LogError):
    """The log no longer holds the events after the partition position."""


class LogRewound(LogError):
    """The partition position lies beyond the end of the log, or the topic was recreated."""


class ArchiveError(EddylineError):
    """The Parquet archive overlaps, has a gap, or cannot be read."""


class Overtaken(ArchiveError):
    """Another process archived the same range; this process published nothing."""


class DatasetError(EddylineError):
    """The events are too few or too one-sided to train or evaluate a model."""


class ModelError(EddylineError):
    """A bundle is missing, damaged or refused."""


class ModelMissing(ModelError):
    """No such version, or the bundle lacks this part."""


class DiskFull(ModelError):
    """No space for a new bundle: its files are removed, and the live bundle is unchanged."""


class ModelCorrupt(ModelError):
    """A file of a bundle does not match its manifest."""


class GateRefused(ModelError):
    """A new bundle is worse than the live one by more than the margin."""


class SparkFailed(EddylineError):
    """Spark did not start, or ended a job with an error."""


class Interrupted(EddylineError):
    """A retrain was told to stop; nothing was published."""


class SourceFailed(EddylineError):
    """A file or a database could not be read to its end."""


class NothingImported(EddylineError):
    """No row of an import became an event."""


class TooManyRejects(EddylineError):
    """An import sent every valid row, but rejected more than --max-rejects allows."""

    exit_status = 3


class RefusedAgain(EddylineError):
    """The running ingest would refuse some dead letters again; nothing was sent."""


class NotSent(EddylineError):
    """Some lines are no valid event; all other lines were sent."""


class ProcessFailed(EddylineError):
    """A child process did not start, died, or did not answer in time.

    The message ends with the last lines of its log.
    """
