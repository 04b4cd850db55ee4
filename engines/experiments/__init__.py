"""Compares the variants of A/B experiments by what was counted: intervals, sample sizes, verdicts.

`report` makes the results that the API and `python -m training experiments` show.
"""
