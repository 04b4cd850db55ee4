"""What ingest and archive count, for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

events = Counter("eddyline_ingest_events", "Events handed on to be counted")
duplicates = Counter(
    "eddyline_ingest_duplicates", "Events whose event_id was seen within the window"
)
dead_letters = Counter("eddyline_ingest_dead_letters", "Messages that are no valid event", ["code"])
deletions = Counter("eddyline_ingest_deletions", "Users and items deleted")
dead_records = Counter(
    "eddyline_ingest_dead_records",
    "Items and profiles left out because they are older than a deletion",
)
retries = Counter("eddyline_ingest_retries", "Batches that went back to what Redis says", ["cause"])
lag_seconds = Gauge(
    "eddyline_ingest_lag_seconds", "Age of the latest event taken", ["topic", "partition"]
)
lag_events = Gauge(
    "eddyline_ingest_lag_events",
    "Events between the position in Redis and the log's end",
    ["topic", "partition"],
)
topic_lag_events = Gauge(
    "eddyline_ingest_topic_lag_events",
    "Events between Redis and the log's ends, over all partitions, whoever owns them",
    ["topic"],
)
foreign_partition_events = Counter(
    "eddyline_ingest_foreign_partition_events",
    "Events that came through a partition that murmur2 does not choose for their user",
)
applied_seconds = Histogram(
    "eddyline_ingest_applied_seconds",
    "From the broker's time of a batch's oldest event to Redis holding it",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
hints_lost = Counter(
    "eddyline_ingest_hints_lost",
    "Messages to the live workers that the broker did not take; readers fold in instead",
)

live_users = Counter("eddyline_live_users_folded", "Users whose vector was written")
live_items = Counter("eddyline_live_items_folded", "New items whose factors were written")
live_batches = Counter("eddyline_live_batches", "Batches of hints folded in")
live_retries = Counter("eddyline_live_retries", "Batches tried again", ["cause"])
live_dead_letters = Counter(
    "eddyline_live_dead_letters", "Hints given up as dead letters", ["code"]
)
live_batch_seconds = Histogram(
    "eddyline_live_batch_seconds",
    "A batch: reading, folding in and writing its users",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
live_lag_seconds = Gauge("eddyline_live_lag_seconds", "Age of the latest hint taken")
live_lag_messages = Gauge(
    "eddyline_live_lag_messages",
    "Messages between the latest one taken and the end of model-updates",
    ["partition"],
)
live_swap = Histogram(
    "eddyline_live_swap_seconds",
    "Loading a bundle's ALS part, until it is folded in with",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
live_model_age = Gauge(
    "eddyline_live_model_age_seconds", "Age of the bundle whose ALS part is folded in with"
)
