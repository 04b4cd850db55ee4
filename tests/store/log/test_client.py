"""What KAFKA_EXTRA changes of a consumer, and what it does not."""

from __future__ import annotations

import pytest

from core.settings import load
from store.log import client


def test_further_properties_overrule_the_tuning_of_a_consumer_and_not_its_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "KAFKA_EXTRA",
        "fetch.max.bytes=1000000,queued.max.messages.kbytes=1024,client.rack=eu-1,"
        "enable.auto.commit=true,auto.offset.reset=latest",
    )
    config = client.consumer_config(load(), "a-group")
    assert config["fetch.max.bytes"] == "1000000"
    assert config["queued.max.messages.kbytes"] == "1024"
    assert config["client.rack"] == "eu-1"
    assert config["enable.auto.commit"] is False
    assert config["auto.offset.reset"] == "error"
