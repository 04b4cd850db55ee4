"""From Kafka into Redis, exactly once: `loop` consumes, `placement` decides where to read from,
`batcher` makes batches, `apply_thread` applies them.

`deletions/` recovers deleted users and items, `partition_watch` follows added partitions,
`foreign_partitions` finds producers with another partitioner. Start with `loop`, whose docstring
numbers the steps.
"""
