"""Clients that cost as little as they can, each a process of its own.

    python -S -E benchmarks/_load.py read PORT PATH       waits for a line, reads one file
    python -S -E benchmarks/_load.py probe PORT PATH      asks again and again until a line comes

Standard library alone and no package imported, so that they start at once. Each prints a row of
JSON when it is done; times are the monotonic clock's, the same in every process.
"""

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BUFFER_BYTES = 2**20
PROBE_EVERY_S = 0.02
TIMEOUT_S = 300.0


def start(role: str, port: int, path: str, headers: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a client and wait until it is connected."""
    client = subprocess.Popen(
        [sys.executable, "-S", "-E", str(Path(__file__)), role, str(port), path, *headers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None  # noqa: S101  # a pipe was asked for
    client.stdout.readline()
    return client


def go(client: subprocess.Popen[str]) -> None:
    """Let a reader begin, or a prober end."""
    assert client.stdin is not None  # noqa: S101
    client.stdin.write("go\n")
    client.stdin.flush()


def result(client: subprocess.Popen[str]) -> dict[str, object]:
    """What a client printed in the end."""
    assert client.stdout is not None  # noqa: S101
    text = client.stdout.readline()
    if client.wait(TIMEOUT_S) or not text:
        raise RuntimeError("a client of the benchmark failed")
    found: dict[str, object] = json.loads(text)
    return found


def _connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _request(path: str, headers: Sequence[str]) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    return "\r\n".join(lines).encode()


def _read(port: int, path: str, headers: Sequence[str]) -> None:
    client, buffer = _connect(port), bytearray(BUFFER_BYTES)
    print(flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    client.sendall(_request(path, headers))
    left, first = _head(client, buffer)
    first_at = time.monotonic()
    left -= first
    size = left + first
    while left > 0:
        got = client.recv_into(buffer)
        if not got:
            raise SystemExit(f"{left} of {size} bytes are missing")
        left -= got
    row = {"began": began, "first_at": first_at, "ended": time.monotonic(), "bytes": size}
    print(json.dumps(row), flush=True)


def _head(client: socket.socket, buffer: bytearray) -> tuple[int, int]:
    """Read a response's head; answers the length of its body, and how much of it has come."""
    got = bytearray()
    while (end := got.find(b"\r\n\r\n")) < 0 or len(got) == end + 4:  # a byte of the body, too
        size = client.recv_into(buffer)
        if not size:
            raise SystemExit(f"the server hung up after {bytes(got[:200])!r}")
        got += buffer[:size]
    head = bytes(got[:end]).lower()
    if not head.startswith((b"http/1.1 200", b"http/1.1 206")):
        raise SystemExit(f"the server answered {bytes(got[:300])!r}")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    return int(length.partition(b":")[2]), len(got) - end - 4


def _probe(port: int, path: str, headers: Sequence[str]) -> None:
    client, buffer = _connect(port), bytearray(BUFFER_BYTES)
    print(flush=True)
    times = []
    while not select.select([sys.stdin], [], [], PROBE_EVERY_S)[0]:
        began = time.monotonic()
        client.sendall(_request(path, headers))
        left, got = _head(client, buffer)
        while got < left:
            got += client.recv_into(buffer)
        times.append(time.monotonic() - began)
    print(json.dumps({"times_s": times}), flush=True)


if __name__ == "__main__":
    _role, _port, _path, *_headers = sys.argv[1:]
    {"read": _read, "probe": _probe}[_role](int(_port), _path, _headers)
