"""Holds what every room needs: types, settings, errors, and the rules that decide about an event.

`types` has the nouns, `settings/` every setting, `errors` the error tree. `codec` decides whether
an event is valid, `dedup` whether it is a duplicate, `deletions` whether a deletion outdates it.
`process/` is what every process shares. No network, no import of another room.
"""
