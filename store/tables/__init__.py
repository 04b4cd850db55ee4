"""Reads tables of events, items and users that other systems wrote: one reader for all commands.

`source` opens files, folders and object stores, `formats` reads each kind of file, `layouts` knows
public data sets, `mapping` decides which column holds which field, `values` and `times` convert
cells. Start with `reader`.
"""
