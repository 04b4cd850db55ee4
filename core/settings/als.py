"""Hyperparameters of ALS."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ALSSettings(BaseModel, frozen=True):
    """How ALS is fitted."""

    als_factors: int = Field(128, ge=1, le=2048, description="length of a factor vector")
    als_regularization: float = Field(
        0.01,
        ge=0,
        description="L2 penalty on the factors",
    )
    als_iterations: int = Field(
        20,
        ge=1,
        description="passes of alternating least squares",
    )
    als_alpha: float = Field(
        40.0, gt=0, description="confidence of an interaction is alpha times its weight"
    )
    als_popularity_discount: float = Field(
        0.0,
        ge=0,
        le=1,
        description=(
            "exponent by which an interaction counts less, the more users interacted with the "
            "item; 0: all count alike"
        ),
    )
