"""Writes the evaluation of a bundle as one HTML page.

`page` lays the page out; `numbers` reads and checks metrics.json; `charts` draws SVG charts;
`markup` escapes HTML.

Start with `page`.
"""
