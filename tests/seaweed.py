"""A real S3 server for tests: SeaweedFS, one process on free loopback ports.

Import `start_seaweed` for a server that just has to be there, `Seaweed` to stop and kill one.
"""

import contextlib
import os
import random
import secrets
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

START_TIMEOUT_S = 60.0
GRPC_OFFSET = 10_000
_PROBE = "probe"


class S3Address(NamedTuple):
    endpoint_url: str
    access_key: str
    secret_key: str
    bucket: str


class Seaweed:
    """One server over one data folder; it can be killed and started again."""

    def __init__(self, folder: Path, bucket: str = "patchbay") -> None:
        self.folder = folder
        self.log = folder / "seaweed.log"
        self._ports = free_ports(5)
        self._keys = secrets.token_hex(8), secrets.token_hex(16)
        self._bucket = bucket
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> S3Address:
        return S3Address(f"http://127.0.0.1:{self._ports[0]}", *self._keys, self._bucket)

    def start(self) -> None:
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command(data), env=self._environment(), stdout=log, stderr=log
            )
        self._wait()

    def _command(self, data: Path) -> list[str]:
        s3, master, filer, volume, admin = self._ports
        weed = Path(sysconfig.get_path("scripts")) / "weed"
        # Should the tests be killed, so is the server.
        die_with_parent = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        return [
            *(*die_with_parent, str(weed), "-logtostderr=true", "mini", f"-dir={data}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={s3}", f"-master.port={master}"),
            *(f"-filer.port={filer}", f"-volume.port={volume}", f"-admin.port={admin}"),
            *("-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-s3.allowDeleteBucketNotEmpty=false", "-s3.autoCreateBucket=false"),
            *("-master.telemetry=false", f"-bucket={self._bucket}"),
        ]

    def _environment(self) -> dict[str, str]:
        access_key, secret_key = self._keys
        return os.environ | {
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "GOMEMLIMIT": "300MiB",
        }

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            if self._keeps_objects():
                return
            time.sleep(0.1)
        self.kill()
        raise RuntimeError(f"SeaweedFS did not start:\n{self.log.read_text()[-3000:]}")

    def _keeps_objects(self) -> bool:
        """Whether it is ready.

        Its /healthz says so before the bucket is made, and the bucket answers before the volumes
        have joined, without which nothing can be written or read.
        """
        client = boto3.client(
            "s3",
            endpoint_url=self.address.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=self.address.access_key,
            aws_secret_access_key=self.address.secret_key,
            config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
        )
        try:
            client.put_object(Bucket=self._bucket, Key=_PROBE, Body=b"probe")
            client.get_object(Bucket=self._bucket, Key=_PROBE)["Body"].close()
            client.delete_object(Bucket=self._bucket, Key=_PROBE)
        except (ClientError, BotoCoreError):
            return False
        finally:
            client.close()
        return True

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
        self.kill()
        for port in self._ports:  # it leaves these behind, and knows no other folder for them
            for own in (port, port + GRPC_OFFSET):
                for socket_file in Path("/tmp").glob(f"seaweedfs-*-{own}.sock"):  # noqa: S108
                    socket_file.unlink(missing_ok=True)


@contextlib.contextmanager
def start_seaweed(folder: Path, bucket: str = "patchbay") -> Iterator[S3Address]:
    """A running server with an empty bucket, gone when the block ends."""
    last: RuntimeError | None = None
    for attempt in range(3):  # another process may take a port between the choice and the start
        server = Seaweed(folder / str(attempt), bucket)
        try:
            server.start()
        except RuntimeError as error:
            last = error
            continue
        try:
            yield server.address
        finally:
            server.stop()
        return
    raise RuntimeError("SeaweedFS did not start") from last


def free_ports(count: int) -> list[int]:
    """Ports that are free together with the gRPC port, 10 000 above each.

    Below the range of ephemeral ports, so that no outgoing connection takes one meanwhile.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(11_000, 22_000)  # noqa: S311
        if port not in found and _is_free(port) and _is_free(port + GRPC_OFFSET):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
