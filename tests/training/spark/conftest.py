"""One Spark for all tests of this folder: it takes seconds to start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec

import pytest

from core.settings import Settings
from training.spark import session
from training.spark.session import Cluster

# Tests have few rows: compiled code, and plans that adapt, cost more than they save.
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
SMALL = {
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real Spark with two threads; its Java process ends with it."""
    if find_spec("pyspark") is None:
        pytest.skip("needs pyspark: pip install -r requirements/spark.txt")
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=f"{home}/bin" if home else None) is None:
        pytest.skip("needs Java 17 or newer on PATH or in JAVA_HOME")
    from pyspark import SparkContext

    settings = Settings(_env_file=None, spark_master="local[2]", spark_memory="1g")
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JDK_JAVA_OPTIONS", JAVA)
            running = stack.enter_context(session.cluster(settings))
        for name, value in SMALL.items():
            running.spark.conf.set(name, value)
        process = SparkContext._gateway.proc
        yield running
    assert process.poll() is not None, "the Java process ends with Spark"
    assert SparkContext._gateway is None
