"""Routes for people who look into what the service does and why: what a user would get and why,
who an item is for, the results of experiments, and dead letters.
"""
