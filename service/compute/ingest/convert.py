"""Have checkpoints converted, one after the other, and believe nothing of what comes back."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from service import errors
from service.compute.ingest.confinement import Limits
from service.compute.ingest.converter import Request
from service.compute.jobs import (
    CheckpointInput,
    ConvertedFile,
    ConvertJob,
    ConvertMade,
    IndexInput,
    MadeFile,
    MadeIndex,
)
from service.layout import checkpoint, fileset
from service.layout.checkpoint import Form
from service.layout.disk import reader
from service.layout.header import Header, Read, read_header
from service.names import Digest

MIB: Final = 2**20
PRIVATE_BYTES: Final = 512 * MIB
"""For what a pickle builds and for pieces of tensors; a checkpoint's size does not come into it."""
GROWTH: Final = 4
"""Views that share elements are written out each; more than this times the checkpoint is a bomb."""
SPARE_BYTES: Final = 64 * MIB
CPU_BYTES_PER_S: Final = 20 * MIB
WALL_BYTES_PER_S: Final = 4 * MIB
CPU_S: Final = 60
WALL_S: Final = 300
MAX_LINE_BYTES: Final = 64 * MIB
PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
"""All of the environment that a converter sees: where Python and its libraries are."""

_COPY_BYTES: Final = 8 * MIB
_REFUSALS: Final = {
    kind.slug: kind
    for kind in (
        errors.BadCheckpoint,
        errors.UnsafeCheckpoint,
        errors.UnsupportedFormat,
        errors.ConversionOverLimit,
    )
}

Told = Callable[[float, str], None]


class ConverterFailed(Exception):
    """The converter ended in a way that no checkpoint should bring about."""


def convert(
    job: ConvertJob, open_read: Callable[[Digest], Read], scratch: Path, progress: Told
) -> ConvertMade:
    """Convert a version's checkpoints; files that are made lie in `scratch`.

    Raises `BadCheckpoint`, `UnsafeCheckpoint`, `UnsupportedFormat`, `ConversionOverLimit`,
    `BadFileSet`, `DamagedBlob`.
    """
    whole = sum(each.size_bytes for each in job.checkpoints) or 1
    done, made = 0, []
    for number, each in enumerate(job.checkpoints):

        def told(share: float, each: CheckpointInput = each, done: int = done) -> None:
            progress((done + share * each.size_bytes) / whole, f"converting {each.path}")

        told(0.0)
        staged = scratch / "checkpoint"
        stage(open_read(each.digest), each, staged, lambda share, told=told: told(share / 4))  # type: ignore[misc]
        out = scratch / f"weights-{number}"
        made.append(convert_one(each, staged, out, lambda share, told=told: told(0.25 + share / 2)))  # type: ignore[misc]
        staged.unlink()
        done += each.size_bytes
    indexes = [_index(each, made, open_read, scratch) for each in job.indexes]
    return ConvertMade(tuple(made), tuple(indexes))


def stage(read: Read, source: CheckpointInput, into: Path, told: Callable[[float], None]) -> None:
    """Copy a checkpoint to where a converter can open it; raises `DamagedBlob`."""
    sha256 = hashlib.sha256()
    with into.open("wb") as file:
        for start in range(0, source.size_bytes, _COPY_BYTES):
            content = read(start, min(start + _COPY_BYTES, source.size_bytes))
            sha256.update(content)
            file.write(content)
            told(start / source.size_bytes)
    if f"sha256:{sha256.hexdigest()}" != source.digest:
        raise errors.DamagedBlob(source.digest)


def convert_one(
    source: CheckpointInput, staged: Path, out: Path, told: Callable[[float], None]
) -> ConvertedFile:
    """Convert the checkpoint `staged` into the safetensors file `out`."""
    with staged.open("rb") as file:
        form = checkpoint.form_of(file.read(checkpoint.START_BYTES), source.path)
    said = _said(source, staged, out, limits_for(form, source.size_bytes), told)
    size_bytes = out.stat().st_size
    with out.open("rb") as file:
        header = read_header(reader(file), size_bytes, source.target)
        file.seek(0)
        digest = Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
    return _checked(source, MadeFile(out, digest, size_bytes), header, said)


def limits_for(form: Form, size_bytes: int) -> Limits:
    """What a converter may use for a checkpoint of this form and size."""
    loaded_bytes = size_bytes if form is Form.LEGACY else 0
    return Limits(
        private_bytes=PRIVATE_BYTES + loaded_bytes,
        mapped_bytes=2 * size_bytes + SPARE_BYTES,
        file_bytes=GROWTH * size_bytes + SPARE_BYTES,
        cpu_s=CPU_S + size_bytes // CPU_BYTES_PER_S,
        wall_s=WALL_S + size_bytes // WALL_BYTES_PER_S,
    )


def _checked(
    source: CheckpointInput, file: MadeFile, header: Header, said: Mapping[str, Any]
) -> ConvertedFile:
    """What was converted, where what the converter says of it holds together."""
    match said:
        case {
            "order": [*order],
            "tied": dict() as tied,
            "left_out": [*left_out],
            "guards": [*guards],
        }:
            texts = [*order, *tied, *tied.values(), *left_out, *guards]
        case _:
            raise ConverterFailed(f"it said {said!r:.200}")
    names = set(header.names)
    if not all(isinstance(text, str) for text in texts) or len(order) != len(names):
        raise ConverterFailed("it gave names that are no text, or one twice")
    if set(order) != names or not names.issuperset(tied.values()) or names & set(tied):
        raise ConverterFailed("it gave names that its file does not bear out")
    return ConvertedFile(
        source=source.path,
        source_digest=source.digest,
        path=source.target,
        file=file,
        header=header.raw,
        order=tuple(order),
        tied=dict(tied),
        left_out=tuple(left_out),
        guards=tuple(guards),
    )


# ── the process ──────────────────────────────────────────────────────────────────────────────


def _said(
    source: CheckpointInput, staged: Path, out: Path, limits: Limits, told: Callable[[float], None]
) -> Mapping[str, Any]:
    """Run a converter to its end; answers its last word."""
    with _started(source, staged, out, limits) as (process, voice):
        overdue = threading.Event()

        def end() -> None:
            overdue.set()
            process.kill()

        timer = threading.Timer(limits.wall_s, end)
        timer.daemon = True
        timer.start()
        try:
            last = _listen(voice, told)
            status = process.wait()
        finally:
            timer.cancel()
    match last:
        case {"done": dict() as done} if status == 0:
            return done
        case {"refused": str() as slug, "fields": dict() as fields} if slug in _REFUSALS:
            raise _REFUSALS[slug](**fields)
        case {"errno": int() as number}:
            raise OSError(number, os.strerror(number), str(out))
        case {"crashed": str() as trace}:
            raise ConverterFailed(trace)
        case _:
            pass
    if overdue.is_set():
        raise errors.ConversionOverLimit(source.path, f"{limits.wall_s} s")
    if status == -signal.SIGXCPU:
        raise errors.ConversionOverLimit(source.path, f"{limits.cpu_s} s of one processor")
    raise errors.BadCheckpoint(
        source.path, f"the converter broke down over it ({_how(status)}); the file is damaged"
    )


@contextlib.contextmanager
def _started(
    source: CheckpointInput, staged: Path, out: Path, limits: Limits
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A converter and what it says; it is gone at the end of the block."""
    with contextlib.ExitStack() as opened:
        heard, voice = os.pipe()
        hears = opened.enter_context(os.fdopen(heard, "rb"))
        lifeline, hold = os.pipe()
        opened.callback(os.close, hold)
        try:
            with out.open("wb") as file:
                request = Request(
                    str(staged), source.path, os.getpid(), file.fileno(), voice, lifeline, limits
                )
                process = subprocess.Popen(  # noqa: S603 - a module of ours
                    [sys.executable, "-P", "-m", _MODULE, request.to_json()],
                    pass_fds=[file.fileno(), voice, lifeline],
                    env=environment(),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
        finally:
            os.close(voice)
            os.close(lifeline)
        opened.callback(process.wait)
        opened.callback(process.kill)
        yield process, hears


_MODULE: Final = "service.compute.ingest.converter"


def environment() -> dict[str, str]:
    """The environment of a converter: no secret of ours, one thread, text in UTF-8."""
    own = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**own, **single, "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _listen(voice: IO[bytes], told: Callable[[float], None]) -> Any:
    """Hear a converter out; answers the last thing it said that is no progress."""
    last: Any = None
    while line := voice.readline(MAX_LINE_BYTES):
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return None  # killed in the middle of a word, or not itself any more
        match said:
            case {"progress": float() | int() as share} if 0 <= share <= 1:
                told(share)
            case _:
                last = said
    return last


def _how(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"


# ── indexes ──────────────────────────────────────────────────────────────────────────────────


def _index(
    index: IndexInput,
    made: list[ConvertedFile],
    open_read: Callable[[Digest], Read],
    scratch: Path,
) -> MadeIndex:
    """Write the index of converted shards, in place of that of the checkpoints.

    Raises `BadFileSet` where that does not agree with what the checkpoints hold.
    """
    weight_map, metadata = fileset.read_index(
        index.path, open_read(index.digest)(0, index.size_bytes)
    )
    by_source = {each.source: each for each in made}
    held = {each.source: {*each.order, *each.tied} for each in made}
    fileset.check_index(index.path, weight_map, held)
    shards = [by_source[path] for path in sorted(set(weight_map.values()))]
    text = json.dumps(
        {
            "metadata": {**metadata, "total_size": sum(_tensor_bytes(each) for each in shards)},
            "weight_map": {
                name: each.path.rpartition("/")[2] for each in shards for name in sorted(each.order)
            },
        },
        indent=2,
        sort_keys=True,
    ).encode()
    path = scratch / f"index-{index.digest.removeprefix('sha256:')}"
    path.write_bytes(text + b"\n")
    digest = Digest("sha256:" + hashlib.sha256(text + b"\n").hexdigest())
    return MadeIndex(index.target, MadeFile(path, digest, len(text) + 1))


def _tensor_bytes(made: ConvertedFile) -> int:
    return made.file.size_bytes - len(made.header)
