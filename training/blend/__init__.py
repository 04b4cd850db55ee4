"""Which weights the ensemble serves: `mixture` compares fixed weights, `learned` fits weights by confidence and by the number of events.

Start with `mixture`.
"""
