"""The page lists the processes that consume; a broker that hangs must not end the API with it."""

from __future__ import annotations

import signal

import pytest
from confluent_kafka import Consumer
from hypothesis import given
from hypothesis import strategies as st

from core.errors import LogUnavailable
from core.settings import Settings
from store.log import client as log
from store.log.groups import Groups, partitions
from testing.apache import KafkaBroker
from tests.support import eventually


@pytest.mark.apache
def test_each_member_is_listed_with_its_partitions(settings: Settings, broker: object) -> None:
    log.ensure_topics(settings)
    group, nobody = settings.live_group, settings.archive_group
    consumer = Consumer(log.consumer_config(settings, group))
    consumer.subscribe([settings.interactions_topic])
    try:
        eventually(lambda: consumer.poll(0.1) or consumer.assignment(), "it is assigned")
        members = Groups(settings).members([group, nobody])
    finally:
        consumer.close()
    assert members == {
        group: [f"127.0.0.1, {settings.topic_partitions} partitions"],
        nobody: [],
    }


@pytest.mark.apache
def test_a_broker_that_hangs_or_dies_is_an_error_until_it_answers_again(
    settings: Settings, own_broker: KafkaBroker
) -> None:
    """The request that the library offers instead aborted the process here."""
    groups, group = Groups(settings.model_copy(update={"kafka_timeout_s": 1.0})), "nobody"
    assert groups.members([group]) == {group: []}
    own_broker.child.signal(signal.SIGSTOP)
    for _ in range(3):
        with pytest.raises(LogUnavailable, match="asking for the members of nobody"):
            groups.members([group])
    own_broker.child.signal(signal.SIGCONT)
    eventually(lambda: _members(groups, group) == [], "the broker answers again")
    own_broker.kill()
    with pytest.raises(LogUnavailable, match="asking for the members of nobody"):
        groups.members([group])
    own_broker.start()
    eventually(lambda: _members(groups, group) == [], "the new broker answers")


def _members(groups: Groups, group: str) -> list[str] | None:
    try:
        return groups.members([group])[group]
    except LogUnavailable:
        return None


@given(assignment=st.binary(max_size=64))
def test_whatever_a_member_wrote_is_counted_without_an_error(assignment: bytes) -> None:
    assert partitions(assignment) >= 0
    assert partitions(b"\0\0" + b"\xff" * 4 + assignment) >= 0
