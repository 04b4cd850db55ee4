"""What `training evaluate` prints at 80 columns."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from core.errors import ConfigurationError
from core.settings import Settings
from tests.training import world
from tests.training.evaluation.test_evaluate import judged
from training.evaluation import output


def test_users_ndcg_with_its_interval_recall_and_diversity_fit_the_others_are_named_by_metric(
    offline: Settings,
) -> None:
    evaluation = judged(offline, world.built(offline, world.parity()))

    def printed(*names: str) -> list[str]:
        file = io.StringIO()
        output.report(evaluation, Console(file=file, width=80), names)
        lines = file.getvalue().splitlines()
        assert max(map(len, lines)) <= 80
        return lines

    _, header, _, *rows = printed()
    assert header.split() == ["segment", "engine", "users", "ndcg@10", "recall@10", "diversity@10"]
    interval = r"\d\.\d{4} \d\.\d{3}-\d\.\d{3}"
    (routed,) = [row for row in rows if row.startswith("all") and " routed " in row]
    assert re.fullmatch(rf"all +routed +\d+ +{interval} +\d\.\d{{4}} +\d\.\d{{4}}", routed)
    assert rows[-1].startswith("not shown: precision@10, map@10, ")
    _, header, _, *rows = printed("map@10", "ndcg@5")
    assert header.split() == ["segment", "engine", "users", "map@10", "ndcg@5"]
    assert len(re.findall(interval, rows[0])) == 2


def test_a_misspelt_metric_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ConfigurationError, match=r"--metric 'ndgc@10' is none of .*ndcg@10"):
        output.check_metrics(["ndgc@10"])
