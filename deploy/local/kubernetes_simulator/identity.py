"""Uids and generated name endings, from a seed: two runs of the same requests give the same objects."""

import random

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_GENERATED_BASE = 58

_random = random.Random(0)


def seed(value: int | None) -> None:
    """Starts over from a seed; None takes one from the operating system."""
    _random.seed(value)


def new_uid() -> str:
    """A random uid (UUID version 4)."""
    text = f"{_random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"


def suffix() -> str:
    """Five letters that form no words, as the API server's name generator takes them."""
    return "".join(_random.choices(_ALPHABET, k=5))


def generated_name(base: str) -> str:
    """A name from a generateName: at most 63 characters, the base cut where needed."""
    return base[:_GENERATED_BASE] + suffix()
