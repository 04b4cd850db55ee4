"""MovieLens 1M passes through the whole loop: Kafka, Redis, archive, dataset, ALS, HTTP answers."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from redis import Redis

from core.settings import Settings
from store.archive.archive import Archive
from store.log import client as log
from testing.process import ROOT, Child
from tests import oracle
from tests.support import eventually

DATA = Path(os.environ.get("EDDYLINE_DATA", ROOT.parent / "shared" / "data")) / "ml1m"
EVENTS = 519_259
USE_CASES = """
[event_types]
rating = 1.0

[use_cases.viewer_movie]
role = "viewer"
item_type = "movie"
path = "movies/for-viewer"
"""

Spawn = Callable[..., Child]


def _ended(child: Child) -> None:
    code = child.wait(240)
    assert code == 0, child.describe("failed")


def _get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)


@pytest.mark.skipif(
    not DATA.is_dir(),
    reason=f"no MovieLens 1M in {DATA}; EDDYLINE_DATA names the folder above another",
)
@pytest.mark.timeout(1200)
def test_movielens_from_kafka_to_three_answers(
    broker: object, settings: Settings, redis: Redis, spawn: Spawn, tmp_path: Path
) -> None:
    (tmp_path / "movies.toml").write_text(USE_CASES)
    # A cap above the longest history, so that histories hold every event; a window as small as the
    # import allows: its ids never repeat.
    settings = settings.model_copy(
        update={
            "history_cap": 5000,
            "use_cases_path": tmp_path / "movies.toml",
            "dedup_window": 10_000,
        }
    )
    environment = {
        "HISTORY_CAP": "5000",
        "USE_CASES_PATH": str(tmp_path / "movies.toml"),
        "DEDUP_WINDOW": "10000",
    }
    environment |= {
        "ALS_FACTORS": "64",
        "ALS_ITERATIONS": "8",
        "ALS_ALPHA": "4",
        "ALS_REGULARIZATION": "50",
    }
    log.ensure_topics(settings)

    ingest = spawn("streams", "ingest", **environment)
    movies = [
        "--kind",
        "items",
        "--constant",
        "item_type=movie",
        "--map",
        "text=plot",
        "--rejects",
        str(tmp_path / "rejects-of-items.jsonl"),
        str(DATA / "items.parquet"),
    ]
    _ended(spawn("streams", "import", *movies, **environment))
    _ended(
        spawn(
            "streams",
            "import",
            str(DATA / "interactions.parquet"),
            "--min-value",
            "4",
            "--rejects",
            str(tmp_path / "rejects.jsonl"),
            **environment,
        )
    )

    def applied() -> bool:
        ingest.check()
        return (
            sum(oracle.positions(redis, settings).values())
            == sum(oracle.popularity_positions(redis, settings).values())
            == EVENTS
        )

    eventually(applied, "every event in Redis", 180)
    table = pq.read_table(
        DATA / "interactions.parquet", columns=["user_id", "item_id", "value", "timestamp"]
    ).to_pydict()
    rows = [row for row in zip(*table.values(), strict=True) if row[2] >= 4 and row[3] is not None]
    assert len(rows) == EVENTS
    by_user = Counter(str(user) for user, *_ in rows)

    state = oracle.read_state(redis, settings)
    popular = state.popular
    assert {user: int(fields["events"]) for user, fields in state.users.items()} == by_user
    in_redis = Counter(
        (user, *line.split(" ")) for user, lines in state.histories.items() for line in lines
    )
    assert in_redis == Counter(
        (str(user), str(int(at)), f"rating={value:g}", str(item)) for user, item, value, at in rows
    )
    assert set(popular["viewer_movie"]) == {str(item) for _, item, _, _ in rows}
    checked = oracle.fold(settings, oracle.record(settings))
    differences = oracle.differences(redis, settings, checked)
    assert [line for line in differences if not line.startswith(("popular:", "trending:"))] == []
    # Three years are 36 half-lives: beyond what sums of floats hold exactly.
    assert popular["viewer_movie"] == pytest.approx(checked.popular["viewer_movie"], rel=1e-12)

    _ended(spawn("streams", "archive", "--until-idle", **environment))
    archive = Archive(settings.archive_url)
    offsets = Counter[int]()
    for part in archive.read(settings.interactions_topic, columns=["partition", "offset", "error"]):
        assert part.column("error").null_count == part.num_rows
        offsets.update(
            zip(
                part.column("partition").to_pylist(), part.column("offset").to_pylist(), strict=True
            )
        )  # type: ignore[arg-type]
    assert len(offsets) == EVENTS
    assert set(offsets.values()) == {1}
    assert archive.positions(settings.interactions_topic) == oracle.positions(redis, settings)

    _ended(spawn("training", "dataset", "--output", str(tmp_path / "dataset"), **environment))
    matrix = sp.load_npz(tmp_path / "dataset" / "als_interactions.npz").tocsr()
    mapping = json.loads((tmp_path / "dataset" / "als_user_mapping.json").read_text())
    ids = mapping if isinstance(mapping, list) else list(mapping)
    entries = dict(zip(ids, np.diff(matrix.indptr).tolist(), strict=True))
    assert entries == by_user  # nobody rated a movie twice

    _ended(spawn("training", "retrain", **environment))
    api = spawn("api", **environment)
    port = int(
        eventually(
            lambda: re.search(r"http://127\.0\.0\.1:(\d+)", api.log.read_text()),
            "the API's address",
            60,
        )[1]
    )
    eventually(lambda: _ready(port), "the API ready", 60)
    read = "/api/recommendations/movies/for-viewer/{}?limit=10"
    cold = next(user for user, count in by_user.items() if count < 5)
    warm = next(user for user, count in by_user.items() if 5 <= count < 20)
    hot = next(user for user, count in by_user.items() if count >= 20)
    for user, method in ((cold, "content_based"), (warm, "als"), (hot, "als")):
        answer = _get(port, read.format(user))
        assert answer["method_used"] == method, answer
        assert answer["interaction_count"] == by_user[user]
        assert len(answer["recommendations"]) == 10
        assert all(
            line["reasons"] and line["metadata"]["title"] for line in answer["recommendations"]
        )
        seen = {str(item) for other, item, _, _ in rows if str(other) == user}
        assert not seen & {line["item_id"] for line in answer["recommendations"]}
        assert [fallback["engine"] for fallback in answer["fallbacks"]] == (
            ["ensemble"] if user == hot else []
        )


def _ready(port: int) -> bool:
    try:
        return bool(_get(port, "/health/ready"))
    except OSError:
        return False
