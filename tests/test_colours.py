"""Logs without what colours a terminal."""

import pytest

from kanikojobs.colours import uncoloured


@pytest.mark.parametrize(
    ("logged", "read"),
    [
        pytest.param("\x1b[36mINFO\x1b[0m[0014] Pushed a@sha256:1", "INFO[0014] Pushed a@sha256:1", id="kaniko"),
        pytest.param("\x1b[1;31mnpm\x1b[0m error\x1b[K", "npm error", id="several, and a line cleared to its end"),
        pytest.param("[36m is text", "[36m is text", id="brackets alone"),
        pytest.param("cut \x1b[3", "cut \x1b[3", id="a sequence that was cut"),
    ],
)
def test_only_the_colours_go(logged: str, read: str) -> None:
    assert uncoloured(logged) == read
