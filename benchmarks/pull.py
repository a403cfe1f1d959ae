"""Pulling a patched model, against nginx sending the same bytes as a file that was built before.

    python -m benchmarks.pull [--repeats N] [--mlflow PYTHON] [--results FILE]

1 GiB in f16 of which three patches change 40 MiB, spliced while it is sent: from a folder store,
and from an S3 store (SeaweedFS) with a warm cache of hot blobs. By 1 and by 8 streams, each a
process that reads into one buffer and throws away; both servers have the same clients, all on
loopback, page cache warm, in turn. nginx: sendfile, one process a core. With `--mlflow` also that
interpreter's MLflow, handing the same file out as an artifact through its proxy.

Numbers are medians over the rounds. A ratio is of two downloads of one round; behind it stand the
quartiles of the rounds. CPU is user and system time of the server's processes, a GiB sent. Private
memory is the largest growth of RssAnon over what it was before the first download. /healthz is
asked every 20 ms on a connection of its own meanwhile.
"""

import argparse
import contextlib
import datetime as dt
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from benchmarks import _gib, _load
from benchmarks._processes import Watched, private_bytes
from service.client.client import Client
from tests.seaweed import start_seaweed
from tests.service_process import ServiceProcess

RESULTS: Final = Path(__file__).parent / "results" / "pull.md"
GIB: Final = 2**30
MIB: Final = 2**20
STREAMS: Final = (1, 8)
RECIPE: Final = f"{_gib.MODEL}@main+p0=1+p1=0.5+p2=-0.25"
SETTINGS: Final = {"PATCHBAY_HEARTBEAT_S": "10", "PATCHBAY_STALLED_AFTER_S": "30"}
NGINX: Final = "nginx"
SLOW_ROUNDS: Final = 2
"""Rounds that a server takes part in which needs many times as long as the others."""
START_S: Final = 60.0


@dataclass(frozen=True)
class Server:
    """Where a file can be read, and the processes that send it."""

    name: str
    port: int
    path: str
    health: str
    pids: Sequence[int]
    headers: Sequence[str] = ()
    idle_bytes: int = field(default=0)
    is_slow: bool = False


@dataclass(frozen=True)
class Pulled:
    """What one round of downloads gave."""

    gib_per_s: float
    cpu_s_per_gib: float
    private_bytes: int
    health_s: Sequence[float]


def pulled(server: Server, streams: int) -> Pulled:
    """Download the file by so many streams at once."""
    readers = [
        _load.start("read", server.port, server.path, server.headers) for _ in range(streams)
    ]
    prober = _load.start("probe", server.port, server.health)
    with Watched(server.pids, idle_bytes=server.idle_bytes) as watched:
        for reader in readers:
            _load.go(reader)
        rows = [_load.result(reader) for reader in readers]
    _load.go(prober)
    times = _load.result(prober)["times_s"]
    assert isinstance(times, list)  # noqa: S101
    sent = sum(int(str(row["bytes"])) for row in rows) / GIB
    began = min(float(str(row["began"])) for row in rows)
    took_s = max(float(str(row["ended"])) for row in rows) - began
    return Pulled(sent / took_s, watched.cpu_s / sent, watched.grown_bytes, sorted(times))


# ── the servers ──────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def nginx(folder: Path, file: Path) -> Iterator[Server]:
    """Another server as its own process with its own configuration."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise SystemExit("there is no nginx to compare with; apt-get install nginx-light")
    port = _free_port()
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # else its children could not read the file
    config.write_text(f"""
        {user} daemon off; worker_processes auto; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{
            access_log off; sendfile on; tcp_nopush on; {temporary}
            server {{
                listen 127.0.0.1:{port}; root {file.parent};
                location = /healthz {{ return 200 ok; }}
            }}
        }}""")
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(config)])
    try:
        _wait_for(port)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        pids = [int(pid) for pid in children.split()]
        yield Server(NGINX, port, f"/{file.name}", "/healthz", pids, (), private_bytes(pids))
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def ours(folder: Path, base: Path, patches: Sequence[Path], *, s3: bool) -> Iterator[Server]:
    """`patchbay serve`, with the recipe built and, on S3, its blobs in the cache."""
    with contextlib.ExitStack() as stack:
        settings = dict(SETTINGS)
        if s3:
            address = stack.enter_context(start_seaweed(folder / "seaweed"))
            settings |= {
                "PATCHBAY_BLOB_URL": f"s3://{address.bucket}",
                "PATCHBAY_S3_ENDPOINT_URL": address.endpoint_url,
                "AWS_ACCESS_KEY_ID": address.access_key,
                "AWS_SECRET_ACCESS_KEY": address.secret_key,
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        service = stack.enter_context(ServiceProcess(settings))
        with Client(service.url, service.token) as client:
            _gib.publish(client, base, patches)
            idle = [service.process_of("service.manage serve").pid]
            idle_bytes = private_bytes(idle)
            build = client.builds.ready(RECIPE)
            client.weights.fetch(RECIPE, folder / "pulled" / _gib.FILE)
            # The first to want the file has it hashed, which would run beside the first rounds.
            _wait_until(lambda: client.builds.get(build.id).files[0].sha256 is not None)
            if s3:
                _wait_until(lambda: service.log.count("blob cached") >= 2)
        name = "ours, S3" if s3 else "ours, folder"
        path = f"/v1/builds/{build.id}/weights"
        port = int(service.url.rpartition(":")[2])
        headers = (f"Authorization: Bearer {service.token}",)
        yield Server(name, port, path, "/healthz", idle, headers, idle_bytes)


@contextlib.contextmanager
def mlflow(python: Path, folder: Path, file: Path) -> Iterator[Server]:
    """MLflow's tracking server, proxying artifacts from a folder."""
    port = _free_port()
    command = [
        *(str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--serve-artifacts", "--artifacts-destination", str(file.parent), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
    ]
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        _wait_for(port)
        pids = [process.pid, *_descendants(process.pid)]
        path = f"/api/2.0/mlflow-artifacts/artifacts/{file.name}"
        idle_bytes = private_bytes(pids)
        yield Server("MLflow", port, path, "/health", pids, (), idle_bytes, is_slow=True)
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    _wait_until(listens)


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"a server of the benchmark was not ready within {START_S:.0f} s")
        time.sleep(0.1)


# ── the comparison ───────────────────────────────────────────────────────────────────────────


def compare(servers: Sequence[Server], streams: int, repeats: int) -> list[str]:
    """Ask all servers in turn, again and again; answers the rows of a table."""
    rounds: dict[str, list[Pulled]] = {server.name: [] for server in servers}
    for turn in range(repeats):
        for server in servers if turn % 2 else reversed(servers):
            if turn < SLOW_ROUNDS or not server.is_slow:
                rounds[server.name].append(pulled(server, streams))
    return [_row(name, streams, found, rounds[NGINX]) for name, found in rounds.items()]


def _row(name: str, streams: int, found: Sequence[Pulled], nginx_: Sequence[Pulled]) -> str:
    ratios = [a.gib_per_s / b.gib_per_s for a, b in zip(found, nginx_, strict=False)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    times = sorted(time_s for each in found for time_s in each.health_s)
    cells = [
        name,
        str(streams),
        f"{median(each.gib_per_s for each in found):.2f}",
        "1" if name == NGINX else f"{middle:.2f} ({low:.2f} to {high:.2f})",
        f"{median(each.cpu_s_per_gib for each in found):.3f}",
        f"{max(each.private_bytes for each in found) / MIB:.0f}",
        f"{1000 * median(times):.1f}",
        f"{1000 * times[int(0.95 * len(times))]:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _machine() -> str:
    """What this runs on, in words."""
    speed = re.search(r"^cpu MHz\s*:\s*([0-9.]+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    told = f" at {float(speed[1]) / 1000:.1f} GHz" if speed else ""
    return f"{os.cpu_count()} cores{told}"


HEAD: Final = """\
| server | streams | GiB/s | of nginx | CPU-s a GiB | private, MiB | health p50, ms | p95, ms |
|---|---:|---:|---:|---:|---:|---:|---:|"""


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--mlflow", type=Path, help="an interpreter that has MLflow")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.repeats < SLOW_ROUNDS:
        parser.error(f"a spread needs {SLOW_ROUNDS} repeats at least")
    rows = []
    with tempfile.TemporaryDirectory(prefix="patchbay-pull-") as name:
        folder = Path(name)
        base = _gib.write_base(folder / "base")
        patches = [folder / f"p{number}.rws.safetensors" for number in range(3)]
        for seed, patch in enumerate(patches):
            _gib.write_patch(patch, _gib.TOUCHED, seed + 1)
        print(HEAD, flush=True)
        for s3 in (False, True):
            with contextlib.ExitStack() as stack:
                own = stack.enter_context(ours(folder, base, patches, s3=s3))
                built = folder / "pulled" / _gib.FILE
                servers = [stack.enter_context(nginx(folder, built)), own]
                if given.mlflow and not s3:
                    servers.append(stack.enter_context(mlflow(given.mlflow, folder, built)))
                for streams in STREAMS:
                    rows += compare(servers, streams, given.repeats)
                    print("\n".join(rows[-len(servers) :]), flush=True)
    if not given.mlflow:
        print("\nMLflow: not asked for (--mlflow PYTHON)", file=sys.stderr)
    title = "# Pulling 1 GiB, against nginx"
    run = f"{dt.datetime.now(dt.UTC).date()}, {_machine()}, {given.repeats} rounds"
    slow = f" ({SLOW_ROUNDS} of MLflow)" if given.mlflow else ""
    given.results.parent.mkdir(parents=True, exist_ok=True)
    given.results.write_text("\n".join([title, "", f"{run}{slow}.", "", HEAD, *rows, ""]))


if __name__ == "__main__":
    main()
