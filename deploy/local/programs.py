"""Debian programs that the tests use: found on the PATH, or else unpacked into `.local/` where apt is to be had."""

import shutil
from pathlib import Path

from deploy.local.debian_packages import unpack

PLACE = Path(__file__).resolve().parents[2] / ".local"


def find_program(name: str, *, package: str) -> Path:
    """Where a program is, one that runs without what its package depends on.

    Raises `DebianPackageError`, which says why, when it is not to be had.
    """
    if found := shutil.which(name):
        return Path(found)
    return unpack([package], into=PLACE / package, alone=True) / "usr" / "bin" / name
