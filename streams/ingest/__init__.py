"""Applies the messages of Kafka to Redis exactly once. Start with `loop`, whose docstring numbers
the steps, and `partition`, which draws the states of a partition.

`assignment` places partitions (`placement` decides where), `polling` gathers messages, `messages`
decodes them, `batcher` makes batches, `apply_thread` applies them. `readiness` checks what must
hold first, `deletions/` recovers deleted users and items, `partition_watch` follows added
partitions, `foreign_partitions` finds producers with another partitioner.
"""
