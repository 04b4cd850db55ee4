"""Live workers: `command` wires Faust, `worker` takes hints, `fold` folds users in, `new_items`
gives new items their factors.

`model` follows the live bundle, `schedules` asks for retrains, `noise` filters the client's log.
Start with `worker`.
"""
