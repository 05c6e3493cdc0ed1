"""The one way in which the laptop's stack starts, watches and ends a process.

Every process is a foreground child with a session of its own (so that a terminal's Ctrl-C reaches only us,
and we end the others in order), writes to its own log file, and carries the guardian's mark.
"""

import os
import random
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from deploy.local.guardian import Guardian
from deploy.local.process_tree import adopt_orphans, await_end, bury_orphans, kill_tree, tree

_POLL_SECONDS = 0.03
_guardian: Guardian | None = None
_children: "set[Child]" = set()
_ports_given: set[int] = set()


class StackError(Exception):
    """The stack cannot be brought up. The text says why and what to do, for a person at a terminal."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses.

    From below the range that Linux gives to outgoing connections (32768 and up), and never the same one twice, so that
    it is still free later: when the server starts, and when it starts again.
    """
    while True:
        port = random.randrange(20000, 32000)
        if port not in _ports_given and port_is_free(port):
            _ports_given.add(port)
            return port


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Child:
    """One process that we started. Starting it again after its end is allowed."""

    def __init__(
        self,
        *,
        name: str,
        command: list[str],
        log: Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace: float = 10.0,
        hold_stdin: bool = False,
        inherits: tuple[int, ...] = (),
    ) -> None:
        """`user` is the system user to become (root only). `grace` is how long `stop` waits, in seconds.

        `hold_stdin` gives it a standard input that stays open for as long as we live, instead of an empty
        one. `inherits` are open file descriptors that it gets under the same numbers, such as a listening socket.
        """
        self.name = name
        self.command = command
        self.log = log
        self.env = env
        self.cwd = cwd
        self.user = user
        self.stop_signal = stop_signal
        self.grace = grace
        self.hold_stdin = hold_stdin
        self.inherits = inherits
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise StackError(f"{self.name} is not running")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs or before it ran."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE if self.hold_stdin else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=(dict(os.environ) if self.env is None else self.env) | guardian().mark,
                cwd=self.cwd,
                start_new_session=True,
                pass_fds=self.inherits,
                user=self.user,
                group=None if self.user is None else _group_of(self.user),
                extra_groups=None if self.user is None else [],
            )
        _children.add(self)

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Waits until `ready`.

        StackError, with the end of the log, when the process ends first or time is up.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise StackError(f"{self.name} ended with {self.returncode} while starting\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} was not ready within {seconds:.0f} s\n{self.log_tail()}")
            time.sleep(_POLL_SECONDS)

    def wait(self) -> int:
        """Waits for its end, however long that takes. Returns its code."""
        if self._process is None:
            raise StackError(f"{self.name} is not running")
        code = self._process.wait()
        self.kill()  # what it may have left behind
        return code

    def ask_to_end(self) -> None:
        """Sends the signal that asks for an end, and does not wait."""
        if self.running:
            os.kill(self.pid, self.stop_signal)

    def stop(self) -> int | None:
        """Asks it to end, and kills it and its descendants when it has not after `grace` seconds.

        Returns its code.
        """
        if self._process is None:
            return None
        members = tree(self.pid)
        if self.running:
            self.ask_to_end()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self.grace)
        code = self.kill()
        await_end(members)
        return code

    def kill(self) -> int | None:
        """Ends the process and its descendants without asking, and waits until all are gone."""
        if self._process is None:
            return None
        killed = kill_tree(self.pid)
        code = self._process.wait()
        await_end(killed - {self.pid})
        self._process = None
        _children.discard(self)
        return code

    def log_tail(self, lines: int = 20) -> str:
        """The end of its log under a line that names the file."""
        if not self.log.exists():
            return f"(no log at {self.log})"
        with self.log.open(errors="replace") as log:
            return f"--- the end of {self.log}:\n" + "".join(deque(log, maxlen=lines))


def guardian() -> Guardian:
    """The guardian of this process; a fork gets its own."""
    global _guardian
    if _guardian is None or _guardian.owner != os.getpid():
        adopt_orphans()
        _guardian = Guardian()
    return _guardian


def finish() -> None:
    """When the last child has ended: no zombie and no guardian is left of them.

    The next child brings a new guardian.
    """
    global _guardian
    if _children or _guardian is None or _guardian.owner != os.getpid():
        return
    bury_orphans()
    _guardian.dismiss()
    _guardian = None


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid
