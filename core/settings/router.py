"""Settings of the engines, of the router that picks one, and of the blend."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from core.types import BlendMethod

RouterMode = Literal["fixed", "auto"]


class RouterSettings(BaseModel, frozen=True):
    """Which engine answers whom, and how lists are made."""

    enable_als: bool = Field(
        True,
        description="false: the router skips ALS, and the next engine of the chain answers",
    )
    enable_two_tower: bool = Field(
        True,
        description="false: the router skips Two-Tower",
    )
    enable_ensemble: bool = Field(
        True,
        description="false: the router skips the ensemble",
    )
    router: RouterMode = Field(
        "fixed",
        description=(
            "fixed: the two thresholds below pick the engine; auto: the bundle's thresholds do, "
            "where its validation users prefer them by more than chance"
        ),
    )
    cold_start_threshold: int = Field(
        5,
        ge=0,
        description=("a user with fewer interactions is cold: the content-based engine answers"),
    )
    warm_user_threshold: int = Field(
        20,
        ge=0,
        description="a user with at least so many interactions is hot: the ensemble answers",
    )
    content_popularity_share: float = Field(
        0.5,
        ge=0,
        lt=1,
        description=(
            "share of popularity in a content-based score, among the items that match; 0: "
            "similarity alone"
        ),
    )
    ensemble_als_weight: float = Field(
        0.6,
        ge=0,
        le=1000,
        description="weight of ALS in the ensemble; only the ratio of the weights matters",
    )
    ensemble_two_tower_weight: float = Field(
        0.4, ge=0, le=1000, description="weight of Two-Tower in the ensemble"
    )
    ensemble_fusion: BlendMethod = Field(
        "min_max",
        description=(
            "scale on which the ensemble blends the scores of its parts: min_max, or rank "
            "(reciprocal ranks)"
        ),
    )
    diversity: float = Field(
        0.0,
        ge=0,
        le=1,
        description=(
            "how far a list avoids similar items, where the request does not say; 0: not at all"
        ),
    )
    explore: float = Field(
        0.0,
        ge=0,
        le=1,
        description=(
            "share of places that new items get at random, where the request does not say; 0: none"
        ),
    )
    new_item_days: float = Field(
        14.0,
        ge=0,
        le=3650,
        description=(
            "days for which an item is new; an item that the bundle does not know and that "
            "users have touched is always new"
        ),
    )

    @model_validator(mode="after")
    def _check_thresholds(self) -> Self:
        if self.cold_start_threshold > self.warm_user_threshold:
            raise ValueError(
                f"COLD_START_THRESHOLD={self.cold_start_threshold} must not exceed "
                f"WARM_USER_THRESHOLD={self.warm_user_threshold}"
            )
        return self

    @model_validator(mode="after")
    def _check_ensemble(self) -> Self:
        if self.ensemble_als_weight == self.ensemble_two_tower_weight == 0:
            raise ValueError(
                "ENSEMBLE_ALS_WEIGHT and ENSEMBLE_TWO_TOWER_WEIGHT are both 0; "
                "ENABLE_ENSEMBLE=false skips the ensemble"
            )
        return self
