"""Spark's ALS part is used like that of `implicit`: folded in, judged, published and served."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
import structlog
from redis import Redis

from core.deletions import IdHasher
from core.errors import ConfigurationError, Interrupted, SparkFailed
from core.settings import Settings
from models.als import ALSModel
from models.registry import Registry
from store.state.apply.deletions import DeletedUsers
from tests.api.world import FOR_DEVELOPER, remember, serving, shown
from tests.training import world
from tests.training.job.run import published
from training import als, commands
from training.als import Hyperparameters
from training.spark import events as spark_events
from training.spark import fit as spark_fit
from training.spark import session
from training.spark.session import Cluster

SMALL = Hyperparameters(factors=4, regularization=5.0, alpha=2.0, iterations=4)


def training(settings: Settings) -> spark_fit.TrainingEvents:
    positions = world.archived(settings, world.parity()).positions(settings.interactions_topic)
    nobody = DeletedUsers(IdHasher(settings.deletion_salt), {})
    source = spark_events.of_archive(settings, positions, nobody)
    return spark_fit.TrainingEvents(source, settings.use_cases)


def test_a_fold_in_by_the_served_equation_returns_the_vectors_that_spark_learned(
    cluster: Cluster, offline: Settings
) -> None:
    events = training(offline)
    discounted = msgspec.structs.replace(SMALL, popularity_discount=0.3)
    model = spark_fit.fit(cluster, events, discounted, seed=1).model
    data = world.built(
        offline.model_copy(update={"archive_url": f"{offline.archive_url}-2"}), world.parity()
    )
    by_implicit = als.fit(data.interactions(), discounted, seed=1)
    assert model.item_ids.ids == by_implicit.item_ids.ids
    assert model.user_ids is not None
    assert by_implicit.user_ids is not None
    assert model.user_ids.ids == by_implicit.user_ids.ids
    assert model.confidence.counts is not None
    assert by_implicit.confidence.counts is not None
    assert model.confidence.counts.tolist() == by_implicit.confidence.counts.tolist()
    folded = model.fold_in_many(data.matrix())
    # every user has twelve items, so that both regularisations of users are the same
    np.testing.assert_allclose(folded, model.user_factors, rtol=1e-2, atol=1e-3)
    parity = np.array([int(item[1:]) % 2 for item in model.item_ids.ids])
    scores = folded[data.users.row("u0")] @ model.item_factors.T
    assert scores[parity == 0].min() > scores[parity == 1].max()


def test_the_command_writes_a_part_that_loads_as_any_other(
    cluster: Cluster, trainer: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = trainer.model_copy(update={"als_iterations": 2, "als_alpha": 0.1})
    with structlog.testing.capture_logs() as logs:
        commands.fit_als_by_spark(few, None, tmp_path / "als", None)
    raised = {log["pairs"] for log in logs if log["event"] == "confidences_raised"}
    assert raised == {960}, "no pair has the confidence 1 that MLlib begins at"
    model = ALSModel.load(tmp_path / "als")
    assert (len(model.item_ids), model.factors) == (world.ITEMS, 4)
    assert "960 pairs of a user and an item" in capsys.readouterr().out
    assert not list((tmp_path / "als").glob("*.p*k*l*"))


def test_a_bundle_that_spark_trained_passes_the_gate_and_answers_readers(
    cluster: Cluster, trainer: Settings, redis: Redis
) -> None:
    published(trainer)
    by_spark = trainer.model_copy(update={"als_engine": "spark", "als_iterations": 5})
    version = published(by_spark)
    manifest = Registry(trainer.models_path).manifest(version)
    assert manifest.gate["decision"] == "accepted", "judged beside the bundle of implicit"
    assert manifest.settings["als_engine"] == "spark"
    assert "pyspark" in manifest.libraries
    headline = manifest.metrics["headline"]
    assert headline["als"]["ndcg@10"] > headline["popular"]["ndcg@10"]
    remember(redis, "u0", *(f"i{number}" for number in range(0, 20, 2)))
    with serving(by_spark) as client:
        assert client.get("/health/ready").json()["missing"] == []
        answer = client.get(f"{FOR_DEVELOPER}/u0?limit=5")
        assert answer.json()["method_used"] == "als"
        assert answer.json()["model_version"] == version
        assert all(int(item[1:]) % 2 == 0 for item in shown(answer))


def test_a_retrain_that_is_told_to_stop_ends_the_jobs_of_spark(
    cluster: Cluster, offline: Settings
) -> None:
    stopped = threading.Event()
    stopped.set()

    def check() -> None:
        if stopped.is_set():
            raise Interrupted("the retrain was stopped in step fit")

    long = msgspec.structs.replace(SMALL, iterations=500)
    with pytest.raises(Interrupted, match="step fit"):
        spark_fit.fit(cluster, training(offline), long, seed=1, check=check)


def test_without_pyspark_one_line_says_what_to_install(
    offline: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with (
        pytest.raises(ConfigurationError, match=r"pip install -r requirements/spark\.txt"),
        session.cluster(offline),
    ):
        pass


def test_without_java_one_line_says_what_to_install(
    cluster: Cluster, offline: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with (
        pytest.raises(ConfigurationError, match=r"needs Java 17 or newer, and there is none in"),
        session.cluster(offline),
    ):
        pass


def test_a_master_elsewhere_needs_a_folder_that_executors_see(offline: Settings) -> None:
    pytest.importorskip("pyspark")
    elsewhere = offline.model_copy(update={"spark_master": "spark://cluster:7077"})
    with pytest.raises(ConfigurationError, match="needs SPARK_SCRATCH"):
        session.require(elsewhere)


def test_what_spark_writes_for_executors_lies_in_the_shared_folder_and_is_deleted(
    cluster: Cluster, offline: Settings, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    with session.cluster(offline.model_copy(update={"spark_scratch": str(shared)})) as running:
        (folder,) = shared.iterdir()
        assert running.scratch == folder.as_uri()
    assert list(shared.iterdir()) == []
    shared.joinpath("file").touch()
    elsewhere = offline.model_copy(update={"spark_scratch": str(shared / "file")})
    with (
        pytest.raises(ConfigurationError, match=r"SPARK_SCRATCH=\S+ cannot be written"),
        session.cluster(elsewhere),
    ):
        pass


def test_an_error_of_spark_is_one_line_without_the_stack_of_java(
    cluster: Cluster, offline: Settings
) -> None:
    with (
        pytest.raises(SparkFailed, match=r"Spark failed: .*PATH_NOT_FOUND") as failed,
        session.cluster(offline) as running,
    ):
        running.spark.read.parquet("file:///no/such/folder")
    assert "\n" not in str(failed.value)


def test_a_retrain_that_lacks_pyspark_says_so_before_its_first_step(
    offline: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    by_spark = offline.model_copy(update={"als_engine": "spark"})
    with pytest.raises(ConfigurationError, match=r"pip install -r requirements/spark\.txt"):
        published(by_spark, events="none", lease=False)
