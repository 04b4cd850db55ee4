"""Knows the layouts of public data sets: `recognise` them, by columns or by cells."""
