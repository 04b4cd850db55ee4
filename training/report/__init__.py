"""Writes the evaluation of a bundle as one HTML page.

`page` fills the template `page.html.jinja` with the `sections`; `metrics_file` reads metrics.json;
`charts` makes figures of Plotly, which `draw.js` draws in the reader's browser.

Start with `page`.
"""
