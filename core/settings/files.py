"""Settings of files and folders: archive, bundles, use cases and experiments."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, Field

from core import use_cases
from core.use_cases import UseCases


class FileSettings(BaseModel, frozen=True):
    """Where files are read and written."""

    archive_url: str = Field(
        "data/archive", repr=False, description="folder (or s3:// URL) of the Parquet archive"
    )
    archive_file_events: int = Field(
        200_000,
        ge=1,
        description="maximum events in one archive file",
    )
    archive_file_s: float = Field(
        30.0,
        gt=0,
        description=("seconds after which an archive file is finished, however few events it has"),
    )
    models_path: Path = Field(
        Path("models/artifacts"),
        description="folder of the published bundles",
    )
    models_mapped: bool = Field(
        True,
        description=(
            "true: the API and the live workers map the arrays of a bundle, so that all processes "
            "of a machine share one copy; false, for a network file system: each reads its own"
        ),
    )
    als_model_path: Path | None = Field(
        None,
        description="folder of an ALS part that replaces that of the bundle",
    )
    two_tower_model_path: Path | None = Field(
        None,
        description="folder of a Two-Tower part that replaces that of the bundle",
    )
    use_cases_path: Path | None = Field(
        None,
        description=("TOML file of event types and use cases; unset: the built-in marketplace"),
    )
    experiments_path: Path | None = Field(
        None,
        description=(
            "TOML file of A/B experiments, the same file for the API and ingest; unset: none"
        ),
    )
    experiment_users: int = Field(
        1_000_000,
        ge=1,
        description=(
            "maximum users of a variant in the report of an experiment; each takes about 100 "
            "bytes, and later users are left out"
        ),
    )

    @cached_property
    def use_cases(self) -> UseCases:
        """The event types and use cases. Raises ConfigurationError."""
        return use_cases.load(self.use_cases_path)
