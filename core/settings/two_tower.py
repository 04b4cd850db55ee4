"""Hyperparameters of Two-Tower."""

from __future__ import annotations

from pydantic import BaseModel, Field


class TwoTowerSettings(BaseModel, frozen=True):
    """How Two-Tower is trained."""

    two_tower_dimension: int = Field(
        64,
        ge=2,
        le=1024,
        description=(
            "length of the Two-Tower vector of an item or a user; a multiple of TWO_TOWER_HEADS"
        ),
    )
    two_tower_layers: int = Field(2, ge=1, le=8, description="transformer layers of the user tower")
    two_tower_heads: int = Field(2, ge=1, le=16, description="attention heads of each layer")
    two_tower_history: int = Field(
        50, ge=1, le=500, description="latest events that the user tower reads"
    )
    two_tower_dropout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of activations dropped in training; 0.5 suits sparse data",
    )
    two_tower_id_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description=(
            "share of items whose id is hidden in a training step, so that the model learns "
            "to place new items by content"
        ),
    )
    two_tower_learning_rate: float = Field(
        0.002,
        gt=0,
        le=1,
        description="step size of Adam in the first epoch; later epochs have smaller steps",
    )
    two_tower_epochs: int = Field(
        15,
        ge=1,
        le=10_000,
        description="maximum passes over the events",
    )
    two_tower_patience: int = Field(
        4,
        ge=1,
        description=(
            "training stops after so many epochs without a better NDCG@10 on held-out last items"
        ),
    )
    two_tower_candidates: int = Field(
        2048,
        ge=16,
        le=1_000_000,
        description=(
            "items ranked in a training step: the whole catalogue if it is no larger, else a "
            "sample with correction"
        ),
    )
    two_tower_seconds: float = Field(
        900.0,
        gt=0,
        description="seconds after which Two-Tower training stops and uses its best epoch",
    )
