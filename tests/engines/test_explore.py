"""Exploration: new items get their share of the places, by a lot that is fair, repeatable and says its odds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from core.types import Item, Recommendation, Recommendations, Request, UserState
from engines.builder import build, with_catalogue, with_popularity, with_young
from engines.catalogue import Catalogue
from engines.explain import Explanation, explain
from engines.recommender import Recommender
from engines.selection.explore import NewItems
from models.bundle import Bundle
from models.content import ContentModel
from models.id_map import IdMap
from models.young import YoungItems
from tests.engines import world

DAY = 24 * 3600.0
NOW = 1_000 * DAY
OLD = [Item(item_id=f"old-{number}", item_type="toy", categories=["toy"], created_at=NOW - 100 * DAY) for number in range(30)]
NEW = [Item(item_id=f"new-{number}", item_type="toy", created_at=NOW - number * DAY / 2) for number in range(20)]
POPULAR = {"unlabelled": [(item.item_id, float(100 - at)) for at, item in enumerate(OLD)]}


def recommender(items: list[Item] | None = None) -> Recommender:
    items = OLD + NEW if items is None else items
    return build(Bundle.of("v1", items, content=ContentModel.fit(items)), Catalogue.of(items), POPULAR)


SHOP = recommender()


def answer(explore: float, user: str = "ada", at: float | None = NOW, limit: int = 10, shop: Recommender = SHOP) -> Recommendations:
    return shop.recommend(UserState(user_id=user), Request(limit=limit, engine="popular", explore=explore, at=at))


def explored(found: Recommendations) -> list[Recommendation]:
    return [line for line in found.recommendations if line.method == "exploration"]


@pytest.mark.parametrize(("explore", "places"), [(0.1, [10]), (0.2, [5, 10]), (0.3, [4, 7, 10]), (1.0, list(range(1, 11)))])
def test_new_items_have_their_share_of_the_places_spread_over_the_list(explore: float, places: list[int]) -> None:
    found = answer(explore)
    assert [line.rank for line in found.recommendations] == list(range(1, 11))
    assert [line.rank for line in explored(found)] == places
    assert all(line.item_id.startswith("new-") and line.reasons[0].kind == "new" and line.metadata for line in explored(found))
    others = [line.item_id for line in found.recommendations if line.method == "popular"]
    assert others == [f"old-{number}" for number in range(10 - len(places))], "the others keep their order"
    assert found.method_used == "popular"


def test_without_exploration_the_answer_is_as_ever_and_says_nothing_of_propensity() -> None:
    assert not explored(answer(0.0))
    assert answer(0.0).recommendations == recommender().recommend(world.user(), Request(engine="popular", explore=0.0)).recommendations


def test_the_list_holds_for_the_hour_and_is_drawn_anew_in_the_next_one_and_for_each_user() -> None:
    def drawn(user: str, at: float) -> list[str]:
        return [line.item_id for line in explored(answer(0.5, user, at))]

    assert drawn("ada", NOW) == drawn("ada", NOW + 3599)
    assert len({tuple(drawn("ada", NOW + hour * 3600)) for hour in range(6)}) > 1
    assert len({tuple(drawn(user, NOW)) for user in ("ada", "bob", "cy", "dee")}) > 1
    elsewhere = recommender(list(reversed(OLD + NEW)))
    assert drawn("ada", NOW) == [line.item_id for line in explored(answer(0.5, shop=elsewhere))], "every process draws alike"


@pytest.mark.parametrize("explore", [0.15, 0.3])
def test_each_new_item_is_drawn_as_often_as_its_propensity_says(explore: float) -> None:
    """Over 4,000 users; a fraction of a place is a chance of one. Five standard deviations of a binomial count."""
    users = 4000
    counts: Counter[str] = Counter()
    for user in range(users):
        lines = explored(answer(explore, f"user-{user}"))
        counts.update(line.item_id for line in lines)
        assert all(line.propensity == pytest.approx(explore * 10 / len(NEW)) for line in lines)
    expected = users * explore * 10 / len(NEW)
    assert sum(counts.values()) == pytest.approx(users * explore * 10, rel=0.05)
    assert set(counts) == {item.item_id for item in NEW}
    assert max(abs(count - expected) for count in counts.values()) < 5 * expected**0.5


def test_a_share_is_kept_on_average_where_it_is_no_whole_number_of_places() -> None:
    numbers = Counter(len(explored(answer(0.25, f"user-{user}", limit=10))) for user in range(500))
    assert set(numbers) == {2, 3}
    assert 200 < numbers[2] < 300


def test_inverse_propensity_weighting_finds_the_true_mean() -> None:
    """What the propensity is for: the mean of something over all new items, from the drawn ones alone."""
    value = {item.item_id: float(at) for at, item in enumerate(NEW)}
    users = 3000
    total = sum(value[line.item_id] / line.propensity for user in range(users) for line in explored(answer(0.25, f"u{user}")))
    assert total / users / len(NEW) == pytest.approx(np.mean(list(value.values())), rel=0.05)


def test_when_few_items_are_new_they_are_all_shown_for_certain() -> None:
    shop = recommender(OLD + NEW[:2])
    found = answer(0.5, shop=shop)
    assert sorted(line.item_id for line in explored(found)) == ["new-0", "new-1"]
    assert [line.propensity for line in explored(found)] == [1.0, 1.0]
    assert len({line.item_id for line in found.recommendations}) == 10


def test_an_item_that_was_shown_anyway_is_not_shown_twice() -> None:
    shop = with_popularity(recommender(), {"unlabelled": [("new-3", 1000.0), *POPULAR["unlabelled"]]})
    for user in range(50):
        found = answer(0.4, f"user-{user}", shop=shop)
        ids = [line.item_id for line in found.recommendations]
        assert len(set(ids)) == 10
        assert ids[0] == "new-3"


def test_when_the_only_new_item_is_among_the_last_of_the_list_it_is_there_once() -> None:
    scores = [(item.item_id, 100.0 - at) for at, item in enumerate(OLD)]
    shop = with_popularity(recommender(OLD + NEW[:1]), {"unlabelled": [*scores, ("new-0", 92.5)]})
    plain, found = (answer(explore, shop=shop).recommendations for explore in (0.0, 0.4))
    assert [line.item_id for line in plain].index("new-0") == 8
    assert sorted(line.item_id for line in found) == sorted(line.item_id for line in plain)
    assert [line.item_id for line in found if line.method == "exploration"] == ["new-0"]


def test_filters_hold_for_explored_items_too() -> None:
    gone = with_catalogue(SHOP, SHOP.catalogue.updated([], [item.item_id for item in NEW[5:]]))
    found = gone.recommend(world.user("new-0", "new-1"), Request(limit=10, engine="popular", explore=1.0, at=NOW))
    assert {line.item_id for line in explored(found)} == {"new-2", "new-3", "new-4"}


def test_what_is_new_ends_after_its_days_and_a_date_in_the_far_future_is_not_new() -> None:
    def pool(at: float | None) -> set[str]:
        return {line.item_id for line in explored(answer(1.0, at=at, limit=50))}

    everything = {item.item_id for item in NEW}
    assert pool(NOW) == pool(None) == everything
    assert pool(NOW + 10 * DAY) == {f"new-{number}" for number in range(9)}, "14 days: those of the last four days before NOW"
    assert pool(NOW + 100 * DAY) == set()
    assert pool(NOW - 12 * DAY) == set(), "created after the request: no clock is that wrong"


def test_an_item_that_came_after_the_model_is_new_whatever_its_date() -> None:
    young = NewItems(Catalogue.of(OLD), 14, ["old-7", "nobody"])
    allowed = np.ones(len(OLD), dtype=np.bool_)
    assert young.draw("ada", NOW, allowed, 3.0) == ([7], 1.0)
    late, state = world.recommender(), world.user("pay")
    factors = YoungItems(IdMap(["mute"]), np.ones((1, 2), dtype=np.float32), late.made_with)
    asked = Request(limit=3, engine="popular", explore=0.34, at=NOW)
    assert not explored(late.recommend(state, asked)), "the world's items are old, and `mute` has no date"
    for shop in (with_young(late, factors), with_young(with_young(late, YoungItems.none()), factors)):
        assert [line.item_id for line in explored(shop.recommend(state, asked))] == ["mute"]
    assert not explored(with_young(with_young(late, factors), YoungItems.none()).recommend(state, asked))


def test_an_empty_shop_and_one_without_dates_explore_nothing() -> None:
    for items in ([], [Item(item_id="a", item_type="toy")]):
        shop = build(Bundle.of("v1", items), Catalogue.of(items), {})
        assert not explored(shop.recommend(world.user(), Request(explore=1.0)))


def test_explain_tells_the_place_of_an_explored_item() -> None:
    asked = Request(limit=10, engine="popular", explore=0.1, at=NOW)
    line = explored(SHOP.recommend(world.user(), asked))[0]
    found: Explanation = explain(SHOP, world.user(), line.item_id, asked)
    assert (found.shown, found.rank, found.method_used) == (True, 10, "popular")
