"""Bytes on the wire: what each way of changing a model costs, counted between client and service.

    python -m benchmarks.wire [--mib 256] [--results FILE]

The real `patchbay` command talks to a real service (folder store) through a TCP proxy on loopback
that counts both directions, heads and JSON included. The model has layers of f16, 4 MiB each; two
patches of `standard` quality touch its first ten layers (fog), and the sixth to the thirteenth
(noise). Every file that results is hashed, and must be the whole file that the service states.
"""

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks._layered import FILE, equal_layers, publish, sha256_of, write_model, write_patch
from examples.local_service import LocalService, local_service
from service.client.client import Client

RESULTS: Final = Path(__file__).parent / "results" / "wire.md"
MODEL: Final = "bench/base"
BASE: Final = f"{MODEL}@main"
FOG: Final = f"{MODEL}@main+fog=1"
HALF: Final = f"{MODEL}@main+fog=0.5"
NOISE: Final = f"{MODEL}@main+noise=1"
DIGEST_WITHIN_S: Final = 120
CHUNK: Final = 2**18


# ── the proxy ────────────────────────────────────────────────────────────────────────────────


@dataclass
class Counted:
    """Bytes by direction, and connections."""

    up: int = 0
    down: int = 0
    connections: int = 0


class Proxy:
    """Passes connections on to a port of this machine and counts what goes through."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._now = Counted()
        self._open: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Accept nobody any more."""
        self._listener.close()

    def taken(self) -> Counted:
        """What went through since the last call, once every connection has ended."""
        for thread in self._open:
            thread.join()
        with self._lock:
            counted, self._now, self._open = self._now, Counted(), []
        return counted

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                service = socket.create_connection(("127.0.0.1", self._to))
                with self._lock:
                    self._now.connections += 1
                for way in ((client, service, "up"), (service, client, "down")):
                    thread = threading.Thread(target=self._pass, args=way, daemon=True)
                    self._open.append(thread)
                    thread.start()

    def _pass(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with suppress(OSError):  # one side hung up
            while content := source.recv(CHUNK):
                with self._lock:
                    setattr(self._now, way, getattr(self._now, way) + len(content))
                sink.sendall(content)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


# ── what is measured ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Row:
    """One operation: what it cost, and whether its file is what it should be."""

    what: str
    command: str
    counted: Counted
    is_right: bool


@dataclass
class Bench:
    """A service with the models on it, the command behind the proxy, a folder to work in."""

    service: LocalService
    proxy: Proxy
    folder: Path
    digests: dict[str, str]
    rows: list[Row] = field(default_factory=list)

    @property
    def base(self) -> Path:
        """The base as it was published."""
        return self.folder / "base.safetensors"

    def fresh(self, name: str, of: Path | None = None) -> Path:
        """A copy of the base, or of another file, without any record."""
        return Path(shutil.copyfile(of or self.base, self.folder / name))

    def run(self, what: str, file: Path, wanted: str, *words: str) -> None:
        """Run a command, count its bytes, hash `file`; `{}` in its words is the file."""
        self.proxy.taken()
        arguments = [str(file) if word == "{}" else word for word in words]
        ended = subprocess.run(
            [sys.executable, "-m", "service.manage", *arguments],
            env=self.service.environment | {"PATCHBAY_URL": self.proxy.url},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f"patchbay {' '.join(arguments)}: {ended.stderr}")
        counted = self.proxy.taken()
        is_right = sha256_of(file) == self.digests[wanted]
        shown = " ".join("FILE" if word == "{}" else word for word in words)
        self.rows.append(Row(what, shown, counted, is_right))
        print(f"{what:<58}{counted.down + counted.up:>13,} bytes", flush=True)


def measure(bench: Bench) -> None:
    """Every way from one state of a file to another."""
    pulled = bench.folder / "pulled.safetensors"
    bench.run("full pull", pulled, FOG, "pull", FOG, "-o", "{}")
    bench.run("unchanged, pulled again", pulled, FOG, "pull", FOG, "-o", "{}")

    mine = bench.fresh("mine.safetensors")
    bench.run("overlay onto the base", mine, FOG, "apply", "{}", FOG)
    bench.run("unchanged, applied again", mine, FOG, "apply", "{}", FOG)
    bench.run("another scale of it, from there", mine, HALF, "pull", HALF, "--into", "{}")
    bench.run("switch of recipe, with a record", mine, NOISE, "pull", NOISE, "--into", "{}")
    bench.run("revert, offline", mine, BASE, "undo", "{}")

    bench.run("overlay onto the base, once more", mine, FOG, "pull", FOG, "--into", "{}")
    bench.run("revert by name, with a record", mine, BASE, "pull", BASE, "--into", "{}")

    computed = bench.fresh("computed.safetensors")
    words = ("pull", FOG, "--into", "{}", "--patch-only")
    bench.run("patch only, computed here", computed, FOG, *words)

    unknown = bench.fresh("unknown.safetensors", pulled)
    bench.run("switch, recognised without a record", unknown, NOISE, "pull", NOISE, "--into", "{}")
    bench.run("switch of a file pulled whole", pulled, NOISE, "pull", NOISE, "--into", "{}")
    bench.run("full pull of another recipe", pulled, FOG, "pull", FOG, "-o", "{}")
    stray = bench.fresh("stray.safetensors", pulled)
    bench.run("revert of a file pulled whole", pulled, BASE, "pull", BASE, "--into", "{}")
    bench.run("revert, recognised without a record", stray, BASE, "pull", BASE, "--into", "{}")


def table(rows: list[Row], size_bytes: int) -> Iterator[str]:
    """The rows in Markdown."""
    full = rows[0].counted
    yield "| operation | command | sent | received | of a full pull | times less | right bytes |"
    yield "|---|---|---:|---:|---:|---:|---|"
    for row in rows:
        total = row.counted.up + row.counted.down
        share = total / (full.up + full.down)
        times = f"{1 / share:,.1f}" if total else "no bytes"
        yield (
            f"| {row.what} | `{row.command}` | {row.counted.up:,} | {row.counted.down:,} | "
            f"{share:.4%} | {times} | {'yes' if row.is_right else '**NO**'} |"
        )
    yield ""
    yield f"The file itself has {size_bytes:,} bytes."


# ── what it is measured on ───────────────────────────────────────────────────────────────────


@contextmanager
def benched(mib: int) -> Iterator[Bench]:
    """A service with the model, both patches, and every build ready with its digest."""
    with tempfile.TemporaryDirectory() as text, local_service() as service:
        folder = Path(text)
        base = folder / "base.safetensors"
        shapes = equal_layers(mib)
        write_model(base, shapes, "F16")
        write_patch(folder / "fog", shapes, "F16", base, list(shapes)[:10])
        write_patch(folder / "noise", shapes, "F16", base, list(shapes)[5:13])
        with Client(service.url, service.token) as client:
            publish(client, MODEL, base, [folder / "fog", folder / "noise"])
            digests = {recipe: _digest(client, recipe) for recipe in (FOG, HALF, NOISE)}
        proxy = Proxy(int(service.url.rpartition(":")[2]))
        try:
            yield Bench(service, proxy, folder, {BASE: sha256_of(base), **digests})
        finally:
            proxy.close()


def _digest(client: Client, recipe: str) -> str:
    """Have a recipe built; the sha256 of its file, once the service knows it."""
    build = client.builds.ready(recipe)
    give_up_at = time.monotonic() + DIGEST_WITHIN_S
    while (sha256 := client.builds.get(build.id).files[0].sha256) is None:
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"the digest of {FILE} with {recipe} does not come")
        time.sleep(0.2)
    return sha256.removeprefix("sha256:")


def main() -> int:
    """Measure, print, keep; answers the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    with benched(given.mib) as bench:
        measure(bench)
        size_bytes = bench.base.stat().st_size
    text = "\n".join(["# Bytes on the wire", "", *table(bench.rows, size_bytes), ""])
    print(f"\n{text}")
    given.results.parent.mkdir(parents=True, exist_ok=True)
    given.results.write_text(text)
    return 0 if all(row.is_right for row in bench.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
