"""The demo for a browser to look at: its system on servers of the tests, what it has not, and Chromium.

`server` runs the demo, `story` is one build of it as the cluster knows it, `rows` adds what takes time or bad luck,
`pages` is every page that there is, `browser` opens them and `looking` finds fault; the browser tests
(`tests/browser/`) and the README's pictures (`pictures`) live in it.
"""
