"""Debian programs that the tests use: found on the PATH, or else unpacked into `.local/` where apt is to be had."""

import os
import shutil
from pathlib import Path

from deploy.local.debian_packages import unpack

PLACE = Path(__file__).resolve().parents[2] / ".local"


def find_program(name: str, *, package: str) -> Path:
    """Where a program is. Raises `DebianPackageError`, which says why, when it is not to be had."""
    if found := shutil.which(name):
        return Path(found)
    return unpack([package], into=PLACE / package) / "usr" / "bin" / name


def library_path(program: Path) -> str:
    """LD_LIBRARY_PATH for a program that may be unpacked: beside it, before what there was."""
    root = program.parent.parent
    folders = [
        str(folder) for folder in (root / "lib", *(root / "lib").glob("*-linux-gnu")) if program.is_relative_to(PLACE)
    ]
    return os.pathsep.join(filter(None, [*folders, os.environ.get("LD_LIBRARY_PATH")]))
