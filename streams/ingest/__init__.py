"""From Kafka into Redis, exactly once: `loop` consumes, `placement` decides where to read from,
`intake` makes batches, `sender` applies.

`deletions/` recovers deleted users and items, `partition_watch` follows added partitions,
`foreign_partitions` finds producers with another partitioner. Start with `loop`, whose docstring
numbers the steps.
"""
