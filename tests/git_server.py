"""A git server on loopback, as builds meet it: git's own HTTP backend, plain files, a password, a redirect.

`/smart/` speaks the protocol of the forges, `/dumb/` only hands out files, `/private/` wants a password, `/moved/`
sends the client to another address.
"""

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

USERNAME, PASSWORD = "builder", "s3cret with spaces"


@dataclass(frozen=True, slots=True)
class GitServer:
    """Repositories below `root`, served at `host`; `authorizations` are those that clients have sent."""

    host: str
    root: Path
    authorizations: list[str] = field(default_factory=list)

    def url(self, path: str, *, by: str = "smart") -> str:
        return f"http://{self.host}/{by}/{path}"


def git(*arguments: str, cwd: Path) -> str:
    """Runs git with a configuration of its own and returns what it prints."""
    settings = ("user.name=test", "user.email=test@example.com", "init.defaultBranch=main", "commit.gpgsign=false")
    command = ["git", *(part for setting in settings for part in ("-c", setting)), *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "GIT_CONFIG_NOSYSTEM": "1"}
    finished = subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True)
    return finished.stdout.strip()


def publish(worktree: Path, *, to: Path) -> None:
    """Makes a bare copy that all of the server's ways can serve."""
    git("clone", "--quiet", "--bare", str(worktree), str(to), cwd=worktree)
    git("config", "uploadpack.allowAnySHA1InWant", "true", cwd=to)
    git("update-server-info", cwd=to)


@contextmanager
def serving(root: Path) -> Iterator[GitServer]:
    """Serves the bare repositories below `root` until the block ends."""
    authorizations: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            way, _, path = urlsplit(self.path).path.removeprefix("/").partition("/")
            authorization = self.headers.get("Authorization", "")
            if authorization:
                authorizations.append(authorization)
            expected = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
            if way == "moved":
                self.answer(301, {"Location": self.path.replace("/moved/", "/smart/", 1)})
            elif way == "private" and authorization != f"Basic {expected}":
                self.answer(401, {"WWW-Authenticate": 'Basic realm="git"'})
            elif way == "dumb":
                file = root / unquote(path)
                self.answer(200, {}, file.read_bytes()) if file.is_file() else self.answer(404, {})
            else:
                self.backend(path)

        do_POST = do_GET  # noqa: N815 (the handler's own naming)

        def backend(self, path: str) -> None:
            """CGI, as in git-http-backend(1)."""
            variables = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "PATH_INFO": f"/{unquote(path)}",
                "QUERY_STRING": urlsplit(self.path).query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": self.headers.get("Content-Length", "0"),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            body = self.rfile.read(int(variables["CONTENT_LENGTH"]))
            done = subprocess.run(["git", "http-backend"], env=variables, input=body, capture_output=True, check=True)
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.answer(int(headers.pop("Status", "200").split()[0]), headers, content)

        def answer(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield GitServer(host=f"127.0.0.1:{server.server_port}", root=root, authorizations=authorizations)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
