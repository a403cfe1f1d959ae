"""Opening patch files: what is held to a digest, and when."""

from decimal import Decimal

import pytest
import torch

from service import errors
from service.compute import opening, sources
from service.compute.jobs import PatchInput
from service.compute.opening import open_patch
from service.compute.sources import PatchSource, unpack
from service.layout.patchfile import SignatureTensor
from service.names import Digest, digest_of
from service.tensors.selection import All
from tests.pairs import Bench, Three

CPU = torch.device("cpu")


@pytest.fixture
def content(three: Three, bench: Bench) -> bytes:
    opening._checked.cache_clear()
    return bench.extract(three.trio, layers=All()).content


def opened(content: bytes, digest: Digest | None = None) -> PatchSource:
    file = PatchInput(digest or digest_of(content), len(content), "a/b@1", Decimal(1))
    return open_patch(file, lambda _: lambda start, end: content[start:end])


def decode_all(source: PatchSource) -> list[torch.Tensor]:
    return [unpack(source, t, CPU).part(0, t.numel) for t in source.patch.tensors]


def test_a_small_file_is_held_to_its_digest_each_time(content: bytes) -> None:
    decode_all(opened(content))
    damaged = bytearray(content)
    damaged[opened(content).patch.tensors[0].codes.start] ^= 1

    with pytest.raises(errors.DamagedBlob):
        opened(bytes(damaged), digest_of(content))


def test_its_tensors_are_held_to_theirs_the_first_time(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    real = sources._check

    def counted(tensor: SignatureTensor, digest: str) -> None:
        checked.append(tensor.name)
        real(tensor, digest)

    monkeypatch.setattr(sources, "_check", counted)

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
