"""Writes the evaluation of a bundle as one HTML page.

`page` writes the page from its `sections`, which `layout` lays out; `metrics_file` reads
metrics.json; `charts` draws SVG charts with the shapes and scales of `drawing`; `markup` escapes.

Start with `page`.
"""
