"""The sampled softmax: its loss, and the probability of a candidate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training.two_tower.world import RING, USE_CASES, ring
from training.two_tower.samples import Sequences
from training.two_tower.softmax import SoftmaxLoss, candidates


def test_the_loss_and_its_gradient_equal_those_of_cross_entropy() -> None:
    torch.manual_seed(0)
    users, vectors = torch.randn(300, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    chance, places = torch.randn(50), torch.randint(0, 50, (300,))
    expected = torch.nn.functional.cross_entropy(users @ vectors.T - chance, places)
    loss = SoftmaxLoss.apply(users, vectors, chance, places, 300)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    for gradient, reference in zip(
        torch.autograd.grad(loss, (users, vectors)),
        torch.autograd.grad(expected, (users, vectors)),
        strict=True,
    ):
        torch.testing.assert_close(gradient, reference, atol=1e-6, rtol=1e-4)


def test_the_probability_of_a_candidate_is_how_often_it_is_drawn() -> None:
    sequences = Sequences.of(ring(), None, USE_CASES)
    share = np.bincount(sequences.item, minlength=RING) / len(sequences.item)
    rng = np.random.default_rng(1)
    draws, probabilities, rounds = np.zeros(RING), np.zeros(RING), 2000
    for _ in range(rounds):
        batch = sequences.batch(sequences.latest(rng.integers(0, 96, 2), 2))
        rows, log_chance = candidates(batch, share, 16, rng)
        draws[rows] += 1
        probabilities[rows] += np.exp(log_chance)
    np.testing.assert_allclose(probabilities / draws, draws / rounds, atol=0.08)
    rows, log_chance = candidates(batch, share, RING, rng)
    assert rows.tolist() == list(range(RING))
    assert not log_chance.any()
