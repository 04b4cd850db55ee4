"""Kafka: `client` configures every client, `producer` publishes, `reader` reads ranges of the log.

`topics/` has what Eddyline needs of its topics and counts their partitions, `ends` finds the first
and last offset of one. `dead_letters`, `model_updates` and `retrain_requests` define the records of
our own topics, `message` is one message of any topic. Start with `client`.
"""
