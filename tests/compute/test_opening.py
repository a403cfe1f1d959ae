"""Opening patch files: what is held to a digest, and when."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
import torch

from service import errors
from service.compute import opening, sources
from service.compute.jobs import PatchInput
from service.compute.opening import open_patch
from service.compute.sources import PatchSource, unpack
from service.layout.disk import reader
from service.layout.header import Read
from service.layout.patchfile import SignatureTensor
from service.names import Digest, digest_of
from service.tensors.selection import All
from tests.pairs import Bench, Three

CPU = torch.device("cpu")


@pytest.fixture
def content(three: Three, bench: Bench) -> bytes:
    opening._checked.cache_clear()
    opening._KEPT.clear()
    return bench.extract(three.trio, layers=All()).content


def opened(content: bytes, digest: Digest | None = None) -> PatchSource:
    file = PatchInput(digest or digest_of(content), len(content), "a/b@1", Decimal(1))
    return open_patch(file, lambda _: lambda start, end: content[start:end])


def decode_all(source: PatchSource) -> list[torch.Tensor]:
    return [unpack(source, t, CPU).part(0, t.numel) for t in source.patch.tensors]


def test_a_small_file_is_held_to_its_digest_each_time(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "KEPT_BYTES", 0)
    decode_all(opened(content))
    damaged = bytearray(content)
    damaged[opened(content).patch.tensors[0].codes.start] ^= 1

    with pytest.raises(errors.DamagedBlob):
        opened(bytes(damaged), digest_of(content))


def test_its_tensors_are_held_to_theirs_the_first_time(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    real = sources.check

    def counted(tensor: SignatureTensor, digest: str) -> None:
        checked.append(tensor.name)
        real(tensor, digest)

    monkeypatch.setattr(sources, "check", counted)

    first, second = decode_all(opened(content)), decode_all(opened(content))

    assert len(checked) == len(first)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_file_whose_index_lies_is_refused_the_first_time(content: bytes) -> None:
    source = opened(content)
    place = source.patch.tensors[0].halves.start
    lying = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    with pytest.raises(errors.NotAPatchFile):
        decode_all(opened(lying))


def test_of_a_large_file_each_tensor_is_held_to_its_digest_each_time(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "HELD_BYTES", 100)

    assert opened(content).checked is None


def test_a_file_that_the_worker_checked_before_is_not_checked_again(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr(sources, "check", never)
    file = PatchInput(digest_of(content), len(content), "a/b@1", Decimal(1), is_checked=True)

    assert decode_all(open_patch(file, lambda _: lambda start, end: content[start:end]))


def test_a_file_on_a_disk_is_held_to_its_digest_and_not_in_memory(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "HELD_BYTES", 100)
    monkeypatch.setattr(opening, "MIB", 1000)
    path = tmp_path / "patch"
    path.write_bytes(content)

    with path.open("rb") as file:
        expected = decode_all(opened(content))
        wanted = PatchInput(digest_of(content), len(content), "a/b@1", Decimal(1))
        source = open_patch(wanted, lambda _: reader(file))
        assert source.checked is not None
        found = decode_all(source)
        with pytest.raises(errors.DamagedBlob):
            open_patch(replace(wanted, digest=digest_of(b"other")), lambda _: reader(file))

    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_what_was_built_with_lately_is_kept_and_not_read_again(content: bytes) -> None:
    first = decode_all(opened(content))
    known = opening._KEPT.get(digest_of(content))
    file = PatchInput(digest_of(content), len(content), "a/b@1", Decimal(1))

    def gone(_: Digest) -> Read:
        raise errors.BlobNotFound(digest_of(content))

    second = decode_all(open_patch(file, gone))

    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert known is not None
    held = [each.codes.nbytes + each.halves.nbytes for each in known.unpacked.values()]
    assert known.size_bytes == sum(held)


def test_what_is_kept_in_part_is_held_to_its_digest_when_it_is_read_on(content: bytes) -> None:
    one, other, *_ = opened(content).patch.tensors
    unpack(opened(content), one, CPU)
    lying = PatchInput(digest_of(content), len(content), "a/b@1", Decimal(1))

    source = open_patch(lying, lambda _: lambda start, end: b"x" * (end - start))

    assert unpack(source, one, CPU) is unpack(source, one, CPU)
    with pytest.raises(errors.DamagedBlob):
        unpack(source, other, CPU)


def test_only_so_much_is_kept(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    decode_all(opened(content))
    known = opening._KEPT.get(digest_of(content))
    assert known is not None
    monkeypatch.setattr(opening, "KEPT_BYTES", known.size_bytes)

    opening._KEPT.put(digest_of(b"another"), opened(content).patch)

    assert opening._KEPT.get(digest_of(content)) is None
    assert opening._KEPT.get(digest_of(b"another")) is not None
