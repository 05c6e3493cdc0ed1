"""Debian packages without root and without changing the machine: downloaded by apt, unpacked into a folder.

No maintainer script runs, so no system service is started, no user made, and `make clean` removes it all. apt
checks the signatures as always. Standard library only and runnable by itself: the Makefile needs it before
`.venv` exists.

    python3 -m deploy.local.debian_packages FOLDER PACKAGE...
"""

import fcntl
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


class DebianPackageError(Exception):
    """This machine has no apt, or apt could not deliver. The text says which."""


def unpack(packages: list[str], *, into: Path, alone: bool = False) -> Path:
    """Unpacks the packages and what they need beyond what is installed, unless they stand `alone`.

    Returns the folder; it is complete or absent.
    """
    if into.exists():
        return into
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise DebianPackageError("this machine has no apt-get")
    into.parent.mkdir(parents=True, exist_ok=True)
    # Two processes of one `make test` come here at the same moment: the second finds what the first has unpacked.
    with into.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not into.exists():
            _unpack(packages, into=into, alone=alone)
    return into


def _unpack(packages: list[str], *, into: Path, alone: bool) -> None:
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=f"{into.name}-") as name:
        work = Path(name)
        apt = _Apt(work / "apt")
        apt.run("update")
        needed = set(packages)
        if not alone:
            plan = apt.run("install", "--simulate", "--no-install-recommends", *packages)
            needed |= set(re.findall(r"^Inst (\S+)", plan, flags=re.MULTILINE))
        apt.run("download", *sorted(needed))
        root = work / "root"
        root.mkdir()
        for archive in apt.folder.glob("*.deb"):
            _run(["dpkg-deb", "--extract", archive, root])
        root.rename(into)


class _Apt:
    """apt-get with lists and cache of its own, beside the machine's list of installed packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in ("state/lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)

    def run(self, *arguments: str) -> str:
        options = {
            "Dir::State": self.folder / "state",
            "Dir::State::status": "/var/lib/dpkg/status",
            "Dir::Cache": self.folder / "cache",
            "Debug::NoLocking": "true",
            "APT::Sandbox::User": pwd.getpwuid(os.geteuid()).pw_name,
        }
        settings = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return _run(["apt-get", "-q", *settings, *arguments], cwd=self.folder)


def _run(command: list[str | Path], *, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C"},
    )
    if done.returncode != 0:
        raise DebianPackageError(
            f"{command[0]} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout


if __name__ == "__main__":
    try:
        unpack(sys.argv[2:], into=Path(sys.argv[1]).absolute())
    except DebianPackageError as error:
        sys.exit(str(error))
