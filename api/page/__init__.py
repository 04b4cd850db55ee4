"""The page at `/`: what happens now, the models, one user, one item, experiments, dead letters.

`routes` serves the files of `static/` by `assets`; the browser then asks the API like any other
client. Start with `routes`; `static/app.js` describes the modules in the browser.
"""
