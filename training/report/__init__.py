"""The evaluation of a bundle as one HTML page: `page` lays it out, `numbers` checks metrics.json, `charts` and `markup` draw.

Start with `page`.
"""
