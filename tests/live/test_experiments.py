"""The whole loop of an experiment: an answer, the event it leads to, the report, the deletion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from redis import Redis

from core.settings import Settings
from engines.experiments.report import Report, Row
from store.state.entities import experiments
from testing.process import Child
from tests.api.world import FOR_DEVELOPER, event, publish, serving
from tests.support import eventually

pytestmark = [pytest.mark.process, pytest.mark.timeout(240)]

TOML = """
[experiments.blend]
users = [0.0, 1.0]
outcomes = ["like"]
variants = { control = {}, even = { ensemble_als_weight = 0.5, ensemble_two_tower_weight = 0.5 } }
"""
USERS = [f"user:{number}" for number in range(40)]


def test_an_answer_and_its_outcome_are_in_the_report_until_the_user_is_deleted(
    broker: object, settings: Settings, redis: Redis, spawn: Callable[..., Child], tmp_path: Path
) -> None:
    path = tmp_path / "experiments.toml"
    path.write_text(TOML)
    publish(settings)
    spawn("streams", "ingest", EXPERIMENTS_PATH=str(path))
    with serving(settings, experiments_path=path) as api:
        answers = {user_id: api.get(f"{FOR_DEVELOPER}/{user_id}").json() for user_id in USERS}
        liked = [
            event(f"like-{user_id}", event_type="like", **_led_by(answers[user_id]))
            for user_id in USERS[:30]
        ]
        views = [
            event(f"view-{user_id}", event_type="view", **_led_by(answers[user_id]))
            for user_id in USERS
        ]
        other = next(
            user_id
            for user_id in USERS
            if answers[user_id]["variant"] != answers[USERS[39]]["variant"]
        )
        foreign = event(
            "foreign", event_type="like", **{**_led_by(answers[other]), "user_id": USERS[39]}
        )
        eventually(
            lambda: (
                api.write("POST", "/api/events", [*liked, *liked, *views, foreign]).status_code
                == 202
            ),
            "the broker accepts the events",
        )
        rows = {
            row.variant: row
            for row in _report(
                spawn, path, lambda report: sum(sum(row.events.values()) for row in report) == 70
            )
        }
        for name, row in rows.items():
            variant_users = [
                user_id for user_id in USERS if answers[user_id]["variant"] == f"blend.{name}"
            ]
            assert (row.exposed_users, row.answers) == (len(variant_users), len(variant_users))
            assert row.users_with_outcome == len(set(variant_users) & set(USERS[:30]))
            assert row.events == {"view": len(variant_users), "like": row.users_with_outcome}
            assert row.unexposed_users == 0
        deleted = USERS[0]
        assert api.write("DELETE", f"/api/users/{deleted}").status_code == 202
        variant = answers[deleted]["recommendation_id"].partition(".")[2]
        eventually(
            lambda: (
                not {deleted}
                & {
                    *experiments.read([redis], variant).exposed,
                    *experiments.read([redis], variant).outcomes,
                }
            ),
            "deleted",
        )


def _led_by(answer: dict[str, str]) -> dict[str, object]:
    return {"user_id": answer["user_id"], "recommendation_id": answer["recommendation_id"]}


def _report(
    spawn: Callable[..., Child], path: Path, enough: Callable[[list[Row]], bool]
) -> list[Row]:
    """The rows that `python -m training experiments --json` prints, once they are `enough`."""

    def rows() -> list[Row]:
        child = spawn("training", "experiments", "--json", EXPERIMENTS_PATH=str(path))
        assert child.wait(60) == 0, child.describe("failed")
        (report,) = msgspec.json.decode(child.log.read_text(), type=list[Report])
        return report.variants if enough(report.variants) else []

    return eventually(rows, "every event counted")
