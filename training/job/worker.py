"""Runs the retrains that are requested on RETRAIN_REQUESTS_TOPIC.

One retrain runs at a time across all machines (`python -m training worker`).

    1. read a request; a message that is no valid request goes to the dead letters
    2. skip it if an ended retrain answers it: one that published or was refused, and started after
       the request was made
    3. otherwise retrain, with the lease; while another process holds the lease, wait and go back to
       2
    4. record the outcome in Redis and in the metrics; only then commit the request's offset in
       Kafka

When a worker is killed before 4, another worker reads the request and gets the lease after
TRAINING_LEASE_S. A retrain that fails or is refused is an outcome: it is not retried, the next
request retrains. Only when Redis is unavailable, or the lease is lost with it, is the same request
retried.
"""

from __future__ import annotations

import threading
import time

import msgspec
import structlog
from prometheus_client import Counter, Gauge, Histogram
from rich.console import Console

from core.errors import (
    BadEvent,
    EddylineError,
    GateRefused,
    Interrupted,
    LeaseLost,
    LeaseTaken,
    LogUnavailable,
    StoreUnavailable,
)
from core.process import cli, stop
from core.settings import Settings
from store import outage, start
from store.log import retrain_requests
from store.log.access import permissions
from store.log.message import LogMessage
from store.log.retrain_requests import Request, Requests
from store.log.topics.check import TopicCheck
from store.state import connection, retrains
from store.state.shards import Shards
from training.job.first import FirstBundle, model_age
from training.job.retrain import Options, retrain

IDLE_S = 1.0
"""Seconds between two checks whether to stop; a request is read at once."""
BUSY_S = 1.0
"""Seconds between two tries to get a lease that another process holds."""
RETRY_S = 10.0
"""Seconds before a retry when Redis or Kafka is unavailable."""
ANSWERED, DEAD_LETTER = "answered", "dead_letter"
"""Outcomes of a request beside those of a run: an earlier retrain answers it; the message is no
valid request.
"""

_outcomes = Counter(
    "eddyline_retrain_outcomes", "What became of retrains and of requests for them", ["outcome"]
)
_seconds = Histogram(
    "eddyline_retrain_seconds",
    "How long retrains took",
    buckets=(1, 10, 60, 300, 900, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600),
)
_age = Gauge(
    "eddyline_model_age_seconds", "Since the live bundle was made; NaN while there is none"
)

_log = structlog.get_logger(__name__)


class Worker:
    """Reads and answers retrain requests. Construction connects nothing.

    `first`: while no bundle is live, retrain without a request as soon as there are events.
    """

    def __init__(
        self, settings: Settings, options: Options, console: Console, first: bool = False
    ) -> None:
        self._settings, self._options, self._console = settings, options, console
        self._first = FirstBundle(settings, options) if first else None
        self._topic_check = TopicCheck(settings, permissions.of_trainer)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Stop the current retrain between two steps or sweeps, and return from `run`."""
        self._stopping.set()

    def run(self) -> None:
        """Work until stopped.

        Raises LogUnavailable and StoreUnavailable after START_TIMEOUT_S without the broker or
        Redis.
        """
        _age.set_function(lambda: model_age(self._settings))
        if not start.until_ready(self._settings, self._stopping, self._prepare):
            return
        with Requests(self._settings) as requests:
            _log.info(
                "waiting_for_requests",
                topic=self._settings.retrain_requests_topic,
                group=self._settings.trainer_group,
            )
            while not self._stopping.is_set():
                message = requests.next(IDLE_S)
                if message is not None:
                    self._handle(requests, message)
                elif self._first is not None and self._first.due():
                    about = {"requested_by": "worker", "reason": "no bundle is live yet"}
                    if self._retrain(about):
                        self._first.tried()

    def _prepare(self) -> None:
        with Shards(self._settings) as shards:
            for client in shards:
                connection.check_server(client)
        self._topic_check.prepare(refuse=False)

    def _handle(self, requests: Requests, message: LogMessage) -> None:
        """Steps 1 to 4 of one request."""
        try:
            request = retrain_requests.decode(message.value)
        except BadEvent as error:
            _log.warning(
                "retrain_request_rejected",
                offset=message.offset,
                code=error.code,
                reason=str(error),
            )
            while not self._write_dead_letter(requests, message, error):
                if self._stopping.wait(RETRY_S):
                    return
            _outcomes.labels(DEAD_LETTER).inc()
            requests.done()
        else:
            if self._answer(requests, message, request):
                requests.done()

    def _write_dead_letter(self, requests: Requests, message: LogMessage, cause: BadEvent) -> bool:
        try:
            requests.refuse(message, cause)
        except LogUnavailable as error:
            outage.KAFKA.begin(str(error), "writing a dead letter")
            return False
        outage.KAFKA.end()
        return True

    def _answer(self, requests: Requests, message: LogMessage, request: Request) -> bool:
        """Steps 2 and 3; False when stopped before an outcome."""
        token = f"{self._settings.retrain_requests_topic}:{message.partition}:{message.offset}"
        while not self._stopping.is_set():
            try:
                ends = requests.ends()
                with connection.connect(self._settings) as client:
                    last = retrains.last(client)
            except (StoreUnavailable, LogUnavailable) as error:
                outage.of(error).begin(str(error), "reading the last retrain")
                self._stopping.wait(RETRY_S)
                continue
            outage.REDIS.end()
            outage.KAFKA.end()
            if retrains.answered(
                last, message.partition, message.offset, ends.get(message.partition, 0)
            ):
                _log.info(
                    "retrain_request_answered",
                    request=token,
                    requested_by=request.requested_by,
                    version=last.get("version"),
                )
                _outcomes.labels(ANSWERED).inc()
                return True
            about = {
                "requested_by": request.requested_by,
                "reason": request.reason,
                "request": token,
                retrains.ANSWERS: msgspec.json.encode(ends).decode(),
            }
            _log.info("retrain_started", **about)
            if self._retrain(about):
                return True
        return False

    def _retrain(self, about: dict[str, str]) -> bool:
        """Run one retrain. False when it has no outcome and the request must be tried again."""
        started = time.monotonic()
        try:
            version = retrain(
                self._settings, self._options, self._console, about, self._stopping.is_set
            )
        except LeaseTaken as error:
            _log.info("lease_held_elsewhere", error=str(error))
            self._stopping.wait(BUSY_S)
            return False
        except Interrupted as error:
            _log.info("retrain_interrupted", error=str(error))
            _outcomes.labels(retrains.INTERRUPTED).inc()
            return False
        except StoreUnavailable as error:
            outage.REDIS.begin(str(error), "retraining")
            self._stopping.wait(RETRY_S)
            return False
        except LeaseLost as error:
            _log.warning("lease_lost", error=str(error))
            self._stopping.wait(RETRY_S)
            return False
        except GateRefused as error:
            _log.warning("retrain_refused", error=str(error))
            outcome = retrains.REFUSED
        except EddylineError as error:
            _log.error("retrain_failed", error=str(error))
            outcome = retrains.FAILED
        # a defect in one retrain must not end the worker; the log and Redis have the error
        except Exception:  # noqa: BLE001
            _log.exception("retrain_failed")
            outcome = retrains.FAILED
        else:
            _log.info("bundle_published", version=version)
            outcome = retrains.PUBLISHED
        _outcomes.labels(outcome).inc()
        _seconds.observe(time.monotonic() - started)
        return True


def run(settings: Settings, options: Options, console: Console, first: bool) -> None:
    """Work until SIGTERM or SIGINT."""
    worker = Worker(settings, options, console, first)
    stop.on_signal(
        worker.stop,
        "a step of the retrain is long, or Kafka or Redis did not answer; the next worker answers "
        "the request, after TRAINING_LEASE_S if a retrain was running",
    )
    cli.serve_metrics(settings)
    start.announce(settings, "training worker", settings.trainer_group)
    worker.run()
