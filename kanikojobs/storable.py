"""What PostgreSQL can hold of hostile text and of AMQP's field tables: the rest is written out, not lost."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def printable(text: str) -> str:
    """The text with what PostgreSQL's text type refuses written out: NUL and lone surrogates."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


# AMQP's tables may nest as deep as a frame is long, and each level costs the interpreter's stack.
MOST_NESTED = 16


def storable(value: Any, *, depth: int = 0) -> Any:
    """A copy that jsonb can hold of whatever AMQP's field tables or HTTP headers carry."""
    match value:
        case None | bool():
            return value
        case int():
            # Python refuses to write out integers of thousands of digits; AMQP's own have 64 bits.
            return int(value) if value.bit_length() <= 64 else hex(value)
        case float():
            return value if value - value == 0 else str(value)
        case str():
            return printable(value)
        case bytes() | bytearray() | memoryview():
            return printable(bytes(value).decode("utf-8", "backslashreplace"))
        case datetime():
            return value.isoformat()
        case Mapping() | list() | tuple() if depth == MOST_NESTED:
            return f"nested deeper than {MOST_NESTED} levels"
        case Mapping():
            return {printable(str(key)): storable(item, depth=depth + 1) for key, item in value.items()}
        case list() | tuple():
            return [storable(item, depth=depth + 1) for item in value]
    return printable(str(value))
