"""Exploration: new items get their share of the ranks, with a propensity.

The draw is random and repeatable.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from core.types import Item, Recommendation, Recommendations, Request, UserState
from engines.builder import build, with_catalogue, with_new_items, with_popularity
from engines.catalogue import Catalogue
from engines.explain import Explanation, explain
from engines.recommender import Recommender
from engines.selection.explore import NewItems
from models.als.new_items import NewItemFactors
from models.bundle import Bundle
from models.content import ContentModel
from models.id_map import IdMap
from tests.engines import world

DAY = 24 * 3600.0
NOW = 1_000 * DAY
OLD = [
    Item(item_id=f"old-{number}", item_type="toy", categories=["toy"], created_at=NOW - 100 * DAY)
    for number in range(30)
]
NEW = [
    Item(item_id=f"new-{number}", item_type="toy", created_at=NOW - number * DAY / 2)
    for number in range(20)
]
POPULAR = {"unlabelled": [(item.item_id, float(100 - at)) for at, item in enumerate(OLD)]}


def recommender(items: list[Item] | None = None) -> Recommender:
    items = OLD + NEW if items is None else items
    return build(
        Bundle.of("v1", items, content=ContentModel.fit(items)), Catalogue.of(items), POPULAR
    )


SHOP = recommender()


def answer(
    explore: float,
    user: str = "ada",
    at: float | None = NOW,
    limit: int = 10,
    shop: Recommender = SHOP,
) -> Recommendations:
    return shop.recommend(
        UserState(user_id=user), Request(limit=limit, engine="popular", explore=explore, at=at)
    )


def explored(result: Recommendations) -> list[Recommendation]:
    return [line for line in result.recommendations if line.method == "exploration"]


@pytest.mark.parametrize(
    ("explore", "ranks"),
    [(0.1, [10]), (0.2, [5, 10]), (0.3, [4, 7, 10]), (1.0, list(range(1, 11)))],
)
def test_new_items_get_their_share_of_the_ranks_spread_over_the_list(
    explore: float, ranks: list[int]
) -> None:
    result = answer(explore)
    assert [line.rank for line in result.recommendations] == list(range(1, 11))
    assert [line.rank for line in explored(result)] == ranks
    assert all(
        line.item_id.startswith("new-") and line.reasons[0].kind == "new" and line.metadata
        for line in explored(result)
    )
    others = [line.item_id for line in result.recommendations if line.method == "popular"]
    assert others == [f"old-{number}" for number in range(10 - len(ranks))], (
        "the others keep their order"
    )
    assert result.method_used == "popular"


def test_without_exploration_the_answer_is_unchanged() -> None:
    assert not explored(answer(0.0))
    assert (
        answer(0.0).recommendations
        == recommender()
        .recommend(world.user(), Request(engine="popular", explore=0.0))
        .recommendations
    )


def test_draws_are_stable_within_an_hour_and_differ_between_hours_and_users() -> None:
    def drawn(user: str, at: float) -> list[str]:
        return [line.item_id for line in explored(answer(0.5, user, at))]

    assert drawn("ada", NOW) == drawn("ada", NOW + 3599)
    assert len({tuple(drawn("ada", NOW + hour * 3600)) for hour in range(6)}) > 1
    assert len({tuple(drawn(user_id, NOW)) for user_id in ("ada", "bob", "cy", "dee")}) > 1
    elsewhere = recommender(list(reversed(OLD + NEW)))
    assert drawn("ada", NOW) == [line.item_id for line in explored(answer(0.5, shop=elsewhere))], (
        "the draw does not depend on the order of rows"
    )


@pytest.mark.parametrize("explore", [0.15, 0.3])
def test_each_new_item_is_drawn_as_often_as_its_propensity_says(explore: float) -> None:
    """Over 4,000 users, within five standard deviations of a binomial count.

    A fraction of a rank is the probability of one more.
    """
    users = 4000
    counts: Counter[str] = Counter()
    for number in range(users):
        lines = explored(answer(explore, f"user-{number}"))
        counts.update(line.item_id for line in lines)
        assert all(line.propensity == pytest.approx(explore * 10 / len(NEW)) for line in lines)
    expected = users * explore * 10 / len(NEW)
    assert sum(counts.values()) == pytest.approx(users * explore * 10, rel=0.05)
    assert set(counts) == {item.item_id for item in NEW}
    assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5


def test_a_fractional_number_of_ranks_is_met_on_average() -> None:
    numbers = Counter(
        len(explored(answer(0.25, f"user-{number}", limit=10))) for number in range(500)
    )
    assert set(numbers) == {2, 3}
    assert 200 < numbers[2] < 300


def test_inverse_propensity_weighting_estimates_the_true_mean() -> None:
    """The use of the propensity: the mean over all new items, estimated from the drawn ones."""
    value = {item.item_id: float(at) for at, item in enumerate(NEW)}
    users = 3000
    total = sum(
        value[line.item_id] / line.propensity
        for number in range(users)
        for line in explored(answer(0.25, f"u{number}"))
    )
    assert total / users / len(NEW) == pytest.approx(np.mean(list(value.values())), rel=0.05)


def test_when_few_items_are_new_all_are_drawn_with_propensity_1() -> None:
    shop = recommender(OLD + NEW[:2])
    result = answer(0.5, shop=shop)
    assert sorted(line.item_id for line in explored(result)) == ["new-0", "new-1"]
    assert [line.propensity for line in explored(result)] == [1.0, 1.0]
    assert len({line.item_id for line in result.recommendations}) == 10


def test_a_new_item_that_is_popular_is_not_shown_twice() -> None:
    shop = with_popularity(
        recommender(), {"unlabelled": [("new-3", 1000.0), *POPULAR["unlabelled"]]}
    )
    for number in range(50):
        result = answer(0.4, f"user-{number}", shop=shop)
        ids = [line.item_id for line in result.recommendations]
        assert len(set(ids)) == 10
        assert ids[0] == "new-3"


def test_the_only_new_item_is_shown_once_if_it_is_also_popular() -> None:
    scores = [(item.item_id, 100.0 - at) for at, item in enumerate(OLD)]
    shop = with_popularity(recommender(OLD + NEW[:1]), {"unlabelled": [*scores, ("new-0", 92.5)]})
    plain, result = (answer(explore, shop=shop).recommendations for explore in (0.0, 0.4))
    assert [line.item_id for line in plain].index("new-0") == 8
    assert sorted(line.item_id for line in result) == sorted(line.item_id for line in plain)
    assert [line.item_id for line in result if line.method == "exploration"] == ["new-0"]


def test_drawn_items_pass_the_filters() -> None:
    smaller = with_catalogue(SHOP, SHOP.catalogue.updated([], [item.item_id for item in NEW[5:]]))
    result = smaller.recommend(
        world.user("new-0", "new-1"), Request(limit=10, engine="popular", explore=1.0, at=NOW)
    )
    assert {line.item_id for line in explored(result)} == {"new-2", "new-3", "new-4"}


def test_items_are_new_for_new_item_days_and_future_dates_do_not_count() -> None:
    def pool(at: float | None) -> set[str]:
        return {line.item_id for line in explored(answer(1.0, at=at, limit=50))}

    everything = {item.item_id for item in NEW}
    assert pool(NOW) == pool(None) == everything
    assert pool(NOW + 10 * DAY) == {f"new-{number}" for number in range(9)}, (
        "14 days: the items of the last four days before NOW"
    )
    assert pool(NOW + 100 * DAY) == set()
    assert pool(NOW - 12 * DAY) == set(), "created long after the request"


def test_an_item_that_is_not_in_the_model_is_new_with_any_date() -> None:
    new_items = NewItems(Catalogue.of(OLD), 14, ["old-7", "nobody"])
    allowed = np.ones(len(OLD), dtype=np.bool_)
    assert new_items.draw("ada", NOW, allowed, 3.0) == ([7], 1.0)
    base, state = world.recommender(), world.user("pay")
    factors = NewItemFactors(IdMap(["mute"]), np.ones((1, 2), dtype=np.float32), base.made_with)
    request = Request(limit=3, engine="popular", explore=0.34, at=NOW)
    assert not explored(base.recommend(state, request)), (
        "the world's items are old, and `mute` has no date"
    )
    for shop in (
        with_new_items(base, factors),
        with_new_items(with_new_items(base, NewItemFactors.none()), factors),
    ):
        assert [line.item_id for line in explored(shop.recommend(state, request))] == ["mute"]
    assert not explored(
        with_new_items(with_new_items(base, factors), NewItemFactors.none()).recommend(
            state, request
        )
    )


def test_an_empty_catalogue_and_one_without_dates_have_no_new_items() -> None:
    for items in ([], [Item(item_id="a", item_type="toy")]):
        shop = build(Bundle.of("v1", items), Catalogue.of(items), {})
        assert not explored(shop.recommend(world.user(), Request(explore=1.0)))


def test_explain_shows_the_rank_of_a_drawn_item() -> None:
    request = Request(limit=10, engine="popular", explore=0.1, at=NOW)
    line = explored(SHOP.recommend(world.user(), request))[0]
    result: Explanation = explain(SHOP, world.user(), line.item_id, request)
    assert (result.shown, result.rank, result.method_used) == (True, 10, "popular")
