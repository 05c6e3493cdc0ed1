"""Columns of rows as PostgreSQL's arrays: it reads back what was meant, whatever the text."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import DataError, connection
from hypothesis import given, settings
from hypothesis import strategies as st

from kanikojobs import array_literals

pytestmark = pytest.mark.django_db

PIECES = st.sampled_from([*'"\\{},; \n\t\x01\x7fé😀', "NULL", "\\N", "\\x00", '\\"', '","', '"}', "%s"])
TEXTS = st.lists(PIECES, max_size=4).map("".join) | st.text(st.characters(codec="utf-8", exclude_characters="\0"))


def read_by_postgres(array: str, *, type: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT %s::{type}[]", [array])
        return cursor.fetchone()[0]


@settings(max_examples=50)
@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_texts_are_read_as_they_are(texts: list[str]) -> None:
    assert read_by_postgres(array_literals.of_texts(texts), type="text") == texts


@pytest.mark.parametrize("texts", [["a\0b"], ["a", "\0"], ["", "\0", ""]])
def test_a_nul_is_refused_and_shifts_no_column(texts: list[str]) -> None:
    with pytest.raises(DataError, match="NUL"):
        read_by_postgres(array_literals.of_texts(texts), type="text")


def test_times_numbers_and_bytes_are_read_as_they_are() -> None:
    times = [datetime(2, 1, 1, 0, 0, 0, 1, tzinfo=UTC), None, datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)]

    assert read_by_postgres(array_literals.of_times(times), type="timestamptz") == times
    assert read_by_postgres(array_literals.of_numbers([-1, 0, 7200]), type="integer") == [-1, 0, 7200]
    found = read_by_postgres(array_literals.of_bytes([b"", b"\x00\xff"]), type="bytea")
    assert [bytes(value) for value in found] == [b"", b"\x00\xff"]
