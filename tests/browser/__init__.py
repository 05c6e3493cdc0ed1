"""The admin in a real browser, on the demo: its answers, all of its pages, and what only a browser shows.

Where no Chromium is to be had, or the one that there is does not work, these tests are skipped, with the reason.
"""
