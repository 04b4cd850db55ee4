"""`tune router` recommends the thresholds at which the best engine changes, and keeps the
configured ones when a gain may be chance.
"""

from __future__ import annotations

import io
import time
from dataclasses import fields

import numpy as np
import pytest
from rich.console import Console

from core.errors import DatasetError
from core.settings import Settings
from core.types import Item, Recommendations, Request, UserState
from engines.builder import build
from engines.catalogue import Catalogue
from engines.recommender import Recommender
from models.als import ALSModel
from models.bundle import Bundle
from models.content import ContentModel
from models.id_map import IdMap
from models.router.thresholds import NEVER
from tests.training import world
from training import als
from training.data.dataset import Dataset
from training.tuning import router as tune_router
from training.tuning import router_measurements
from training.tuning.router_measurements import COUNTS, ENGINES, Measurements

CONFIGURED = (5, 20)
CONTENT, ALS, ENSEMBLE = range(3)
SMALL = als.Hyperparameters(factors=4, regularization=5.0, alpha=2.0, iterations=10)


def measurements_of(
    cold: int, warm: int, users: int = 60, noise: float = 0.02, lead: float = 0.1
) -> Measurements:
    """Content is the best engine below `cold` events, ALS below `warm`, the ensemble from there on,
    each by `lead`.
    """
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(users), len(COUNTS))
    count = np.tile(np.array(COUNTS), users)
    gain = 0.3 + rng.normal(0, noise, (len(count), len(ENGINES)))
    gain[np.arange(len(count)), (count >= cold).astype(int) + (count >= warm)] += lead
    return Measurements(user, count, gain)


def test_the_best_thresholds_are_where_the_best_engine_changes() -> None:
    for pair in ((3, 12), (0, 8), (2, NEVER), (8, 8), CONFIGURED):
        assert tune_router.best(measurements_of(*pair), CONFIGURED) == pair


def test_a_significant_gain_is_reported_with_the_settings_to_change() -> None:
    verdict = tune_router.judge(measurements_of(3, 12), CONFIGURED, seed=1)
    assert verdict.better
    assert verdict.recommended == (3, 12)
    assert 0 < verdict.low < verdict.gain < verdict.high
    assert tune_router.sentence(verdict).startswith(
        "Here 3 and 12 would be better than 5 and 20: +"
    )
    assert tune_router.sentence(verdict).endswith(
        "Set COLD_START_THRESHOLD=3 and WARM_USER_THRESHOLD=12."
    )


def test_a_gain_that_may_be_chance_keeps_5_and_20() -> None:
    verdict = tune_router.judge(measurements_of(3, 12, noise=0.2, lead=0.01), CONFIGURED, seed=8)
    assert verdict.preferred != CONFIGURED
    assert verdict.low <= 0
    assert not verdict.better
    assert verdict.recommended == CONFIGURED
    assert tune_router.sentence(verdict).startswith(
        "5 and 20 suit this data: the best other pair, "
    )
    assert tune_router.sentence(verdict).endswith("which may be chance.")


def test_when_5_and_20_are_best_the_report_says_that_they_suit() -> None:
    verdict = tune_router.judge(measurements_of(*CONFIGURED), CONFIGURED, seed=1)
    assert (
        tune_router.sentence(verdict)
        == "5 and 20 suit this data: no other pair did better for the users who chose."
    )
    assert (verdict.gain, verdict.low, verdict.high) == (0.0, 0.0, 0.0)


def test_engines_of_equal_quality_keep_the_configured_thresholds() -> None:
    alike = measurements_of(3, 12)
    alike.gain[:] = 0.25
    assert tune_router.best(alike, (4, 17)) == (4, 17)
    assert gain_of(alike, (0, 0), (4, 17)) == (0.0, 0.0, 0.0)


def gain_of(
    measurements: Measurements, pair: tuple[int, int], configured: tuple[int, int]
) -> tuple[float, float, float]:
    new, old = measurements.routed(pair), measurements.routed(configured)
    return tune_router.relative_gain(measurements.user, new, old, seed=1)


def test_the_gain_is_relative_and_the_bootstrap_draws_users() -> None:
    # Ann and Ben, eight times each: ALS .5, the ensemble .6. Whoever is drawn, it is +20%.
    user, count = np.repeat([0, 1], 8), np.full(16, 20)
    alike = Measurements(user, count, np.array([[0, 0.5, 0.6]] * 16))
    assert gain_of(alike, (5, 20), (5, NEVER)) == pytest.approx((0.2, 0.2, 0.2))
    # Ben now loses what Ann wins: nothing in the mean. One draw in four is Ann twice, one Ben
    # twice: these are the ends of the interval.
    apart = Measurements(user, count, np.array([[0, 0.5, 0.6]] * 8 + [[0, 0.5, 0.4]] * 8))
    assert gain_of(apart, (5, 20), (5, NEVER)) == pytest.approx((0.0, -0.2, 0.2))
    nothing = Measurements(user, count, np.zeros((16, 3)))
    assert gain_of(nothing, (5, 20), (5, NEVER)) == (0.0, 0.0, 0.0)


def test_users_measure_the_thresholds_that_others_chose() -> None:
    """One user alone prefers the ensemble from the first event on, and gets what the others do."""
    measurements = measurements_of(3, 12, noise=0.0)
    loner = measurements.user == 7
    measurements.gain[loner, ENSEMBLE] = 0.9
    values = tune_router.cross_validated(measurements, CONFIGURED, seed=1)
    assert values[loner] == pytest.approx(measurements.routed((3, 12))[loner])


def test_the_report_has_each_engine_by_count_and_the_verdict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    measurements = measurements_of(3, 12)
    sections = tune_router.facts(
        measurements,
        tune_router.judge(measurements, CONFIGURED, seed=1),
        "two_tower: disabled by ENABLE_TWO_TOWER=false",
    )
    assert sections["router"] == {"cold_start_threshold": 3, "warm_user_threshold": 12}
    rows = sections["tuned"]["by_count"]
    assert [row["events"] for row in rows] == list(COUNTS)
    assert all(row["users"] == 60 for row in rows)
    assert rows[0]["content_based"] > rows[0]["als"]
    shown = io.StringIO()
    tune_router.report(sections, Console(file=shown, width=300))
    assert "Here 3 and 12 would be better" in shown.getvalue()
    assert "disabled by ENABLE_TWO_TOWER=false" in shown.getvalue()


class RecordingRecommender(Recommender):
    """Records the requests that it answers."""

    def recommend(self, state: UserState, request: Request) -> Recommendations:
        self.__dict__.setdefault("requests", []).append((state, request))
        return super().recommend(state, request)


@pytest.fixture
def people(settings: Settings) -> Dataset:
    return world.built(settings, world.parity(users=240))


def recorder(
    data: Dataset, settings: Settings, model: ALSModel, entries: list[Item]
) -> RecordingRecommender:
    bundle = Bundle.of(catalogue=entries, als=model, content=ContentModel.fit(entries))
    built = build(bundle, Catalogue.of(entries, model.item_ids.ids), {}, settings)
    return RecordingRecommender(
        **{field.name: getattr(built, field.name) for field in fields(built)}
    )


def fitted_als(data: Dataset, users: np.ndarray) -> ALSModel:
    return als.fit(data.interactions(~np.isin(data.user, users)), SMALL, seed=1)


def bare() -> list[Item]:
    return [Item(item_id=item.item_id, item_type="startup") for item in world.items()]


def test_users_are_evaluated_after_their_first_events_and_judged_by_their_next_items(
    people: Dataset, settings: Settings
) -> None:
    users = router_measurements.draw_users(people, seed=1)
    recommender = recorder(people, settings, fitted_als(people, users), world.items())
    measurements = router_measurements.measure(
        recommender, people, users, settings, time.monotonic() + 600
    )
    requests: list[tuple[UserState, Request]] = recommender.__dict__["requests"]
    assert {state.user_id for state, _ in requests} == {people.users.ids[user] for user in users}
    before = [count for count in COUNTS if count < 12]
    assert [state.events for state, _ in requests[:: len(ENGINES)]] == before * len(users), (
        "nobody has more than 12 events"
    )
    assert [request.engine for _, request in requests[: len(ENGINES)]] == list(ENGINES)
    for state, request in requests:
        user = people.users.rows([state.user_id])[0]
        mine = [
            people.items.ids[item]
            for item in people.item[people.indptr[user] : people.indptr[user + 1]]
        ]
        assert [event.item_id for event in state.history] == mine[: state.events]
        assert request.filters.exclude_items == frozenset(mine[: state.events])
    assert measurements.gain[measurements.count >= 2, ALS].mean() > 0.3, (
        "ALS knows after two items whether a user is even or odd"
    )
    assert set(np.unique(measurements.count)) == set(before)


def test_als_that_is_better_than_content_gets_a_low_threshold(
    people: Dataset, settings: Settings
) -> None:
    users = router_measurements.draw_users(people, seed=1)
    recommender = recorder(people, settings, fitted_als(people, users), bare())
    verdict = tune_router.judge(
        router_measurements.measure(recommender, people, users, settings, time.monotonic() + 600),
        CONFIGURED,
        seed=1,
    )
    assert verdict.better
    assert verdict.preferred[0] <= 2
    assert verdict.preferred[1] == CONFIGURED[1], (
        "there was no ensemble to speak for another second threshold"
    )


def test_als_with_random_factors_gets_a_high_threshold(people: Dataset, settings: Settings) -> None:
    users = router_measurements.draw_users(people, seed=1)
    factors = np.random.default_rng(0).normal(size=(len(people.items), 8)).astype(np.float32)
    recommender = recorder(
        people,
        settings,
        ALSModel(IdMap(people.items.ids), factors, regularization=0.1, alpha=5.0),
        world.items(),
    )
    verdict = tune_router.judge(
        router_measurements.measure(recommender, people, users, settings, time.monotonic() + 600),
        CONFIGURED,
        seed=1,
    )
    assert verdict.better
    assert verdict.preferred[0] >= 8, "with 8 events and more content still knows better"


def test_too_little_time_or_too_few_users_raise_an_error(
    people: Dataset, settings: Settings
) -> None:
    users = router_measurements.draw_users(people, seed=1)
    recommender = recorder(people, settings, fitted_als(people, users), world.items())
    with pytest.raises(
        DatasetError, match=r"for 0 users only, at least 40 are needed; give --minutes more"
    ):
        router_measurements.measure(recommender, people, users, settings, time.monotonic() - 1)
    with pytest.raises(DatasetError, match=r"for 3 users only.*collect more events"):
        router_measurements.measure(
            recommender, people, users[:3], settings, time.monotonic() + 600
        )


def test_next_items_exclude_the_history_and_dismissed_items(settings: Settings) -> None:
    items = ["a", "b", "a", "c", "b", "d", "c", "e"]
    rows = [
        world.row(at, "ann", item, "dismiss" if item == "d" else "like")
        for at, item in enumerate(items)
    ]
    data = world.built(settings, rows)

    def following(count: int) -> list[str]:
        return [
            data.items.ids[row]
            for row in router_measurements.next_items(data, count, len(items), data.item[:count])
        ]

    assert following(0) == ["a", "b", "c", "e"]
    assert following(2) == ["c", "e"]
    assert following(7) == ["e"]
    assert following(8) == []


def test_at_most_a_fifth_of_the_users_is_left_out_of_the_fit(people: Dataset) -> None:
    users = router_measurements.draw_users(people, seed=1)
    assert len(users) == len(set(users.tolist())) == 48
    assert router_measurements.draw_users(people, seed=1).tolist() == users.tolist()
    assert router_measurements.draw_users(people, seed=2).tolist() != users.tolist()
