"""A learned blend finds what its voters followed, and is only served when it does better for those who had no part in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from core.types import Reason
from engines.base import Scoring
from engines.catalogue import Catalogue
from models.ensemble import POWERS, Learned
from tests.training import world
from training.blend import learned as blend_learned
from training.blend import mixture as blend
from training.blend.learned import Vote

NAMES = ("a", "b")


class Scored(Scoring):
    """Scores, and no reasons."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        return [[] for _ in rows]


def votes(count: int, follow: Callable[[int], str], seed: int = 1) -> list[Vote]:
    """Each with 50 candidates that two engines score at random, having taken the three best of the engine that `follow(events)` names."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        scaled = rng.random((2, 50)).astype(np.float32)
        events = int(np.exp(rng.uniform(np.log(2), np.log(200))))
        taken = np.zeros(50, np.bool_)
        taken[np.argsort(-scaled[NAMES.index(follow(events))])[:3]] = True
        found.append(Vote(scaled, taken, 3, events))
    return found


def likelihood(learned: Learned, voters: list[Vote]) -> float:
    """As the module's docstring says, straight down."""
    total = 0.0
    for vote in voters:
        part = learned.part(vote.events)
        scores = np.zeros(vote.scaled.shape[1])
        for name, scaled in zip(NAMES, vote.scaled.astype(np.float64), strict=True):
            for power, few, many in zip(POWERS, *learned.weights.get(name, ((0.0,) * 3,) * 2), strict=True):
                scores += ((1 - part) * few + part * many) * scaled**power
        chances = scores - np.log(np.exp(scores).sum())
        total += chances[vote.taken].sum() / np.sqrt(vote.taken.sum())
    numbers = np.array(list(learned.weights.values()))
    return total / len(voters) - blend_learned.PENALTY * float((numbers**2).sum())


def moved(learned: Learned, by: np.ndarray) -> Learned:
    numbers = np.maximum(np.array([learned.weights.get(name, ((0.0,) * 3,) * 2) for name in NAMES]) + by, 0).tolist()
    weights = {name: (tuple(few), tuple(many)) for name, (few, many) in zip(NAMES, numbers, strict=True)}
    return Learned(few=learned.few, many=learned.many, weights=weights)


def test_an_engine_that_nobody_follows_gets_next_to_nothing() -> None:
    voters = votes(300, lambda _: "b")
    learned = blend_learned.fit(NAMES, voters)
    assert learned is not None
    assert blend_learned.shares(learned, voters)["b"] > 0.95
    assert blend_learned.ndcg(NAMES, learned, voters, 10).mean() > 0.9


def test_it_follows_the_users_events() -> None:
    learned = blend_learned.fit(NAMES, votes(600, lambda events: "a" if events < 20 else "b"))
    assert learned is not None
    assert (learned.few, learned.many) == (pytest.approx(2, abs=1), pytest.approx(160, abs=30))
    few, many = learned.at(3), learned.at(150)
    assert sum(few["a"]) > 0.8
    assert sum(many["b"]) > 0.8


def test_no_other_numbers_nearby_are_likelier() -> None:
    voters = votes(200, lambda events: "a" if events % 3 else "b")
    learned = blend_learned.fit(NAMES, voters)
    assert learned is not None
    best, rng = likelihood(learned, voters), np.random.default_rng(2)
    for _ in range(50):
        assert likelihood(moved(learned, rng.normal(0, 0.3, (2, 2, 3))), voters) < best + 1e-4


def test_ndcg_by_hand() -> None:
    """The item taken is second: 1 / log2(3). Of two taken, one is no candidate: over 1 + 1 / log2(3)."""
    plain = Learned(few=1, many=1, weights={"a": ((0.0, 1.0, 0.0), (0.0, 1.0, 0.0))})
    scaled, taken = np.array([[0.5, 1.0, 0.1], [0.0, 0.0, 1.0]], np.float32), np.array([True, False, False])
    found = blend_learned.ndcg(NAMES, plain, [Vote(scaled, taken, 1, 5), Vote(scaled, taken, 2, 5)], 10)
    second = 1 / np.log2(3)
    assert found == pytest.approx([second, second / (1 + second)])


def test_nothing_is_learned_where_nobody_took_a_candidate() -> None:
    none = [Vote(vote.scaled, np.zeros(50, np.bool_), 1, 9) for vote in votes(5, lambda _: "a")]
    assert blend_learned.fit(NAMES, none) is None


def ballot(voters: list[Vote]) -> blend.Ballot:
    """The same voters through the door that `choose` uses."""
    catalogue = Catalogue.of(world.items()[:50])
    cast = blend.Ballot(NAMES)
    for vote in voters:
        cast.vote([Scored(scores) for scores in vote.scaled], np.ones(50, np.bool_), vote.taken, catalogue, vote.events)
    return cast


def test_it_is_served_where_it_does_better_for_voters_who_had_no_part_in_it() -> None:
    found = ballot(votes(200, lambda events: "a" if events < 20 else "b")).chosen()
    assert found.blend.fusion == "learned"
    assert found.unseen["learned"] > found.unseen["mixture"] + 0.05
    assert found.blend.learned is not None
    assert found.blend.shares.keys() == found.blend.learned.weights.keys()
    assert found.ndcg == pytest.approx(found.unseen["learned"], abs=0.05)


def test_a_mixture_leads_by_more_than_chance_or_the_learned_one_is_served() -> None:
    """A mean lead of 0.01; single voters differ by 0.1, so 400 of them tell it from chance (0.005) and 25 do not (0.02)."""
    for count, learned in ((25, True), (400, False)):
        differing = np.resize([0.1, -0.1], count)
        differing -= differing.mean()
        unseen = {"mixture": 0.31 + differing, "learned": np.full(count, 0.3)}
        assert blend._learned_serves(unseen) is learned
    assert not blend._learned_serves({"mixture": np.ones(100)})


def test_a_mixture_is_served_where_that_does_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blend_learned, "ndcg", lambda _names, _learned, voters, _k: np.zeros(len(voters)))
    found = ballot(votes(100, lambda _: "b")).chosen()
    assert found.blend.weights["b"] >= 0.9
    assert found.blend.fusion != "learned"
    assert found.unseen["learned"] == 0


def test_voters_judge_only_what_they_had_no_part_in(monkeypatch: pytest.MonkeyPatch) -> None:
    voters = votes(50, lambda _: "a")
    fit, ndcg, made = blend_learned.fit, blend_learned.ndcg, dict[int, set[int]]()

    def noted(names: Sequence[str], some: Sequence[Vote]) -> Learned | None:
        learned = fit(names, some)
        made[id(learned)] = {id(vote) for vote in some}
        kept.append(learned)
        return learned

    def judged(names: Sequence[str], learned: Learned, some: Sequence[Vote], k: int) -> np.ndarray:
        if len(some) < len(voters):
            assert not made[id(learned)] & {id(vote) for vote in some}
            apart.extend(id(vote) for vote in some)
        return ndcg(names, learned, some, k)

    kept: list[Learned | None] = []
    apart: list[int] = []
    monkeypatch.setattr(blend_learned, "fit", noted)
    monkeypatch.setattr(blend_learned, "ndcg", judged)
    ballot(voters).chosen()
    assert len(apart) == len(set(apart)) == 50, "each is judged once"
