"""Masks over columns agree with the predicate on single items.

Checked for random catalogues and updates.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.types import AttributeFilter, Filters, Item, Request, UseCase, UserState
from engines import catalogue as catalogues
from engines.base import eligible, top_rows
from engines.cache import LruCache
from engines.catalogue import Catalogue
from engines.selection.filters import attribute_passes, conditions, defaults, passes
from tests.engines import world

WORDS = ["a", "b", "true", "2", "2.5"]
words = st.sampled_from(WORDS)
numeric = st.one_of(st.integers(-3, 3), st.floats(allow_nan=False), st.just(10**400))
values = st.one_of(st.none(), words, st.booleans(), numeric, st.lists(words, max_size=3))
attributes = st.dictionaries(st.sampled_from(["x", "y"]), values, max_size=2)
items = st.builds(
    Item,
    item_id=st.sampled_from([f"i{number}" for number in range(8)]),
    item_type=words,
    categories=st.lists(words, max_size=2),
    attributes=attributes,
    available=st.booleans(),
)
numbers = st.none() | st.floats(-4, 4) | st.sampled_from([float("nan"), float("inf")])
attribute_filters = st.builds(
    AttributeFilter,
    name=st.sampled_from(["x", "y", "z"]),
    equals=values,
    one_of=st.none() | st.lists(words, max_size=2).map(tuple),
    low=numbers,
    high=numbers,
)
word_tuples = st.lists(words, max_size=2).map(tuple)
filters = st.builds(
    Filters,
    item_types=word_tuples,
    categories=word_tuples,
    attributes=st.lists(attribute_filters, max_size=2).map(tuple),
    available_only=st.booleans(),
)
use_cases = st.none() | words.map(
    lambda word: UseCase(name=word, role="r", item_type=word, path="p", weights={})
)
updates = st.lists(
    st.tuples(
        st.lists(items, max_size=4),
        st.lists(st.sampled_from(["i0", "i1", "bare", "other"]), max_size=2),
    ),
    max_size=4,
)


@given(st.lists(items, max_size=8), updates, filters, filters, use_cases)
def test_a_mask_agrees_with_the_predicate_on_every_live_item(
    start: list[Item],
    changes: list[tuple[list[Item], list[str]]],
    requested: Filters,
    other: Filters,
    use_case: UseCase | None,
) -> None:
    catalogue = Catalogue.of(start, ["bare"])
    expected: dict[str, Item | None] = {"bare": None} | {item.item_id: item for item in start}
    requested_conditions = conditions(Request(filters=requested, use_case=use_case))
    for changed, deleted in [([], []), *changes]:
        catalogue = catalogue.updated(changed, deleted)
        expected |= {item.item_id: item for item in changed}
        for item_id in deleted:
            expected.pop(item_id, None)
        # columns and masks of another filter must not leak into this one
        catalogue.mask(conditions(Request(filters=other)))
        shown = {catalogue.ids[row] for row in np.flatnonzero(catalogue.mask(requested_conditions))}
        assert shown == {
            item_id for item_id, item in expected.items() if passes(item, requested_conditions)
        }
        assert {item_id: catalogue.get(item_id) for item_id in catalogue.rows} == expected


@pytest.mark.parametrize(
    ("value", "requested", "result"),
    [
        ("seed", AttributeFilter(name="x", equals="seed"), True),
        (2019, AttributeFilter(name="x", equals="2019"), True),
        (2019.0, AttributeFilter(name="x", equals=2019), True),
        (True, AttributeFilter(name="x", equals="true"), True),
        (True, AttributeFilter(name="x", equals=1), False),
        (["eu", "us"], AttributeFilter(name="x", equals="us"), True),
        (["eu", "us"], AttributeFilter(name="x", equals=["us", "eu"]), True),
        (["eu", "us"], AttributeFilter(name="x", equals=["us"]), False),
        ("b", AttributeFilter(name="x", one_of=("a", "b")), True),
        (5, AttributeFilter(name="x", low=5, high=5), True),
        (5, AttributeFilter(name="x", low=5.1), False),
        ("5", AttributeFilter(name="x", low=1), False),
        (True, AttributeFilter(name="x", low=0), False),
        (None, AttributeFilter(name="x", high=3), False),
        (None, AttributeFilter(name="x"), True),
    ],
)
def test_attributes_compare_as_documented(
    value: object, requested: AttributeFilter, result: bool
) -> None:
    assert attribute_passes(value, requested) is result  # type: ignore[arg-type]


def test_a_bare_item_passes_only_conditions_that_need_no_entry() -> None:
    bare = Catalogue.of([], ["ghost"])
    assert bare.mask(conditions(Request())).tolist() == [True]
    for requested in (
        Filters(item_types=("startup",)),
        Filters(categories=("a",)),
        Filters(attributes=(AttributeFilter(name="x", high=1),)),
    ):
        assert bare.mask(conditions(Request(filters=requested))).tolist() == [False]


def test_the_caches_of_masks_and_columns_are_bounded() -> None:
    catalogue = world.catalogue()
    for number in range(1000):
        requested = Filters(
            categories=(f"c{number}",), attributes=(AttributeFilter(name=f"a{number}", equals="x"),)
        )
        catalogue.mask(conditions(Request(filters=requested)))
    assert len(catalogue._masks) == catalogues.MASK_CACHE_SIZE
    assert len(catalogue._columns) <= catalogues.COLUMN_CACHE_SIZE


def test_the_cache_evicts_the_least_recently_used_value() -> None:
    cache: LruCache[str] = LruCache(2)
    for key in ("a", "b", "a", "c"):
        cache.get(key, lambda key=key: key)  # type: ignore[misc]
    computed: list[str] = []
    for key in ("a", "c", "b"):
        cache.get(key, lambda key=key: computed.append(key) or key)  # type: ignore[misc, func-returns-value]
    assert computed == ["b"]


def test_seen_and_excluded_items_do_not_change_the_mask_of_other_users() -> None:
    catalogue = world.catalogue()
    request = Request(filters=Filters(exclude_items=frozenset({"bank"})))
    first = eligible(catalogue, world.user("pay"), request)
    everyone = eligible(catalogue, UserState(user_id="x"), Request())
    assert not first[catalogue.rows["pay"]]
    assert not first[catalogue.rows["bank"]]
    assert everyone[catalogue.rows["pay"]]
    assert everyone[catalogue.rows["bank"]]


def test_a_use_case_sets_the_default_filters() -> None:
    unfiltered = UseCase(
        name="x",
        role="r",
        item_type="t",
        path="p",
        weights={},
        available_only=False,
        exclude_seen=False,
    )
    assert defaults(unfiltered) == Filters(available_only=False, exclude_seen=False)
    assert defaults(None) == Filters()


@given(st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]), max_size=12), st.data())
def test_top_rows_equals_a_truncated_stable_sort(scores: list[float], data: st.DataObject) -> None:
    allowed = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    limit = data.draw(st.integers(0, 14))
    expected = sorted(
        (row for row, score in enumerate(scores) if allowed[row] and score > -np.inf),
        key=lambda row: (-scores[row], row),
    )
    assert (
        top_rows(np.array(scores, dtype=np.float32), np.array(allowed, dtype=np.bool_), limit)
        == expected[:limit]
    )
