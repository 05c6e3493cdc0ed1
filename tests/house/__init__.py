"""A house with a day behind it, for a browser to look at: rows of every kind, a web server before them, and Chromium.

`rows` and `story` furnish a database, `server` puts the web server before it, `browser` opens its pages; the browser
tests (`tests/test_browser.py`) and the README's pictures (`pictures`) live in it.
"""
