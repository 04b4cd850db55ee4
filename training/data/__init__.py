"""Builds the data that models are fitted on.

`events` reads the archive or a file; `dataset` makes id maps, the weighted matrix and the split by
time: `by_user` sorts the events, `columns` holds their arrays, `sums` adds up the matrix; `items`
reads a catalogue file; `popularity` counts as ingest does; `validation` holds out one item of each
user.

Start with `dataset`.
"""
