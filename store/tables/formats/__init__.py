"""Reads one file of each kind: `detect` says which it is."""
