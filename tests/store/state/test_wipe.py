"""A wipe deletes what the log makes again, in every shard and of every former number of shards."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from core.errors import ConfigurationError, StoreError
from core.settings import Settings
from store.state import connection, keys, shard_numbers, wipe
from store.state.apply import counted_settings
from store.state.shards import Shards, shard_of_user

USERS = [f"user-{number}" for number in range(20)]


def _with(settings: Settings, shards: int) -> Settings:
    return settings.model_copy(update={"redis_shards": shards})


def _fill(settings: Settings) -> None:
    """State, and exposures, as processes with these settings write them."""
    with Shards(settings) as shards:
        counted_settings.check(shards.first, settings)
        shards.first.hset(keys.of(shards.first).experiments, "blend-1", "{}")
        for client in shards:
            client.hset(keys.of(client).deletions, "ready", "1")
        for user_id in USERS:
            client = shards.of_user(user_id)
            names = keys.of(client)
            client.hset(names.user(user_id), "events", 3)
            client.rpush(names.history(user_id), "1 view a")
            client.zincrby(names.popular("x"), 1.0, "a")
            client.zadd(names.experiment_exposed("blend-1.half"), {user_id: 2})


def _assert_only_exposures(redis: Redis, shards: int) -> None:
    """Of the state nothing is left, and each exposure is in the shard of its user."""
    expected: dict[bytes, Any] = {}
    for user_id in USERS:
        names = keys.Keys(shard_of_user(user_id, shards), shards)
        key = names.experiment_exposed("blend-1.half").encode()
        expected.setdefault(key, {})[user_id.encode()] = 2.0
    definitions = keys.Keys(0, shards).experiments.encode()
    assert set(redis.keys()) == {*expected, definitions}
    assert {key: dict(redis.zrange(key, 0, -1, withscores=True)) for key in expected} == expected


@pytest.mark.parametrize(("former", "now"), [(1, 1), (4, 4), (1, 4), (4, 1), (4, 2), (2, 6)])
def test_a_wipe_deletes_all_state_of_the_former_shards_and_keeps_exposures(
    redis: Redis, settings: Settings, former: int, now: int
) -> None:
    _fill(_with(settings, former))
    counts = wipe.count(_with(settings, now))
    assert counts["user"] == 2 * len(USERS)
    wipe.wipe(_with(settings, now))
    _assert_only_exposures(redis, now)
    assert wipe.count(_with(settings, now)) == {}


@pytest.mark.parametrize("deleted_shards", range(5))
def test_an_interrupted_wipe_is_noticed_with_either_number_of_shards_and_run_again(
    redis: Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch, deleted_shards: int
) -> None:
    four = _with(settings, 4)
    _fill(settings)
    delete, calls = wipe._delete, [deleted_shards]

    def dying(client: connection.Client) -> None:
        if not calls[0]:
            raise KeyboardInterrupt
        calls[0] -= 1
        delete(client)

    monkeypatch.setattr(wipe, "_delete", dying)
    with pytest.raises(KeyboardInterrupt):
        wipe.wipe(four)
    monkeypatch.undo()
    for known in (settings, four):
        with pytest.raises(StoreError, match="was interrupted"):
            wipe.check(connection.connect(known))
    wipe.wipe(four)
    _assert_only_exposures(redis, 4)
    wipe.check(connection.connect(four))


@pytest.mark.parametrize(("former", "now"), [(1, 4), (4, 1), (4, 2)])
def test_state_of_another_number_of_shards_is_refused_with_the_remedy(
    redis: Redis, settings: Settings, former: int, now: int
) -> None:
    _fill(_with(settings, former))
    before = set(redis.keys())
    with pytest.raises(
        ConfigurationError, match=rf"is {now}, but .* REDIS_SHARDS={former}\..*rebuild --wipe"
    ):
        counted_settings.check(connection.connect(_with(settings, now)), _with(settings, now))
    assert set(redis.keys()) == before, "nothing is written"
    assert shard_numbers.present(connection.connect(_with(settings, now))) == [former]
