"""Kafka: `client` configures every client, `producer` publishes, `reader` reads stretches of the
log again.

`topics` says what is needed of each topic, `topic_check` compares, `topic_ids`, `partitions` and
`ends` tell what the broker has; `dead_letters`, `model_updates` and `retrain_requests` define the
records of our own topics. Start with `client`.
"""
