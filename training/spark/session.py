"""Starts Spark as the settings say, and ends its Java process with the block that used it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs
import structlog

from core.errors import ConfigurationError, EddylineError, SparkFailed
from core.redaction import error_text, masked_url
from core.settings.als import SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = structlog.get_logger(__name__)

INSTALL = (
    "ALS_ENGINE=spark needs pyspark: pip install -r requirements/spark.txt; or use "
    "ALS_ENGINE=implicit"
)
CHECK_EVERY_S = 1.0
"""Seconds between two looks at whether a fit must stop."""


class Cluster(NamedTuple):
    """A running Spark, and a folder that the driver and all executors see."""

    spark: SparkSession
    scratch: str


class Library(NamedTuple):
    """What is used of pyspark: SparkContext, SparkSession, and the errors that Spark raises."""

    context: Any
    session: Any
    failures: tuple[type[Exception], ...]


def require(settings: SparkSettings) -> Library:
    """Load pyspark.

    Raises ConfigurationError where pyspark, Java or the shared folder is missing.
    """
    try:
        from py4j.protocol import Py4JError
        from pyspark import SparkContext
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise ConfigurationError(INSTALL) from None
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=f"{home}/bin" if home else None) is None:
        raise ConfigurationError(
            f"ALS_ENGINE=spark needs Java 17 or newer, and there is none "
            f"{f'in JAVA_HOME={home}' if home else 'on PATH'}: install openjdk-17-jre-headless, or "
            f"set JAVA_HOME"
        )
    if not _is_local(settings) and not settings.spark_scratch:
        raise ConfigurationError(
            f"SPARK_MASTER={settings.spark_master} needs SPARK_SCRATCH: a folder or URL that this "
            f"process and all executors can write"
        )
    return Library(SparkContext, SparkSession, (Py4JError, PySparkException))


@contextmanager
def cluster(settings: SparkSettings) -> Iterator[Cluster]:
    """A Spark session during the block.

    A session that this process has already is used and left running.

    Raises ConfigurationError where pyspark, Java or the shared folder is missing; SparkFailed when
    Spark does not start, or fails within the block.
    """
    library = require(settings)
    is_own = library.context._gateway is None
    with _scratch(settings) as scratch:
        try:
            spark = _start(library.session, settings)
            spark.sparkContext.setCheckpointDir(address(f"{scratch}/checkpoints"))
        except library.failures as error:
            if is_own:
                _end(library, None)
            raise SparkFailed(
                f"Spark does not start at SPARK_MASTER={settings.spark_master}: "
                f"{_first_line(error)}; it needs Java 17 or newer"
            ) from None
        try:
            yield Cluster(spark, scratch)
        except library.failures as error:
            raise SparkFailed(
                f"Spark failed: {_first_line(error)}; its log is above. Where memory was short, "
                f"raise SPARK_MEMORY (now {settings.spark_memory})"
            ) from None
        finally:
            if is_own:
                _end(library, spark)


def address(url: str) -> str:
    """`url` for Spark, whose name for S3 is s3a."""
    return url.replace("s3://", "s3a://", 1)


@contextmanager
def cancelled_by(spark: SparkSession, check: Callable[[], None]) -> Iterator[None]:
    """Cancel the jobs of the block once `check`, called every CHECK_EVERY_S, raises.

    Raises what `check` raised, an EddylineError.
    """
    ended = threading.Event()
    errors: list[EddylineError] = []

    def watch() -> None:
        while not ended.wait(CHECK_EVERY_S):
            try:
                check()
            except EddylineError as error:
                errors[:] = [error]
                # again and again: a job that starts between two calls is cancelled by the next
                spark.sparkContext.cancelAllJobs()

    watcher = threading.Thread(target=watch, name="spark-cancel", daemon=True)
    watcher.start()
    try:
        yield
    except Exception:
        if errors:
            raise errors[0] from None
        raise
    finally:
        ended.set()
        watcher.join()


@contextmanager
def _scratch(settings: SparkSettings) -> Iterator[str]:
    """The URL of a new folder, in SPARK_SCRATCH or on this machine, which the end removes."""
    if not settings.spark_scratch:
        with tempfile.TemporaryDirectory(prefix="eddyline-spark-") as temporary:
            yield f"file://{temporary}"
        return
    url = settings.spark_scratch.rstrip("/")
    url = f"{url if '://' in url else f'file://{Path(url).absolute()}'}/eddyline-{uuid.uuid4().hex}"
    try:
        filesystem, folder = pafs.FileSystem.from_uri(url)
        filesystem.create_dir(folder)
    except (OSError, pa.ArrowException) as error:
        raise ConfigurationError(
            f"SPARK_SCRATCH={masked_url(url)} cannot be written: {error_text(error, url)}"
        ) from None
    try:
        yield url
    finally:
        filesystem.delete_dir(folder)


def _is_local(settings: SparkSettings) -> bool:
    """Whether Spark works in the Java process of this machine alone."""
    return settings.spark_master.startswith("local[") or settings.spark_master == "local"


def _start(session: Any, settings: SparkSettings) -> Any:
    # py4j logs each of its connections
    logging.getLogger("py4j").setLevel(logging.WARNING)
    builder = (
        session.builder.appName("eddyline-als")
        .master(settings.spark_master)
        .config("spark.driver.memory", settings.spark_memory)
        .config("spark.log.level", "ERROR")
        .config("spark.ui.enabled", "false")  # it would serve the plans to anyone who can connect
        .config("spark.ui.showConsoleProgress", str(sys.stderr.isatty()).lower())
        .config("spark.sql.session.timeZone", "UTC")
        # as pyarrow verifies the archive's pages
        .config("spark.hadoop.parquet.page.verify-checksum.enabled", "true")
    )
    if _is_local(settings):
        builder = builder.config("spark.driver.host", "127.0.0.1").config(
            "spark.driver.bindAddress", "127.0.0.1"
        )
    handler = signal.getsignal(signal.SIGINT)
    try:
        return builder.getOrCreate()
    finally:
        # pyspark replaces the handler by its own, which a worker that is told to stop cannot use
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _end(library: Library, spark: Any) -> None:
    """Stop Spark and its Java process, which would keep its memory as long as this process runs."""
    context, session, failures = library
    gateway = context._gateway
    if gateway is None:
        return
    when_gone: tuple[type[Exception], ...] = (*failures, OSError)
    try:
        if spark is not None:
            spark.stop()
        gateway.shutdown()
    except when_gone as error:
        log.warning("spark_ended_by_itself", error=_first_line(error))
    finally:
        # also what pyspark leaves where the Java process died, so that the next fit starts one
        context._gateway = context._jvm = context._active_spark_context = None
        session._instantiatedSession = session._activeSession = None
        gateway.proc.stdin.close()
        gateway.proc.wait()


def _first_line(error: Exception) -> str:
    """What happened, without the stack of the Java process."""
    cause = getattr(error, "java_exception", None)
    text = str(error) if cause is None else str(cause.toString())
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
