"""Simulates a marketplace of startups, developers and investors.

`world` draws users and startups, `names` has their texts, `events` draws what users do, `command`
sends everything to Kafka. Start with `command`.
"""
