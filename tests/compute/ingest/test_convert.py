"""Whole conversions, each checkpoint by a process of its own, and what such a process may do."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save

from service import errors
from service.compute.ingest import convert
from service.compute.jobs import CheckpointInput, ConvertJob, ConvertMade, IndexInput
from service.layout import fileset
from service.names import Digest, digest_of
from tests.compute.ingest.conftest import saved

MIB = 2**20


def job_of(files: Mapping[str, bytes]) -> ConvertJob:
    """A job to convert these files, by path."""
    given = [(p, fileset.converted(p), digest_of(c), len(c)) for p, c in sorted(files.items())]
    return ConvertJob(
        tuple(CheckpointInput(*each) for each in given if fileset.is_checkpoint(each[0])),
        tuple(IndexInput(*each) for each in given if fileset.is_checkpoint_index(each[0])),
    )


def converted(files: Mapping[str, bytes], scratch: Path, told: list[float]) -> ConvertMade:
    blobs = {digest_of(content): content for content in files.values()}

    def open_read(digest: Digest) -> Callable[[int, int], bytes]:
        return lambda start, end: blobs[digest][start:end]

    return convert.convert(job_of(files), open_read, scratch, lambda share, _: told.append(share))


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Changes what a converter may use."""
    plain = convert.limits_for

    def changed(**changes: int) -> None:
        monkeypatch.setattr(
            convert, "limits_for", lambda *args: dataclasses.replace(plain(*args), **changes)
        )

    return changed


def test_a_sharded_set_becomes_one_of_safetensors_with_its_index(tmp_path: Path) -> None:
    shared = torch.ones(3)
    first = {"z": torch.arange(4.0), "emb": shared, "out": shared}
    second = {"a": torch.ones(2, dtype=torch.bfloat16)}
    shards = [f"m/pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    weight_map = {**dict.fromkeys(first, shards[0][2:]), "a": shards[1][2:]}
    index = {"metadata": {"total_size": 99, "kept": 1}, "weight_map": weight_map}
    told: list[float] = []

    made = converted(
        {
            shards[0]: saved(first),
            shards[1]: saved(second),
            "m/pytorch_model.bin.index.json": json.dumps(index).encode(),
        },
        tmp_path,
        told,
    )

    assert [each.path for each in made.weights] == [
        "m/model-00001-of-00002.safetensors",
        "m/model-00002-of-00002.safetensors",
    ]
    assert made.weights[0].order == ("z", "emb")
    assert made.weights[0].tied == {"out": "emb"}
    assert made.weights[1].file.path.read_bytes() == save(second, {"format": "pt"})
    for file in made.files:
        content = file.path.read_bytes()
        assert (digest_of(content), len(content)) == (file.digest, file.size_bytes)
    (written,) = made.indexes
    assert written.path == "m/model.safetensors.index.json"
    assert json.loads(written.file.path.read_bytes()) == {
        "metadata": {"kept": 1, "total_size": 4 * 4 + 3 * 4 + 2 * 2},
        "weight_map": {
            "a": "model-00002-of-00002.safetensors",
            "emb": "model-00001-of-00002.safetensors",
            "z": "model-00001-of-00002.safetensors",
        },
    }
    assert told == sorted(told)
    assert {path.name for path in tmp_path.iterdir()} == {file.path.name for file in made.files}


def test_a_blob_that_is_not_what_it_was_is_named(tmp_path: Path) -> None:
    content = saved({"a": torch.ones(1)})
    job = job_of({"net.pth": content})
    changed = content[:-1] + b"\x01"

    with pytest.raises(errors.DamagedBlob, match=digest_of(content)):
        convert.convert(
            job, lambda _: lambda start, end: changed[start:end], tmp_path, lambda *_: None
        )


class Fills:
    """A pickle that asks for a lot of memory while it is read, as it is allowed to."""

    def __reduce__(self) -> tuple[object, ...]:
        return bytearray, (2 * 2**30,)


def test_a_pickle_that_asks_for_too_much_memory_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(errors.ConversionOverLimit, match="memory"):
        converted({"net.pth": saved({"a": torch.ones(1), "b": Fills()})}, tmp_path, [])


def test_memory_stays_bounded_whatever_the_size_of_the_tensors(
    tmp_path: Path, limits: Callable[..., None]
) -> None:
    state = {"turned": torch.zeros(2048, 8192).t(), "plain": torch.zeros(16 * MIB)}
    limits(private_bytes=48 * MIB)

    made = converted({"net.pth": saved(state)}, tmp_path, [])

    assert made.files[0].size_bytes > 128 * MIB
    assert load_file(made.files[0].path)["turned"].shape == (8192, 2048)


@pytest.mark.parametrize(
    ("changes", "told"), [({"cpu_s": 0}, "0 s of one processor"), ({"wall_s": 0}, "more than 0 s")]
)
def test_a_conversion_that_takes_too_long_is_stopped(
    tmp_path: Path, limits: Callable[..., None], changes: dict[str, int], told: str
) -> None:
    limits(**changes)

    with pytest.raises(errors.ConversionOverLimit, match=told):
        converted({"net.pth": saved({"a": torch.ones(1)})}, tmp_path, [])


@pytest.mark.skipif(sys.platform != "linux", reason="has no /dev/full")
def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    content = saved({"a": torch.ones(1)})
    (source,) = job_of({"net.pth": content}).checkpoints
    staged = tmp_path / "checkpoint"
    staged.write_bytes(content)

    with pytest.raises(OSError, match="No space left"):
        convert.convert_one(source, staged, Path("/dev/full"), lambda _: None)


# ── the process ──────────────────────────────────────────────────────────────────────────────

CONFINED = """
import json, os, socket, subprocess, sys
from pathlib import Path
from service.compute.ingest import confinement
from service.compute.ingest.confinement import Limits

checkpoint = Path(sys.argv[1])
kernel = sys.argv[2] == "kernel"
guards = [kernel and confinement.leave_network(), None]
confinement.limit(Limits(64 * 2**20, 2**30, 1000, 60, 60))
guards[1] = kernel and confinement.leave_files(checkpoint)
if sys.argv[2] == "hook":
    confinement.refuse_events()
secret, other = checkpoint.with_name("secret"), checkpoint.with_name("other")

def tried(what):
    try:
        what()
    except BaseException as error:
        return type(error).__name__
    return "done"

print(json.dumps({
    "guards": guards,
    "environment": sorted(os.environ),
    "memory": tried(lambda: bytearray(2**28)),
    "read": tried(checkpoint.read_bytes),
    "secret": tried(secret.read_bytes),
    "write": tried(lambda: other.write_bytes(b"x")),
    "append": tried(lambda: checkpoint.open("ab")),
    "remove": tried(secret.unlink),
    "connect": tried(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[3])), 5)),
    "run": tried(lambda: subprocess.run(["/bin/true"], check=True)),
    "fork": tried(os.fork) if sys.argv[2] == "hook" else None,
    "exec": tried(lambda: os.execv("/bin/true", ["true"])) if sys.argv[2] == "hook" else None,
}))
"""


def tries(folder: Path, guard: str) -> dict[str, str]:
    """What a process confined in one way could do, by what it tried."""
    checkpoint = folder / "checkpoint"
    checkpoint.write_bytes(b"")
    (folder / "secret").write_bytes(b"")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        ended = subprocess.run(  # noqa: S603 - the program above
            [sys.executable, "-P", "-c", CONFINED, str(checkpoint), guard, port],
            env=convert.environment(),
            stdout=subprocess.PIPE,
            check=True,
            cwd="/",
        )
    did: dict[str, str] = json.loads(ended.stdout)
    return did


def test_the_audit_hook_alone_refuses_what_no_conversion_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHBAY_TOKEN", "a secret")

    did = tries(tmp_path, "hook")

    refused = ("write", "append", "remove", "connect", "run", "fork", "exec")
    assert {did[what] for what in refused} == {"PermissionError"}
    assert did["memory"] == "MemoryError"
    assert did["read"] == "done"
    assert "PATCHBAY_TOKEN" not in did["environment"]


def test_the_kernel_alone_leaves_a_converter_the_checkpoint(tmp_path: Path) -> None:
    did = tries(tmp_path, "kernel")

    if not all(did["guards"]):
        pytest.skip("this kernel does not permit it")
    assert {did[what] for what in ("secret", "write", "append", "remove")} == {"PermissionError"}
    assert did["connect"] in {"OSError", "PermissionError"}
    assert did["read"] == "done"


PARENT = """
import sys, time
from pathlib import Path
from service.compute.ingest import convert
from service.compute.jobs import CheckpointInput
from service.layout.checkpoint import Form

folder = Path(sys.argv[1])
source = CheckpointInput("net.pth", "net.safetensors", "", 1)
limits = convert.limits_for(Form.ZIP, 1)
with convert._started(source, folder / "fifo", folder / "out", limits) as (process, _):
    print(process.pid, flush=True)
    time.sleep(600)
"""


def test_a_converter_ends_with_its_parent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # opening it takes for ever
    command = [sys.executable, "-P", "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(  # noqa: S603 - the program above
        command, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        converter = psutil.Process(int(parent.stdout.readline()))
        give_up_at = time.monotonic() + 60
        while converter.num_threads() < 2:  # the one that watches for the end of the parent
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
        parent.kill()

    psutil.wait_procs([converter], timeout=10)
    assert not converter.is_running()
