"""Checkpoints that would do more than hold tensors, or claim what is not there."""

import contextlib
import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from service import errors
from tests.compute.ingest.conftest import FILE, Convert, legacy, records, saved, zipped

MARK = "PATCHBAY_TEST_RAN"
GOOD = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3)}


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Restored:
    """Pickles as an object that is given a state."""

    def __init__(self) -> None:
        self.command = "touch"

    def __setstate__(self, state: object) -> None:
        raise AssertionError("a pickle was carried out")


def in_archive(pickled: bytes) -> bytes:
    """An archive as torch.save writes it, with another pickle."""
    return zipped({**records(saved(GOOD)), "archive/data.pkl": pickled})


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A file that is there once some code has run."""
    return tmp_path / "ran"


@pytest.fixture(params=["system", "eval", "nested", "popen", "setstate", "module"])
def attack(request: pytest.FixtureRequest, trap: Path) -> tuple[object, str]:
    """A value that runs something when it is unpickled, and the name of what it runs."""
    touch = f"touch {trap}"
    return {
        "system": (Runs(os.system, touch), "posix.system"),
        "eval": (Runs(eval, f"open({str(trap)!r}, 'w')"), "builtins.eval"),
        "nested": ({"a": [(Runs(getattr, Runs(__import__, "os"), "system"),)]}, "builtins.getattr"),
        "popen": (Runs(os.popen, touch), "os.popen"),
        "setstate": (Restored(), f"{__name__}.Restored"),
        "module": (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    }[request.param]


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_would_run_is_refused_by_name_and_does_not_run(
    convert: Convert, trap: Path, attack: tuple[object, str], protocol: int
) -> None:
    value, name = attack

    with pytest.raises(errors.UnsafeCheckpoint, match=name) as caught:
        convert(saved({**GOOD, "x": value}, pickle_protocol=protocol))

    assert not trap.exists()
    assert FILE in str(caught.value)
    assert "torch.save(model.state_dict()" in str(caught.value)


def test_an_old_checkpoint_is_held_to_the_same(
    convert: Convert, trap: Path, attack: tuple[object, str]
) -> None:
    value, name = attack

    with pytest.raises(errors.UnsafeCheckpoint, match=name.rpartition(".")[2]):
        convert(legacy({**GOOD, "x": value}))

    assert not trap.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"cposix\nsystem\n(S'true'\ntR.",
        b"(S'true'\niposix\nsystem\n.",
        b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94h\x00h\x01\x93.",
        b"\x80\x02ctorch.hub\nload\n)R.",
    ],
)
def test_a_pickle_written_by_hand_is_refused_by_name(convert: Convert, pickled: bytes) -> None:
    with pytest.raises(errors.UnsafeCheckpoint, match=r"system|eval|load"):
        convert(in_archive(pickled))


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b".",
        b"\x80\x02",
        b"\x80\x02}h\x07.",
        b"\x80\x02((((((((((.",
        b"\x80\x02}Q.",
        b"\x80\x02X\xff\xff\xff\xffshort.",
        b"\x80\x02ccollections\nOrderedDict\n)R}b" * 3,
        pickle.dumps(GOOD["a.bias"].tolist(), protocol=5),
        b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    ],
)
def test_a_pickle_that_makes_no_sense_is_refused(convert: Convert, pickled: bytes) -> None:
    with pytest.raises((errors.BadCheckpoint, errors.UnsafeCheckpoint), match=FILE):
        convert(in_archive(pickled))


def test_a_pickle_of_another_protocol_is_refused_with_what_to_do(convert: Convert) -> None:
    with pytest.raises(errors.BadCheckpoint, match=r"torch\.save's defaults"):
        convert(saved(GOOD, pickle_protocol=4))


# ── archives ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_an_archive_that_was_cut_off_is_refused(convert: Convert, share: float) -> None:
    content = saved(GOOD)

    with pytest.raises(errors.BadCheckpoint, match="damaged or cut off"):
        convert(content[: int(share * len(content))])


def test_a_compressed_archive_is_a_bomb(convert: Convert) -> None:
    bomb = zipped({**records(saved(GOOD)), "archive/data/0": bytes(10**7)}, compression=8)

    with pytest.raises(errors.BadCheckpoint, match="is compressed; save it again"):
        convert(bomb)


def test_records_of_an_archive_that_overlap_are_refused(convert: Convert) -> None:
    # One record of a megabyte, that a hundred entries of the directory share.
    content = bytearray(zipped({"archive/data.pkl": b"", "archive/data/0": bytes(2**20)}))
    end = content.rindex(b"PK\x05\x06")
    start = content.index(b"PK\x01\x02")
    entry = content[content.index(b"PK\x01\x02", start + 1) : end]
    entries = [entry.replace(b"data/0", b"d/%04d" % n) for n in range(100)]
    directory = bytes(content[start:end]) + b"".join(entries)
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 102, 102, len(directory), start, 0)

    with pytest.raises(errors.BadCheckpoint, match="overlap"):
        convert(bytes(content[:start]) + directory + tail)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (b"K\x0ctq", b"K\x0btq", "as no record"),  # the storage's elements: fewer
        (b"K\x0ctq", b"M\xff\xfftq", "as no record"),  # more than there are
        (b"K\x0ctq", b"\x8a\x07\xff\xff\xff\xff\xff\xff\x0ftq", "."),  # 2^59
        (b"K\x03K\x04\x86", b"K\x04K\x04\x86", "beyond its record|as no record"),  # the shape
        (b"K\x04K\x01\x86", b"K\x09K\x01\x86", "beyond its record|as no record"),  # the stride
        (b"QK\x00K\x03K\x04", b"QK\x01K\x03K\x04", "beyond its record|as no record"),  # the offset
        (b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x007", "."),  # a record that is not there
    ],
)
def test_a_claim_that_the_archive_does_not_bear_out_is_refused(
    convert: Convert, before: bytes, after: bytes, told: str
) -> None:
    pickled = records(saved(GOOD))["archive/data.pkl"]
    assert before in pickled

    with pytest.raises((errors.BadCheckpoint, errors.ConversionOverLimit), match=told):
        convert(in_archive(pickled.replace(before, after, 1)))


def test_few_elements_that_unfold_into_many_are_refused(convert: Convert) -> None:
    bomb = {"w": torch.ones(1).expand(10**6, 10**6)}

    with pytest.raises(errors.ConversionOverLimit, match="bytes of safetensors"):
        convert(saved(bomb))


def test_an_old_checkpoint_that_was_cut_off_is_refused(convert: Convert) -> None:
    content = legacy(GOOD)

    for end in (100, len(content) - 20):
        with pytest.raises(errors.BadCheckpoint, match="torch cannot read it"):
            convert(content[:end])


PICKLE = records(saved(GOOD))["archive/data.pkl"]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    of=st.sampled_from([saved(GOOD), legacy(GOOD), PICKLE]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_whatever_was_changed_is_converted_or_refused(
    convert: Convert, of: bytes, changes: list[tuple[float, int]]
) -> None:
    content = bytearray(of)
    for share, value in changes:
        content[int(share * len(content))] = value

    with contextlib.suppress(errors.Invalid, errors.TooLarge):
        convert(in_archive(bytes(content)) if of == PICKLE else bytes(content))


# ── other formats ────────────────────────────────────────────────────────────────────────────


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    return out.getvalue()


def numpy_archive() -> bytes:
    out = io.BytesIO()
    np.savez(out, weight=np.ones(3))
    return out.getvalue()


OTHER = {
    "tar": (tarred(), "tar archive"),
    "script": (zipped({"net/constants.pkl": b"", "net/data.pkl": b""}), "TorchScript"),
    "exported": (zipped({"net/archive_format": b"pt2"}), "exported PyTorch program"),
    "zip": (zipped({"config.json": b"{}"}), "torch.save did not write"),
    "npz": (numpy_archive(), "NumPy archive"),
    "pickle": (pickle.dumps({"a": 1}), "Python pickle"),
    "gguf": (b"GGUF" + bytes(600), "GGUF"),
    "onnx": (b"\x08\x07\x12\x07pytorch" + bytes(600), "ONNX"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(600), "HDF5"),
    "gzip": (b"\x1f\x8b\x08" + bytes(600), "gzip"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "safetensors": (save({"a": torch.ones(1)}), "ends in .safetensors"),
    "text": (b"hello", "not a PyTorch checkpoint"),
    "empty": (b"", "not a PyTorch checkpoint"),
}


@pytest.mark.parametrize("case", OTHER)
def test_another_format_is_refused_by_name_with_the_next_step(convert: Convert, case: str) -> None:
    content, told = OTHER[case]

    with pytest.raises(errors.UnsupportedFormat, match=told) as caught:
        convert(content)

    assert caught.value.file == FILE
    assert caught.value.advice


def test_numbers_the_other_way_round_are_refused(convert: Convert) -> None:
    with pytest.raises(errors.BadCheckpoint, match="little-endian"):
        convert(zipped({**records(saved(GOOD)), "archive/byteorder": b"big"}))
