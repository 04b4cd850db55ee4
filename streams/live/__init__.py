"""The live worker: folds changed users and new items in, ahead of the readers.

`command` wires Faust, `worker` processes hints, `fold` folds users in, `new_items` computes the
factors of new items, `model` follows the live bundle, `schedules` requests retrains, `noise`
filters the log of the Kafka client. Start with `worker`.
"""
