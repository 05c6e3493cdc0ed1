"""Ends the stack's processes when the process that started them has vanished.

After Ctrl-C or SIGTERM the owner tidies up itself. After SIGKILL it cannot: so the first thing it starts is
this guardian, which waits for the owner's end of a pipe to close and then kills every process that carries
the owner's mark in its environment. Nothing has to be told to it, so there is no moment in which a new
process is not yet known. A prctl(PR_SET_PDEATHSIG) would be shorter, but it dies with the thread that started
a process, is lost when the process changes its user, and does not reach the grandchildren.
"""

import os
import secrets
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from deploy.local.process_tree import all_pids, kill_tree, living

_CHECKOUT = Path(__file__).resolve().parents[2]
_MARK = "LOCAL_STACK_OWNER"
_POLL_SECONDS = 0.5
_PAUSE_SECONDS = 0.03


class Guardian:
    """The owner's end of the pipe."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        token = secrets.token_hex(16)
        self.mark = {_MARK: token}
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-m", "deploy.local.guardian", str(self.owner), token],
            cwd=_CHECKOUT,
            env={},  # a guardian must not carry the mark of a stack that its owner belongs to
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Lets it go, and waits until it has gone. What still carries the mark ends with it."""
        assert self._process.stdin is not None  # noqa: S101 - it was opened as a pipe
        self._process.stdin.close()
        self._process.wait()


def _await_end_of(owner: int) -> None:
    """Returns when the owner is gone and what it was starting carries its mark.

    A process that the owner has forked holds the pipe open until it runs its own program, and only then
    carries the mark. But a fork that never runs another program may hold it for long, so a second after the
    owner it is over.
    """
    while os.getppid() == owner:
        if select.select([0], [], [], _POLL_SECONDS)[0]:
            return
    select.select([0], [], [], 1.0)


def _marked(token: str) -> set[int]:
    mark = f"{_MARK}={token}".encode()
    found = set()
    for pid in all_pids():
        try:
            if mark in Path(f"/proc/{pid}/environ").read_bytes() and living(pid):
                found.add(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    owner, token = int(sys.argv[1]), sys.argv[2]
    _await_end_of(owner)
    empty_rounds = 0
    # More than one look: for some microseconds a process that begins its own program has no environment to
    # read.
    while empty_rounds < 3:
        marked = _marked(token)
        for pid in marked:
            kill_tree(pid)
        empty_rounds = 0 if marked else empty_rounds + 1
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    main()
