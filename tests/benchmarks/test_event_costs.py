"""The costs of a transaction and of an event follow from two measurements."""

from __future__ import annotations

import pytest

from benchmarks.streams.event_costs import Costs, Snapshot, costs, fixed_and_each, quantile


def test_two_sizes_of_transactions_give_the_cost_of_a_transaction_and_of_an_event() -> None:
    def cost(transactions: float) -> Costs:
        return Costs(8 + 900 * transactions, 3 + 300 * transactions, 0, transactions, 0, 0)

    own, in_redis = fixed_and_each(small=cost(1 / 50), full=cost(1 / 400))
    assert own == pytest.approx((900, 8))
    assert in_redis == pytest.approx((300, 3))


def test_the_cost_of_an_event_is_what_was_used_between_two_snapshots() -> None:
    begin, end = (
        Snapshot(1, 100, 1, 2, 3, 10, 1000),
        Snapshot(3, 1_100, 1.01, 2.005, 3.02, 20, 201_000),
    )
    assert costs(begin, end) == pytest.approx(Costs(10, 5, 20, 0.01, 200, 500))


def test_a_quantile_of_cumulative_buckets_is_interpolated() -> None:
    buckets = {5.0: 10.0, 10.0: 60.0, 20.0: 100.0, float("inf"): 100.0}
    assert quantile(buckets, 0.35) == pytest.approx(7.5)
    assert quantile(buckets, 0.8) == pytest.approx(15.0)
