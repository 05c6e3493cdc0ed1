"""Finds and kills everything that descends from one process, whatever it did to get away.

A process group is not enough: PostgreSQL's backends and Erlang's helper processes open sessions of their own,
so the tree is read from /proc (Linux). Only the standard library, because the guardian has to start at once.
"""

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

_GONE = frozenset("ZX")
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.02


def adopt_orphans() -> None:
    """Makes this process the parent of its orphaned grandchildren (prctl(2)), so that it can bury them.

    The first process of a container often buries nobody, and the zombies would stay in the process list.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def living(pid: int) -> bool:
    """True while the process runs. A zombie counts as gone: it waits for its parent, not for us."""
    stat = _stat(pid)
    return stat is not None and not stat.gone


def tree(pid: int) -> set[int]:
    """The living processes that descend from `pid` or belong to the session it leads, itself included."""
    parents: dict[int, int] = {}
    members: set[int] = set()
    for candidate in all_pids():
        stat = _stat(candidate)
        if stat is not None and not stat.gone:
            parents[candidate] = stat.parent
            if pid in (candidate, stat.session):
                members.add(candidate)
    while found := {child for child, parent in parents.items() if parent in members | {pid}} - members:
        members |= found
    return members


def kill_tree(pid: int) -> set[int]:
    """Sends SIGKILL to `pid` and all its descendants, and says which those were."""
    members = tree(pid)
    for member in sorted(members, key=lambda member: member != pid):  # the parent first, so that it replaces nobody
        try:
            os.kill(member, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return members


def await_end(pids: set[int]) -> None:
    """Waits until these processes are gone, and takes those that are ours by now out of the process list."""
    for pid in pids:
        while living(pid):
            time.sleep(_POLL_SECONDS)
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


def bury_orphans() -> None:
    """Takes our adopted zombies out of the process list. For the very end: somebody may wait for a child.

    Zombies of our own session are left alone; they are the children of other code in this process.
    """
    for pid in all_pids():
        stat = _stat(pid)
        if stat and stat.gone and stat.parent == os.getpid() and stat.session != os.getsid(0):
            os.waitpid(pid, os.WNOHANG)


class _Stat(NamedTuple):
    parent: int
    session: int
    gone: bool


def all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> _Stat | None:
    """A process of the list, proc(5): the fields follow the name, which may contain anything.

    None if there is none.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent, _group, session = fields[:4]
    return _Stat(parent=int(parent), session=int(session), gone=state in _GONE)
