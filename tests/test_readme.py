"""The README's table of settings is complete and says what the code does."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "project/settings.py").read_text()

VARIABLES = sorted(set(re.findall(r'env\.[a-z_]+\(\s*"([A-Z_]+)"', SETTINGS)))
TEXT_DEFAULTS = re.findall(r'env\.[a-z_]+\(\s*"(KANIKOJOBS_[A-Z_]+)", "([^"]+)"', SETTINGS)
NUMBERS = re.findall(r'env\.integer\("(KANIKOJOBS_[A-Z_]+)", ([0-9_]+)', SETTINGS)
DEFAULTS = TEXT_DEFAULTS + [(name, number.replace("_", "")) for name, number in NUMBERS]


PICTURES = re.findall(r"!\[.+?\]\((.+?)\)", README)


def row_of(variable: str) -> str:
    return next((line for line in README.splitlines() if line.startswith("|") and f"`{variable}`" in line), "")


@pytest.mark.parametrize("variable", VARIABLES)
def test_every_variable_that_is_read_has_a_row(variable: str) -> None:
    assert row_of(variable)


@pytest.mark.parametrize(("variable", "default"), DEFAULTS)
def test_a_row_names_the_default_that_the_code_has(variable: str, default: str) -> None:
    assert f"`{default}`" in row_of(variable)


def test_every_variable_in_the_table_is_read() -> None:
    named = re.findall(r"`((?:DJANGO|KANIKOJOBS)_[A-Z_]+)`", README)

    assert {name for name in named if not name.endswith("_FILE")} - set(VARIABLES) == set()


def test_the_pictures_are_there_and_small() -> None:
    assert len(PICTURES) == 3
    assert [picture for picture in PICTURES if not 0 < (ROOT / picture).stat().st_size <= 150_000] == []
