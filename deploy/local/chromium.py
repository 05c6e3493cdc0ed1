"""Chromium for the browser tests and the README's pictures: what is on the PATH, or Debian's smallest, unpacked.

Nothing is installed on the machine, and nothing comes from elsewhere than Debian's signed packages: the package
`chromium-headless-shell` is Chromium without windows, for which a fifth of chromium's other packages is enough.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.debian_packages import DebianPackageError, unpack
from deploy.local.programs import PLACE

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser")
# Chromium-common has the data that the program cannot start without; where it is installed apt would leave it out.
PACKAGES = ["chromium-headless-shell", "chromium-common"]

_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>
"""


class NoChromium(Exception):
    """There is none and none can be had, or it does not start. The text says which, in one line."""


@dataclass(frozen=True, slots=True)
class Chromium:
    """A program to start, and what its environment needs beside our own."""

    program: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def find_chromium() -> Chromium:
    """The program that CHROMIUM names, else the first of `NAMES` on the PATH, else Debian's. Raises `NoChromium`."""
    if named := os.environ.get("CHROMIUM"):
        if found := shutil.which(named):
            return Chromium(Path(found))
        raise NoChromium(f"CHROMIUM names {named}, which is no program")
    for name in NAMES:
        if found := shutil.which(name):
            return Chromium(Path(found))
    try:
        return unpacked(unpack(PACKAGES, into=PLACE / "chromium"))
    except DebianPackageError as error:
        why = " ".join(str(error).split())[:300]
        raise NoChromium(f"Chromium is not on the PATH, and unpacking Debian's failed: {why}") from None


def unpacked(root: Path) -> Chromium:
    """The Chromium in a folder of unpacked packages: its libraries and its fonts are in there too."""
    libraries = [folder for parent in ("usr/lib", "lib") for folder in sorted((root / parent).glob("*-linux-gnu*"))]
    libraries += [folder / "pulseaudio" for folder in libraries if (folder / "pulseaudio").is_dir()]
    path = os.pathsep.join([*map(str, libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    environment = {"LD_LIBRARY_PATH": path} if path else {}
    fonts = root / "usr" / "share" / "fonts"
    if fonts.is_dir():
        # They came along because the machine has none, so it has no configuration that names their folder either.
        (root / "fonts.conf").write_text(_FONTS.format(fonts=fonts, cache=root / "var" / "cache" / "fontconfig"))
        environment["FONTCONFIG_FILE"] = str(root / "fonts.conf")
    # Not the script in /usr/bin, which looks for the program in the system's folders.
    return Chromium(root / "usr" / "lib" / "chromium" / "chromium-headless-shell", environment)
