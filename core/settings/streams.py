"""Settings of the event contract, of ingest and of the live workers."""

from __future__ import annotations

from pydantic import BaseModel, Field

from core.contract.times import TimeUnit
from core.contract.tolerance import Tolerance


class ContractSettings(BaseModel, frozen=True):
    """Deviations that ingest, the archive and the API accept; all of them need the same values."""

    accept_integer_ids: bool = Field(
        False, description="true: an id may be an integer; 42 is the id `42`"
    )
    accept_empty_list_as_object: bool = Field(
        False,
        description="true: `[]` is an empty object in `context` and `attributes`, as PHP writes it",
    )
    accept_null_as_empty_list: bool = Field(
        False,
        description="true: null is an empty list in `categories`, `tags`, `roles`, `interests`",
    )
    accept_time_text: bool = Field(
        False,
        description=(
            "true: `timestamp` and `created_at` may be ISO 8601 text with day and time, UTC "
            "without an offset"
        ),
    )
    accept_time_unit: TimeUnit = Field(
        "s",
        description=(
            "s, ms, us or ns: unit of numbers in `timestamp` and `created_at` that are too large "
            "for seconds"
        ),
    )

    @property
    def tolerance(self) -> Tolerance:
        """These settings, for the codec."""
        return Tolerance(
            integer_ids=self.accept_integer_ids,
            empty_list_as_object=self.accept_empty_list_as_object,
            null_as_empty_list=self.accept_null_as_empty_list,
            time_text=self.accept_time_text,
            time_unit=self.accept_time_unit,
        )


class IngestSettings(BaseModel, frozen=True):
    """How ingest batches events and weighs popularity."""

    dedup_window: int = Field(
        100_000,
        ge=0,
        description=(
            "offsets of a partition within which an event_id counts once; each takes about "
            "150 bytes of memory in ingest"
        ),
    )
    transaction_events: int = Field(
        500,
        ge=1,
        le=10_000,
        description=("maximum events in one Redis transaction; 500 block Redis for about 3 ms"),
    )
    poll_events: int = Field(
        4000,
        ge=1,
        description="maximum events of one poll of the broker",
    )
    popularity_half_life_days: float = Field(
        30.0,
        ge=10,
        le=3650,
        description=(
            "days after which an interaction counts half in the popularity of its item; at "
            "least 10, so that scores from 1970 to 2100 fit a float64"
        ),
    )
    popularity_min_weight: float = Field(
        0.01,
        ge=0,
        le=1000,
        description=(
            "weight as of now below which `streams expire` removes an item from a popularity; "
            "one event of weight 1 is below 0.01 after 6.7 half-lives; 0: none is removed"
        ),
    )


class LiveSettings(BaseModel, frozen=True):
    """How live workers fold in users and new items."""

    live_batch_users: int = Field(
        500,
        ge=1,
        le=10_000,
        description="maximum users in one fold-in batch of a live worker",
    )
    live_read_s: float = Field(
        120.0,
        ge=0,
        description=(
            "seconds after a read in which live workers fold its user in after each event, ahead "
            "of the next read; 0: they fold in every user with an event"
        ),
    )
    live_cpu_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description=(
            "share of its time in which a live worker folds users in; users whom it does not get "
            "to are folded in by their reads; 1: it never rests"
        ),
    )
    young_items: int = Field(
        10_000,
        ge=0,
        le=1_000_000,
        description=(
            "maximum items that get ALS factors by fold-in because the bundle does not know "
            "them; the least recently touched is evicted first"
        ),
    )
    young_item_users: int = Field(
        200,
        ge=1,
        le=10_000,
        description=(
            "maximum users from whom the factors of such a new item are computed, those of "
            "largest weight"
        ),
    )
