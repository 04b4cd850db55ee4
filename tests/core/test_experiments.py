"""Experiments assign users by id alone, fairly and the same in every process.

A wrong configuration gets an error that names the wrong field.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from scipy.stats import chisquare

from core import experiments, use_cases
from core.errors import ConfigurationError
from core.experiments import Experiments, point, recommendation_id
from core.settings import Settings
from testing.process import ROOT

TOML = """
[experiments.blend]
users = [0.0, 0.5]

[experiments.blend.variants]
control = {}
half = { ensemble_als_weight = 0.5, ensemble_two_tower_weight = 0.5 }

[experiments.earlier_als]
users = [0.5, 0.75]
use_cases = ["developer_startup"]

[experiments.earlier_als.variants]
control = { weight = 3 }
at_three = { weight = 1, cold_start_threshold = 3 }
"""
USERS = [f"user-{number}" for number in range(20_000)]


def _parsed(text: str = TOML) -> Experiments:
    return experiments.parse(text, use_cases.load(None))


def _labels(
    configured: Experiments, use_case: str | None = "developer_startup"
) -> dict[str, str | None]:
    variants = {user_id: configured.assign(user_id, use_case) for user_id in USERS}
    return {user_id: variant.label if variant else None for user_id, variant in variants.items()}


def test_variants_get_the_shares_of_users_that_are_configured() -> None:
    counts = Counter(_labels(_parsed()).values())
    expected = {
        "blend.control": 0.25,
        "blend.half": 0.25,
        "earlier_als.control": 0.1875,
        "earlier_als.at_three": 0.0625,
        None: 0.25,
    }
    assert (
        chisquare(
            [counts[name] for name in expected], [share * len(USERS) for share in expected.values()]
        ).pvalue
        > 0.001
    )


def test_variants_of_two_experiments_are_independent() -> None:
    """The users of a variant are a fair sample for the next experiment."""
    pairs = Counter((point("a", user) < 0.5, point("b", user) < 0.5) for user in USERS)
    assert chisquare(list(pairs.values())).pvalue > 0.001
    assert len(pairs) == 4


def test_a_user_keeps_the_variant_in_another_process() -> None:
    command = (
        "from core.experiments import point; import sys; print(*(point('blend', f'user-{n}') "
        "for n in range(5)), point('', 'ü:1'))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert [float(number) for number in printed] == [
        *(point("blend", f"user-{n}") for n in range(5)),
        point("", "ü:1"),
    ]
    # and in another release: this number must never change
    assert point("blend", "42") == 0.6184717183994692


def test_a_changed_experiment_moves_no_user_of_another() -> None:
    before = _labels(_parsed())
    wider = (
        TOML.replace("[0.5, 0.75]", "[0.5, 0.9]")
        + "\n[experiments.third]\nusers = [0.9, 1.0]\nvariants = { a = {}, b = {} }\n"
    )
    after = _labels(_parsed(wider))
    moved = {user for user in USERS if before[user] != after[user]}
    assert {before[user] for user in moved} == {None}
    blend_gone = _labels(_parsed(TOML[TOML.index("[experiments.earlier_als]") :]))
    assert all(
        blend_gone[user] == label
        for user, label in before.items()
        if label and label.startswith("earlier_als")
    )


def test_an_experiment_of_a_use_case_ignores_other_use_cases() -> None:
    configured = _parsed()
    user = next(user for user in USERS if 0.5 <= point("", user) < 0.75)
    assert configured.assign(user, "developer_startup")
    assert configured.assign(user, None) is None
    assert configured.assign(user, "investor_startup") is None


def test_the_id_of_an_answer_is_unique_and_names_its_variant() -> None:
    configured = _parsed()
    for user_id in USERS[:200]:
        variant = configured.assign(user_id, "developer_startup")
        answer_id = recommendation_id(variant)
        assert configured.variant_of_answer(answer_id, user_id) is variant
    assert len({recommendation_id(None) for _ in range(1000)}) == 1000


def test_a_forged_id_has_no_variant() -> None:
    configured = _parsed()
    participant = next(
        user
        for user in USERS
        if (variant := configured.assign(user, None)) and variant.label == "blend.half"
    )
    outside = next(user for user in USERS if configured.assign(user, "developer_startup") is None)
    other, assigned = (
        next(variant for variant in configured.by_id.values() if variant.label == label)
        for label in ("blend.control", "blend.half")
    )
    assert configured.variant_of_answer(recommendation_id(assigned), participant) is assigned
    for forged, user in (
        (recommendation_id(other), participant),
        (recommendation_id(assigned), outside),
        (recommendation_id(None), participant),
        ("r-17", participant),
        ("", participant),
        (assigned.id, participant),
        ("." + assigned.id, participant),
        ("0" * 16 + "#" + assigned.id, participant),
        ("0" * 16 + ".blend.half", participant),
        ("0" * 17 + "." + assigned.id, participant),
        (recommendation_id(assigned) + ".", participant),
    ):
        assert configured.variant_of_answer(forged, user) is None, forged


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("[0.0, 0.5]", "[0.0, 0.4]"), True),
        (("half = {", "half = { weight = 1,"), True),
        (("half = {", "half = { weight = 2,"), False),
        (("_weight = 0.5 }", "_weight = 0.6 }"), False),
        (("half =", "even ="), False),
        (("users = [0.0, 0.5]", 'users = [0.0, 0.5]\nuse_cases = ["developer_startup"]'), False),
        (("users = [0.0, 0.5]", 'users = [0.0, 0.5]\noutcomes = ["like"]'), False),
    ],
)
def test_a_changed_definition_gets_another_tag(change: tuple[str, str], same: bool) -> None:
    before, after = (_parsed(text).all[0].tag for text in (TOML, TOML.replace(*change)))
    assert (before == after) is same
    assert before.startswith("blend-")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("[0.5, 0.75]", "[0.4, 0.75]"),
            "experiments blend and earlier_als share users: [0.0, 0.5] and [0.4, 0.75] overlap",
        ),
        (("[0.0, 0.5]", "[0.5, 0.5]"), "experiments.blend.users = [0.5, 0.5] is empty"),
        (
            ("[0.0, 0.5]", "[0.0, 1.5]"),
            "experiments.blend: entry 2 of users must be a number, at most 1",
        ),
        (
            ("[0.0, 0.5]", "0.5"),
            "experiments.blend: users must be a list, this experiment has the number 0.5",
        ),
        (
            ("developer_startup", "nobody"),
            "earlier_als.use_cases names 'nobody'; it may name developer_startup, investor_startup",
        ),
        (
            ("users = [0.5", 'outcomes = ["dismiss"]\nusers = [0.5'),
            "earlier_als.outcomes names 'dismiss'; it may name view, click",
        ),
        (
            ("half = { ensemble_als_weight = 0.5, ensemble_two_tower_weight = 0.5 }", ""),
            "experiments.blend needs at least two variants",
        ),
        (("weight = 3", "weight = 0"), "variants.control.weight = 0 must be a number above 0"),
        (
            ("cold_start_threshold = 3", "history_cap = 3"),
            "variants.at_three.history_cap is not known; a variant has a weight and may set",
        ),
        (("half =", "Half ="), "variant 'Half' must be lower-case"),
        (
            ("[experiments.blend]", "[experiments.blend]\nshare = 1"),
            "experiments.blend: share is no known field",
        ),
        (("[experiments.blend]", "[trials]\n[experiments.blend]"), "'trials' is not known there"),
        (("[experiments.blend]", "[experiments.blend"), "is not TOML"),
    ],
)
def test_a_wrong_configuration_names_the_field(change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        _parsed(TOML.replace(*change))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "cold_start_threshold = 30",
            "variant trial.other: settings: COLD_START_THRESHOLD=30 must not exceed",
        ),
        (
            'ensemble_fusion = "median"',
            "variant trial.other: ENSEMBLE_FUSION must be 'min_max' or 'rank'",
        ),
        (
            'enable_als = "perhaps"',
            "variant trial.other: ENABLE_ALS must be true or false",
        ),
    ],
)
def test_an_error_in_a_value_names_the_variant_and_the_setting(
    tmp_path: Path, overrides: str, message: str
) -> None:
    path = tmp_path / "experiments.toml"
    path.write_text(
        f"[experiments.trial]\nusers = [0.0, 1.0]\nvariants = {{ control = {{}}, other = {{ "
        f"{overrides} }} }}\n"
    )
    with pytest.raises(ConfigurationError) as raised:
        _ = Settings(experiments_path=path).experiments
    assert message in str(raised.value)


def test_the_examples_of_the_guide_are_valid() -> None:
    page = (ROOT / "docs" / "experiments-guide.md").read_text("utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    configured = experiments.parse("".join(blocks), use_cases.load(None))
    assert [experiment.name for experiment in configured.all] == [
        "blend",
        "earlier_als",
        "two_tower_worth_it",
        "scale",
    ]
    assert set(re.findall(r"blend-[0-9a-f]{6}", page)) == {configured.all[0].tag}
    for variant in configured.by_id.values():
        Settings().with_overrides(variant.overrides)


def test_without_a_path_there_are_no_experiments_and_a_missing_file_is_an_error(
    tmp_path: Path,
) -> None:
    assert Settings().experiments.assign("42", None) is None
    with pytest.raises(ConfigurationError, match=r"EXPERIMENTS_PATH=.*No such file"):
        _ = Settings(experiments_path=tmp_path / "none.toml").experiments


def test_overrides_change_no_other_setting(tmp_path: Path) -> None:
    base = Settings(models_path=tmp_path, warm_user_threshold=40)
    other = base.with_overrides({"cold_start_threshold": 7})
    assert (other.cold_start_threshold, other.warm_user_threshold, other.models_path) == (
        7,
        40,
        tmp_path,
    )
    assert other.redis_url == base.redis_url
