"""The Prometheus metrics of ingest, the archiver and the live workers."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

events = Counter("eddyline_ingest_events", "Events passed on to be counted")
duplicates = Counter(
    "eddyline_ingest_duplicates", "Events whose event_id was seen within the window"
)
dead_letters = Counter("eddyline_ingest_dead_letters", "Messages that are no valid event", ["code"])
unknown_fields = Counter(
    "eddyline_ingest_unknown_fields",
    "Fields that the contract does not have, in a sample of one message in a hundred",
    ["topic", "field"],
)
deletions = Counter("eddyline_ingest_deletions", "Users and items deleted")
dead_records = Counter(
    "eddyline_ingest_dead_records",
    "Items and profiles skipped because they are older than a deletion",
)
retries = Counter(
    "eddyline_ingest_retries",
    "Batches read again from the position in Redis",
    ["cause"],
)
lag_seconds = Gauge(
    "eddyline_ingest_lag_seconds", "Age of the latest event read", ["topic", "partition"]
)
lag_events = Gauge(
    "eddyline_ingest_lag_events",
    "Events between the partition position in Redis and the log's end",
    ["topic", "partition"],
)
topic_lag_events = Gauge(
    "eddyline_ingest_topic_lag_events",
    "Events between Redis and the log's ends, over all partitions of the topic",
    ["topic"],
)
foreign_partition_events = Counter(
    "eddyline_ingest_foreign_partition_events",
    "Events in a partition that is not their user's by murmur2",
)
applied_seconds = Histogram(
    "eddyline_ingest_applied_seconds",
    "From the broker's time of a batch's oldest event to its commit in Redis",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
hints_lost = Counter(
    "eddyline_ingest_hints_lost",
    "Hints that could not be sent to the live workers; readers fold in instead",
)
redis_memory_bytes = Gauge(
    "eddyline_ingest_redis_memory_bytes", "Memory that Redis uses; 0 where INFO is denied"
)
redis_memory_limit_bytes = Gauge(
    "eddyline_ingest_redis_memory_limit_bytes", "maxmemory of Redis; 0: none, or INFO is denied"
)

live_users = Counter("eddyline_live_users_folded", "Users whose vector was written")
live_users_skipped = Counter(
    "eddyline_live_users_skipped",
    "Users with a new event who were left to their reads: not_read, or busy (LIVE_CPU_SHARE)",
    ["cause"],
)
live_items = Counter("eddyline_live_items_folded", "New items whose factors were written")
live_batches = Counter("eddyline_live_batches", "Batches of hints folded in")
live_retries = Counter("eddyline_live_retries", "Retries of batches", ["cause"])
live_dead_letters = Counter("eddyline_live_dead_letters", "Hints written as dead letters", ["code"])
live_batch_seconds = Histogram(
    "eddyline_live_batch_seconds",
    "Time to read, fold in and write the users of a batch",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
live_lag_seconds = Gauge("eddyline_live_lag_seconds", "Age of the latest processed hint")
live_lag_messages = Gauge(
    "eddyline_live_lag_messages",
    "Messages between the latest processed one and the end of model-updates",
    ["partition"],
)
live_swap = Histogram(
    "eddyline_live_swap_seconds",
    "Time to load the ALS part of another bundle",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
live_model_age = Gauge(
    "eddyline_live_model_age_seconds", "Age of the bundle with which the worker folds in"
)
