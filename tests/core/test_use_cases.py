"""Use cases and event weights come from TOML; an error names the wrong field."""

from __future__ import annotations

import pytest

from core import use_cases
from core.errors import ConfigurationError
from core.settings import Settings

TOML = """
[event_types]
view = 1
buy = 8

[use_cases.shopper]
role = "shopper"
item_type = "product"
path = "products/for-shopper"
weights = { buy = 10 }
"""


def test_a_use_case_overrides_single_weights() -> None:
    cases = use_cases.parse(TOML)
    assert cases.weight("view", None) == 1
    assert cases.weight("buy", None) == 8
    assert cases.weight("buy", None, "shopper") == 10
    assert cases.by_path["products/for-shopper"].item_type == "product"


SECOND = """
[use_cases.reseller]
role = "reseller"
item_type = "product"
path = "products/for-reseller"
"""


@pytest.mark.parametrize(
    ("text", "counted_in"),
    [
        (TOML, "shopper"),
        (TOML + SECOND, None),
        (TOML + SECOND + "default = true", "reseller"),
        (TOML + "default = false", "shopper"),
    ],
)
def test_an_event_without_a_use_case_counts_in_the_only_or_the_marked_one(
    text: str, counted_in: str | None
) -> None:
    assert use_cases.parse(text).default == counted_in


def test_two_default_use_cases_are_refused_by_name() -> None:
    text = TOML + "default = true\n" + SECOND + "default = true"
    with pytest.raises(ConfigurationError, match="default = true stands in shopper and reseller"):
        use_cases.parse(text)


def test_a_value_scales_the_weight_in_steps_whose_sums_are_exact() -> None:
    cases = use_cases.parse(TOML)
    assert cases.weight("view", 4.5) == 4.5
    assert cases.weight("view", 0.1) == 6 / 64
    assert cases.weight("buy", 1e6) == use_cases.MAX_WEIGHT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("view = 1", "view = -1"), "event_types.view = -1 must be a number from 0 to 1000"),
        (("view = 1", "View = 1"), "event type 'View' must be lower-case"),
        (("buy = 10 }", "sell = 1 }"), "weights names 'sell', which is not in [event_types]"),
        (
            ('path = "products/for-shopper"', 'path = "products"'),
            "is not of the form <items>/for-<role>",
        ),
        (
            ('role = "shopper"', "role = 5"),
            "shopper: role must be text, this use case has the number 5",
        ),
        (('role = "shopper"', 'role = "shopper"\ndefault = "yes"'), "must be true or false"),
        (("[event_types]", "[event_types"), "is not TOML"),
    ],
)
def test_a_wrong_configuration_names_the_field(change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        use_cases.parse(TOML.replace(*change))
    assert message in str(raised.value)


def test_an_error_names_the_setting_that_is_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    from core import settings

    monkeypatch.setenv("HISTORY_CAP", "3")
    monkeypatch.setenv("COLD_START_THRESHOLD", "30")
    with pytest.raises(ConfigurationError, match="HISTORY_CAP"):
        settings.load()


def test_thresholds_in_the_wrong_order_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from core import settings

    monkeypatch.setenv("COLD_START_THRESHOLD", "30")
    with pytest.raises(
        ConfigurationError, match="COLD_START_THRESHOLD=30 must not exceed WARM_USER_THRESHOLD=20"
    ):
        settings.load()


def test_api_keys_are_comma_separated_and_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", "first, second")
    settings = Settings()
    assert {key.get_secret_value() for key in settings.api_keys} == {"first", "second"}
    assert "first" not in repr(settings)
