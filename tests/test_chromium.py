"""Where the browser tests get their Chromium, and what they say where there is none that works."""

from pathlib import Path

import pytest

from deploy.local import chromium
from deploy.local.chromium import NoChromium, find_chromium, unpacked
from tests.house.browser import a_browser


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search path with one folder, in which there is nothing; no Chromium is named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    return tmp_path


def a_program(path: Path, *, script: str = "exit 1") -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_what_is_named_comes_first(empty_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_program(empty_path / "chromium")
    monkeypatch.setenv("CHROMIUM", str(a_program(empty_path / "mine")))

    assert find_chromium().program == empty_path / "mine"


def test_one_that_is_named_and_is_not_there_is_not_replaced(empty_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_program(empty_path / "chromium")
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")

    with pytest.raises(NoChromium, match=r"^CHROMIUM names /nowhere/chromium, which is no program$"):
        find_chromium()


def test_the_one_on_the_path_is_used_and_the_small_one_first(empty_path: Path) -> None:
    a_program(empty_path / "chromium")
    alone = find_chromium().program
    a_program(empty_path / "chromium-headless-shell")

    assert (alone.name, find_chromium().program.name) == ("chromium", "chromium-headless-shell")


def test_without_apt_it_says_so_in_one_line(empty_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chromium, "PLACE", tmp_path / "place")

    with pytest.raises(NoChromium, match=r"^Chromium is not on the PATH, and unpacking Debian's failed: .* apt-get$"):
        find_chromium()


def test_an_unpacked_one_finds_its_libraries_and_fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/mine")
    for folder in ("usr/lib/x86_64-linux-gnu/pulseaudio", "lib/x86_64-linux-gnu", "usr/share/fonts"):
        (tmp_path / folder).mkdir(parents=True)

    found = unpacked(tmp_path)

    assert found.environment == {
        "LD_LIBRARY_PATH": ":".join(
            [
                f"{tmp_path}/usr/lib/x86_64-linux-gnu",
                f"{tmp_path}/lib/x86_64-linux-gnu",
                f"{tmp_path}/usr/lib/x86_64-linux-gnu/pulseaudio",
                "/mine",
            ]
        ),
        "FONTCONFIG_FILE": f"{tmp_path}/fonts.conf",
    }
    assert f"<dir>{tmp_path}/usr/share/fonts</dir>" in (tmp_path / "fonts.conf").read_text()


@pytest.mark.parametrize(
    "script", ["echo no such library >&2; exit 127", "exit 0", "kill -SEGV $$"], ids=["fails", "ends", "crashes"]
)
def test_one_that_does_not_work_is_none(empty_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setenv("CHROMIUM", str(a_program(empty_path / "broken", script=script)))

    with pytest.raises(NoChromium, match="broken does not work: "), a_browser():
        pytest.fail("it is not to be used")
