"""A TCP server that says exactly what a test wants to be said, for answers that no API server would give."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

Script = Callable[[socket.socket], None]


def says(*parts: bytes, every: float = 0.0) -> Script:
    """Reads a request, then sends the parts, so many seconds apart, and closes the connection."""

    def script(peer: socket.socket) -> None:
        request_of(peer)
        waiting = threading.Event()
        for part in parts:
            peer.sendall(part)
            if every:
                waiting.wait(every)

    return script


def answers(status: str, *, body: bytes = b"", headers: str = "", content_type: str = "application/json") -> Script:
    """A complete HTTP answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return says(head.encode() + body)


def hangs_up(peer: socket.socket) -> None:
    """Reads a request and closes the connection."""
    request_of(peer)


@contextmanager
def odd_server(script: Script) -> Iterator[int]:
    """Serves each connection by the script, in a thread of its own; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    ended = threading.Event()
    peers: list[threading.Thread] = []

    def serve(peer: socket.socket) -> None:
        with peer:
            try:
                peer.settimeout(5)
                script(peer)
            except OSError:
                pass  # the client went away, as a client does that has had enough

    def accept() -> None:
        while not ended.is_set():
            try:
                peer, _ = listener.accept()
            except TimeoutError:
                continue
            peers.append(threading.Thread(target=serve, args=[peer]))
            peers[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        acceptor.join()
        listener.close()
        for thread in peers:
            thread.join()


def write_kubeconfig(
    path: Path, *, server: str, user: dict[str, object] | None = None, proxy: str | None = None
) -> str:
    """A kubeconfig for a server; returns its path as text."""
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "odd",
                "contexts": [{"name": "odd", "context": {"cluster": "odd", "user": "odd"}}],
                "clusters": [{"name": "odd", "cluster": {"server": server} | ({"proxy-url": proxy} if proxy else {})}],
                "users": [{"name": "odd", "user": user or {"token": "none"}}],
            }
        )
    )
    return str(path)


def request_of(peer: socket.socket) -> bytes:
    """Reads a whole request; returns its head."""
    received = b""
    while b"\r\n\r\n" not in received:
        if not (more := peer.recv(65536)):
            return received
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    missing = int(lengths[0]) - len(body) if lengths else 0
    while missing > 0 and (more := peer.recv(65536)):
        missing -= len(more)
    return head
