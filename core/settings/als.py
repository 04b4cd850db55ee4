"""Settings of ALS: its hyperparameters, and where Spark fits it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class ALSSettings(BaseModel, frozen=True):
    """How ALS is fitted."""

    als_engine: Literal["implicit", "spark"] = Field(
        "implicit",
        description=(
            "what fits ALS: implicit, in the memory of this machine, or spark, at SPARK_MASTER "
            "(docs/als-training-guide.md)"
        ),
    )
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


class SparkSettings(BaseModel, frozen=True):
    """Where Spark runs, and what it may use.

    Everything else of Spark is set as usual, in spark-defaults.conf of SPARK_CONF_DIR.
    """

    spark_master: str = Field(
        "local[*]",
        description=(
            "master URL of Spark: local[2] (two threads of this machine), local[*] (all cores), "
            "spark://host:7077, yarn, k8s://..."
        ),
    )
    spark_memory: str = Field(
        "4g",
        pattern=r"^\d+[mg]$",
        description=(
            "memory of Spark's Java process here, such as 512m or 4g; with a local master it holds "
            "the events that are in work, and the rest is on disk"
        ),
    )
    spark_scratch: str = Field(
        "",
        description=(
            "folder or URL that this process and all executors can write, for checkpoints and "
            "tables of --events; empty: a temporary folder, for a local master only"
        ),
    )
