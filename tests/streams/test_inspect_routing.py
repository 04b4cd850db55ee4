"""`streams inspect` names the thresholds by which the API routes."""

from __future__ import annotations

from pathlib import Path

from core.settings import Settings
from models import bundle, files
from models.registry import Registry
from models.router.thresholds import PreferredThresholds
from streams.inspection import routing

BETTER = PreferredThresholds(
    preferred=(1, 3), configured=(5, 20), gain=0.4, low=0.31, high=0.48, users=250
)


def publish(settings: Settings, thresholds: PreferredThresholds | None) -> None:
    def write(folder: Path) -> None:
        files.write_json(folder / bundle.CATALOGUE, [])
        if thresholds is not None:
            thresholds.save(folder / "router")

    Registry(settings.models_path).publish(write)


def test_router_auto_has_the_thresholds_of_the_live_bundle(tmp_path: Path) -> None:
    settings = Settings(models_path=tmp_path, router="auto")
    without = "content_based < 5 <= als < 20 <= ensemble (ROUTER=auto: the bundle has measured no "
    assert routing.thresholds(settings).explained.startswith(without)
    publish(settings, BETTER)
    shown = routing.thresholds(settings).explained
    assert shown.startswith("content_based < 1 <= als < 3 <= ensemble (ROUTER=auto: +40.0%")
    fixed = settings.with_overrides({"router": "fixed"})
    assert routing.thresholds(fixed).why == "ROUTER=fixed"
    publish(settings, None)
    assert routing.thresholds(settings).explained.startswith(without)


def test_damaged_thresholds_are_named(tmp_path: Path) -> None:
    settings = Settings(models_path=tmp_path, router="auto")
    publish(settings, BETTER)
    live = Registry(tmp_path).current()
    (tmp_path / str(live) / "router" / "router.json").write_text("{}")
    limits = routing.thresholds(settings)
    assert (limits.cold, limits.warm) == (5, 20)
    assert "router.json is damaged" in limits.why
