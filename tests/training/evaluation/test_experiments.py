"""What the report on experiments may be believed: numbers redone by hand, and how often it is wrong
by simulation.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from redis import Redis
from rich.console import Console

from core.deletions import IdHasher
from core.errors import ConfigurationError
from core.experiments import Variant, point, recommendation_id
from core.settings import Settings
from core.types import Interaction
from engines.experiments.intervals import (
    needed,
    share_difference,
)
from engines.experiments.report import Row, Sample, analyse
from store.state import connection
from store.state.apply import counted_settings, deletions
from store.state.apply.applier import Applier
from store.state.apply.batches import UNKNOWN_DELETIONS, Event, OffsetRange
from store.state.apply.planner import Planner
from store.state.entities.experiments import Exposures
from training import commands
from training.evaluation.experiments import reports

SEED = 20_261_123


def _sample(name: str, weights: list[float] | np.ndarray, weight: float = 1.0) -> Sample:
    return Sample(
        Variant("blend", "blend-1", name, weight, {}, (), f"blend-1.{name}"),
        0,
        np.asarray(weights, dtype=np.float64),
        0,
        {},
    )


def _shares(name: str, converted: int, users: int, weight: float = 1.0) -> Sample:
    return _sample(name, [1.0] * converted + [0.0] * (users - converted), weight)


def _judged(*samples: Sample, detect: float = 0.1) -> list[Row]:
    return analyse(samples, detect)[0]


def test_there_is_no_verdict_before_the_needed_number_of_users() -> None:
    _, early = _judged(_shares("control", 10, 100), _shares("half", 40, 100))
    assert early.verdict == "early"
    assert early.more_users == 14_651
    assert early.sentence == "too early to say: 14,651 more users would show a difference of 10%"
    # needs 199
    _, row = _judged(_shares("control", 10, 100), _shares("half", 40, 100), detect=1.0)
    assert row.verdict == "early"
    _, row = _judged(_shares("control", 20, 200), _shares("half", 80, 200), detect=1.0)
    assert (row.verdict, row.more_users) == ("better", 0)
    assert row.sentence == "better than the control: +21.80 to +37.72 points"
    _, row = _judged(_shares("control", 80, 200), _shares("half", 20, 200), detect=0.5)
    assert row.verdict == "worse"
    _, row = _judged(_shares("control", 80, 200), _shares("half", 81, 200), detect=0.5)
    assert row.verdict == "none"
    assert row.sentence.startswith("no difference shown: -")


def test_there_is_no_verdict_before_the_first_outcome() -> None:
    for control, other in (
        (_shares("control", 0, 0), _shares("half", 0, 0)),
        (_shares("control", 0, 50), _shares("half", 3, 50)),
    ):
        _, row = _judged(control, other)
        assert (row.verdict, row.sentence) == (
            "early",
            "too early to say: there is no outcome to go by yet",
        )


def test_user_numbers_that_do_not_fit_the_weights_give_no_verdict() -> None:
    _, row = _judged(_shares("control", 500, 1000), _shares("half", 600, 800), detect=0.5)
    assert row.verdict == "broken"
    _, row = _judged(_shares("control", 500, 1000, 5), _shares("half", 600, 800, 4), detect=0.5)
    assert row.verdict == "better"


def test_more_comparisons_need_a_larger_difference() -> None:
    """Two comparisons are made at 97.5% each."""
    two, three = (
        _judged(_shares("control", 400, 1000), *others, detect=0.2)[1]
        for others in ([_BARELY], [_BARELY, _BARELY])
    )
    assert two.difference is not None
    assert three.difference is not None
    assert two.difference.low > 0 > three.difference.low
    assert (two.verdict, three.verdict) == ("better", "none")


_BARELY = _shares("other", 446, 1000)


def test_one_in_twenty_experiments_without_a_difference_shows_one() -> None:
    """A/A: users with an outcome or not, whatever the variant; drawn into variants as the API draws
    them.
    """
    print(f"seed {SEED}")
    users, rounds = 1000, 400
    outcomes = np.random.default_rng(SEED).random(users) < 0.3
    verdicts: Counter[str] = Counter()
    for number in range(rounds):
        drawn = (
            np.array([point(f"experiment_{number}", f"user-{user}") for user in range(users)]) < 0.5
        )
        control, other = (
            _sample(name, outcomes[drawn == side].astype(float))
            for name, side in (("control", True), ("other", False))
        )
        verdicts[_judged(control, other, detect=0.4)[1].verdict] += 1
    wrong = (verdicts["better"] + verdicts["worse"]) / rounds
    assert 0.02 < wrong < 0.08, verdicts
    assert verdicts["early"] + verdicts["broken"] < 0.02 * rounds


def test_four_of_five_experiments_show_the_difference_they_look_for() -> None:
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    users = needed(0.2, 0.2, 0.05)
    assert users is not None
    verdicts: Counter[str] = Counter()
    for _ in range(500):
        control, other = (
            _sample(name, (rng.random(users) < share).astype(float))
            for name, share in (("control", 0.2), ("other", 0.24))
        )
        difference = share_difference(other.share, control.share, 0.05)
        assert difference is not None
        verdicts["better" if difference.low > 0 else "none"] += 1
    assert 0.75 < verdicts["better"] / 500 < 0.86, verdicts


TOML = """
[experiments.blend]
users = [0.0, 1.0]
variants = { control = {}, half = { ensemble_als_weight = 0.5 } }
"""


@pytest.fixture
def running(settings: Settings, tmp_path: Path) -> Settings:
    path = tmp_path / "experiments.toml"
    path.write_text(TOML)
    return settings.model_copy(update={"experiments_path": path})


def _record(settings: Settings, redis: Redis, exposed: list[str], liking: list[str]) -> None:
    """Two exposures of every user in `exposed`, and a like of every user in `liking`."""
    exposures = Exposures(
        settings.experiments, 1000, lambda: None, IdHasher(settings.deletion_salt)
    )
    for user in [*exposed, *exposed]:
        variant = settings.experiments.assign(user, None)
        assert variant is not None
        exposures.add(variant, user)
    exposures.write(redis)
    deletions.mark_ready(redis)
    planner = Planner(settings.use_cases, settings.experiments)
    applier = Applier(connection.connect(settings), planner, 50, IdHasher(settings.deletion_salt))
    events = [
        Event(
            Interaction(
                "e",
                user,
                "i",
                "like",
                1.0,
                recommendation_id=recommendation_id(settings.experiments.assign(user, None)),
            ),
            1.0,
        )
        for user in liking
    ]
    applier.apply(planner.plan(OffsetRange("t", 0, 0, len(events)), events, UNKNOWN_DELETIONS))
    applier.close()


def test_the_report_counts_exposures_and_outcomes(
    running: Settings, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    users = [f"user-{number}" for number in range(60)]
    _record(running, redis, users, [*users[:20], "stranger"])
    (report,) = reports(running, 0.1)
    drawn = Counter(
        variant.name for user in users if (variant := running.experiments.assign(user, None))
    )
    liking = Counter(
        variant.name for user in users[:20] if (variant := running.experiments.assign(user, None))
    )
    for row in report.variants:
        assert (row.exposed_users, row.answers) == (drawn[row.variant], 2 * drawn[row.variant])
        assert row.users_with_outcome == liking[row.variant]
        assert row.mean_weight is not None
        assert row.mean_weight.value == pytest.approx(3 * liking[row.variant] / drawn[row.variant])
    assert sum(row.unexposed_users for row in report.variants) == 1
    assert sum(row.events["like"] for row in report.variants) == 21
    commands.report_experiments(running, True, 0.1, None, Console())
    (printed,) = json.loads(capsys.readouterr().out)
    assert printed["experiment"] == "blend"
    assert printed["variants"][1]["overrides"] == {"ensemble_als_weight": 0.5}
    commands.report_experiments(running, False, 0.1, None, Console(width=200))
    text = capsys.readouterr().out
    assert f"blend ({report.tag})" in text
    assert "half: too early to say" in text
    assert "1 users with an outcome are not counted" in text


def test_a_changed_experiment_starts_at_zero_and_its_old_numbers_stay_until_forgotten(
    running: Settings, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    _record(running, redis, ["1", "2", "3"], ["1"])
    former = running.experiments.all[0].tag
    assert running.experiments_path is not None
    running.experiments_path.write_text(TOML.replace("0.5", "0.6"))
    changed = running.model_copy(update={"experiments_path": running.experiments_path})
    changed.__dict__.pop("experiments")
    now, before = reports(changed, 0.1)
    assert (now.configured, now.since, [row.exposed_users for row in now.variants]) == (
        True,
        None,
        [0, 0],
    )
    assert (before.configured, before.tag, sum(row.exposed_users for row in before.variants)) == (
        False,
        former,
        3,
    )
    commands.report_experiments(changed, False, 0.1, None, Console(width=200))
    assert "no longer configured" in capsys.readouterr().out
    commands.report_experiments(changed, False, 0.1, former, Console())
    assert [report.tag for report in reports(changed, 0.1)] == [now.tag]
    with pytest.raises(ConfigurationError, match="there is no experiment with the tag"):
        commands.report_experiments(changed, False, 0.1, former, Console())


@pytest.mark.parametrize("forget", [None, "blend-1"])
def test_numbers_of_another_number_of_shards_are_named_and_not_shown_as_none(
    running: Settings, redis: Redis, forget: str | None
) -> None:
    counted_settings.check(redis, running)
    other = running.model_copy(update={"redis_shards": 4})
    with pytest.raises(ConfigurationError, match="this Redis has state of REDIS_SHARDS=1"):
        commands.report_experiments(other, False, 0.1, forget, Console())


def test_without_experiments_the_report_says_so(
    settings: Settings, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.report_experiments(settings, False, 0.1, None, Console(width=200))
    assert "no experiment is configured (EXPERIMENTS_PATH)" in capsys.readouterr().out


def test_exposures_without_outcomes_name_the_usual_cause(
    running: Settings, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    exposures = Exposures(running.experiments, 10, lambda: None, IdHasher(running.deletion_salt))
    exposures.add(running.experiments.all[0].variants[0], "1")
    exposures.write(redis)
    commands.report_experiments(running, False, 0.1, None, Console(width=200))
    assert "check that clients send it and ingest has EXPERIMENTS_PATH" in capsys.readouterr().out
