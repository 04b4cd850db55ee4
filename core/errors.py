"""Every error that Eddyline raises on purpose.

EddylineError
├── ConfigurationError            a setting is missing or wrong: names the setting and the mend
├── BadEvent                      bytes that are no valid event: goes to the dead-letter topic, never stops a consumer
├── StoreError                    Redis
│   ├── StoreUnavailable          cannot be reached or answered too late: retry, or answer degraded
│   ├── StoreMisconfigured        no retry helps (eviction, version, permission, password, cluster mode): change the server or REDIS_URL
│   ├── StoreCorrupt              a key holds another type than ours, or a partition is incomplete: names the key; ingest stops
│   ├── Stale                     the batch does not start at the stored position: seek to `position`
│   ├── LeaseTaken                another process holds the lease: wait, or end that process
│   └── LeaseLost                 the lease expired under its holder: start again
├── LogError                      Kafka
│   ├── LogUnavailable            cannot be reached or answered too late
│   ├── LogMisconfigured          a topic is set up so that events are lost: names the topic and the command that mends it
│   ├── LogGap                    the stored position is older than the log's first offset: rebuild, or go on with --from-log
│   └── LogRewound                the position lies beyond the log's end, or the topic is another one: start over
├── ArchiveError                  the Parquet archive overlaps, has a hole, or cannot be read
│   └── Overtaken                 another process archived this range first: drop the rows and seek to the archive's position
├── DatasetError                  events from which nothing can be trained or judged: names what is missing
├── ModelError
│   ├── ModelMissing              no such version, or a bundle without this part
│   ├── ModelCorrupt              a file's sha256 is not the manifest's
│   ├── DiskFull                  no space for a new bundle: the live one is unchanged
│   └── GateRefused               a retrain that is worse than the live bundle by more than the margin
├── Interrupted                   a retrain was asked to stop: the live bundle is unchanged
├── SourceFailed                  a file or a database cannot be read to its end: names the place
├── NothingImported               an import in which no row became an event: names the reasons
├── NotSent                       lines given to `streams produce` that are no valid event: names the first one
└── ProcessFailed                 a child process of the demo or a test did not start, died, or did not answer in time

Each message says what failed, where, and what to do next.
"""

from __future__ import annotations


class EddylineError(Exception):
    """Root of the tree; a command prints its message as one line and exits with 1."""


class ConfigurationError(EddylineError):
    """A setting is missing or wrong."""


class BadEvent(EddylineError):
    """Bytes from Kafka or HTTP that are not a valid event.

    `code` is a short stable word for counting (`not_json`, `bad_field`, `too_large`, ...); the
    message is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StoreError(EddylineError):
    """Something about Redis."""


class StoreUnavailable(StoreError):
    """Redis cannot be reached or answered too late."""


class StoreMisconfigured(StoreError):
    """The Redis server is set up so that Eddyline cannot work with it, or so that counted data
    could be lost.
    """


class StoreCorrupt(StoreError):
    """A key holds a type or a value that Eddyline did not write, or a transaction was applied in
    part.
    """


class Stale(StoreError):
    """A batch does not start where Redis says that the partition stands; seek to `position`."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


class LeaseTaken(StoreError):
    """Another process holds the lease."""


class LeaseLost(StoreError):
    """The lease expired under its holder: Redis was away for longer than the lease lasts."""


class LogError(EddylineError):
    """Something about Kafka."""


class LogUnavailable(LogError):
    """The broker cannot be reached or answered too late."""


class LogMisconfigured(LogError):
    """A topic is set up so that events would be lost."""


class LogGap(LogError):
    """Events between the stored position and the log's first offset are gone from the log."""


class LogRewound(LogError):
    """The stored position lies beyond the log's end, or the topic was created anew."""


class ArchiveError(EddylineError):
    """The Parquet archive overlaps, has a hole, or cannot be read."""


class Overtaken(ArchiveError):
    """Another process has archived the same range; nothing of ours was published."""


class DatasetError(EddylineError):
    """Events from which nothing can be trained or judged."""


class ModelError(EddylineError):
    """Something about a trained bundle."""


class ModelMissing(ModelError):
    """No such version, or the bundle lacks this part."""


class DiskFull(ModelError):
    """No space is left for a new bundle; what was live before is live, and what was written of the
    new one is removed.
    """


class ModelCorrupt(ModelError):
    """A file of a bundle does not match its manifest."""


class GateRefused(ModelError):
    """A new bundle is worse than the live one by more than the margin."""


class Interrupted(EddylineError):
    """A retrain was asked to stop; nothing was published."""


class SourceFailed(EddylineError):
    """A file or a database could not be read to its end."""


class NothingImported(EddylineError):
    """No row of an import became an event."""


class NotSent(EddylineError):
    """Some lines are no valid event; all others were sent."""


class ProcessFailed(EddylineError):
    """A child could not be started, died, or did not answer in time.

    The message ends with the last lines of its log.
    """
