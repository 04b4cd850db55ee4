"""A learned blend gives weight to the engines that users follow, and is served only when
cross-validation prefers it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from core.types import Reason
from engines.base import Scoring
from engines.catalogue import Catalogue
from models.ensemble import POWERS, Blend, Learned
from tests.training import world
from training.blend import grid as blend
from training.blend import learned as blend_learned
from training.blend.grid import ALONE, GRID_METHOD, LEARNED
from training.blend.learned import Example

NAMES = ("a", "b")


class Scored(Scoring):
    """Scores, and no reasons."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        return [[] for _ in rows]


def examples_following(count: int, follow: Callable[[int], str], seed: int = 1) -> list[Example]:
    """Each has 50 candidates with random scores; relevant are the three best of the engine that
    `follow(events)` names.
    """
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        scaled = rng.random((2, 50)).astype(np.float32)
        events = int(np.exp(rng.uniform(np.log(2), np.log(200))))
        relevant = np.zeros(50, np.bool_)
        relevant[np.argsort(-scaled[NAMES.index(follow(events))])[:3]] = True
        examples.append(Example(scaled, relevant, 3, events))
    return examples


def likelihood(learned: Learned, examples: list[Example]) -> float:
    """The likelihood of the module's docstring, term by term."""
    total = 0.0
    for example in examples:
        part = learned.part(example.events)
        scores = np.zeros(example.scores.shape[1])
        for name, scaled in zip(NAMES, example.scores.astype(np.float64), strict=True):
            for power, few, many in zip(
                POWERS, *learned.weights.get(name, ((0.0,) * 3,) * 2), strict=True
            ):
                scores += ((1 - part) * few + part * many) * scaled**power
        chances = scores - np.log(np.exp(scores).sum())
        total += chances[example.relevant].sum() / np.sqrt(example.relevant.sum())
    numbers = np.array(list(learned.weights.values()))
    return total / len(examples) - blend_learned.PENALTY * float((numbers**2).sum())


def shifted(learned: Learned, by: np.ndarray) -> Learned:
    numbers = np.maximum(
        np.array([learned.weights.get(name, ((0.0,) * 3,) * 2) for name in NAMES]) + by, 0
    ).tolist()
    weights = {
        name: (tuple(few), tuple(many)) for name, (few, many) in zip(NAMES, numbers, strict=True)
    }
    return Learned(few=learned.few, many=learned.many, weights=weights)


def test_an_engine_that_no_user_follows_gets_almost_no_weight() -> None:
    examples = examples_following(300, lambda _: "b")
    learned = blend_learned.fit(NAMES, examples)
    assert learned is not None
    assert blend_learned.shares(learned, examples)["b"] > 0.95
    assert blend_learned.ndcg(NAMES, learned, examples, 10).mean() > 0.9


def test_the_weights_depend_on_the_number_of_events() -> None:
    learned = blend_learned.fit(
        NAMES, examples_following(600, lambda events: "a" if events < 20 else "b")
    )
    assert learned is not None
    assert (learned.few, learned.many) == (pytest.approx(2, abs=1), pytest.approx(160, abs=30))
    few, many = learned.at(3), learned.at(150)
    assert sum(few["a"]) > 0.8
    assert sum(many["b"]) > 0.8


def test_no_weights_nearby_have_a_higher_likelihood() -> None:
    examples = examples_following(200, lambda events: "a" if events % 3 else "b")
    learned = blend_learned.fit(NAMES, examples)
    assert learned is not None
    best, rng = likelihood(learned, examples), np.random.default_rng(2)
    for _ in range(50):
        assert likelihood(shifted(learned, rng.normal(0, 0.3, (2, 2, 3))), examples) < best + 1e-4


def test_ndcg_by_hand() -> None:
    """The relevant item is second: 1 / log2(3).

    Of two relevant items, one is no candidate: over 1 + 1 / log2(3).
    """
    plain = Learned(few=1, many=1, weights={"a": ((0.0, 1.0, 0.0), (0.0, 1.0, 0.0))})
    scaled, relevant = (
        np.array([[0.5, 1.0, 0.1], [0.0, 0.0, 1.0]], np.float32),
        np.array([True, False, False]),
    )
    gains = blend_learned.ndcg(
        NAMES, plain, [Example(scaled, relevant, 1, 5), Example(scaled, relevant, 2, 5)], 10
    )
    second = 1 / np.log2(3)
    assert gains == pytest.approx([second, second / (1 + second)])


def test_nothing_is_learned_when_no_candidate_is_relevant() -> None:
    none = [
        Example(example.scores, np.zeros(50, np.bool_), 1, 9)
        for example in examples_following(5, lambda _: "a")
    ]
    assert blend_learned.fit(NAMES, none) is None


def search(examples: list[Example]) -> blend.BlendSearch:
    """A search over the same examples, added as `choose` adds users."""
    catalogue = Catalogue.of(world.items()[:50])
    blend_search = blend.BlendSearch(NAMES)
    for example in examples:
        blend_search.add_user(
            [Scored(scores) for scores in example.scores],
            np.ones(50, np.bool_),
            example.relevant,
            catalogue,
            example.events,
        )
    return blend_search


def test_learned_weights_are_served_when_they_are_better_for_held_out_users() -> None:
    choice = search(examples_following(200, lambda events: "a" if events < 20 else "b")).choose()
    assert choice.blend.method == "learned"
    assert choice.cross_validated["learned"] > choice.cross_validated[GRID_METHOD] + 0.05
    assert choice.blend.learned is not None
    assert choice.blend.shares.keys() == choice.blend.learned.weights.keys()
    assert choice.ndcg == pytest.approx(choice.cross_validated["learned"], abs=0.05)


def test_the_grid_is_served_only_when_it_leads_by_more_than_the_standard_error() -> None:
    """The lead is 0.01; its standard error is 0.005 with 400 users and 0.02 with 25."""
    for count, learned in ((25, True), (400, False)):
        differing = np.resize([0.1, -0.1], count)
        differing -= differing.mean()
        cross_validated = {
            GRID_METHOD: 0.31 + differing,
            ALONE: np.full(count, 0.1),
            LEARNED: np.full(count, 0.3),
        }
        assert blend.preferred(cross_validated) == (LEARNED if learned else GRID_METHOD)
    assert blend.preferred({GRID_METHOD: np.ones(100), ALONE: np.ones(100)}) == GRID_METHOD


def test_one_engine_alone_is_served_when_every_blend_is_worse() -> None:
    cross_validated = {
        GRID_METHOD: np.full(100, 0.2),
        ALONE: np.full(100, 0.3),
        LEARNED: np.full(100, 0.1),
    }
    assert blend.preferred(cross_validated) == ALONE


@pytest.mark.parametrize(
    ("follow", "served"),
    [
        (lambda events: "ab"[events % 2], {"a": 0.6, "b": 0.4}),
        (lambda _: "b", {"b": 1.0}),
    ],
    ids=["both", "one"],
)
def test_few_users_replace_the_blend_of_the_settings_only_by_an_engine_that_is_better(
    follow: Callable[[int], str], served: dict[str, float]
) -> None:
    settings = Blend(weights={"a": 0.6, "b": 0.4})
    choice = search(examples_following(30, follow)).choose_from_few(settings)
    assert choice.blend == Blend(weights=served)
    assert choice.candidates[0][0].shares == pytest.approx(choice.blend.shares)
    assert choice.ndcg == choice.candidates[0][1]
    assert choice.cross_validated == {}


def test_the_grid_is_served_when_it_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        blend_learned, "ndcg", lambda _names, _learned, examples, _k: np.zeros(len(examples))
    )
    choice = search(examples_following(100, lambda _: "b")).choose()
    assert choice.blend.weights["b"] >= 0.9
    assert choice.blend.method != "learned"
    assert choice.cross_validated["learned"] == 0


def test_every_user_is_scored_once_by_weights_fitted_on_other_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples = examples_following(50, lambda _: "a")
    fit, ndcg, fitted_on = blend_learned.fit, blend_learned.ndcg, dict[int, set[int]]()

    def record_fit(names: Sequence[str], given_examples: Sequence[Example]) -> Learned | None:
        learned = fit(names, given_examples)
        fitted_on[id(learned)] = {id(example) for example in given_examples}
        models.append(learned)
        return learned

    def check_ndcg(
        names: Sequence[str], learned: Learned, given_examples: Sequence[Example], k: int
    ) -> np.ndarray:
        if len(given_examples) < len(examples):
            assert not fitted_on[id(learned)] & {id(example) for example in given_examples}
            judged.extend(id(example) for example in given_examples)
        return ndcg(names, learned, given_examples, k)

    models: list[Learned | None] = []
    judged: list[int] = []
    monkeypatch.setattr(blend_learned, "fit", record_fit)
    monkeypatch.setattr(blend_learned, "ndcg", check_ndcg)
    search(examples).choose()
    assert len(judged) == len(set(judged)) == 50, "each user is scored once"
