"""Kaniko logs in colours, because its plain format escapes what people and our own reading look for."""

import re

# ECMA-48's control sequences.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def uncoloured(text: str) -> str:
    """A log's text without what colours a terminal and moves its cursor."""
    return _SEQUENCE.sub("", text) if "\x1b" in text else text
