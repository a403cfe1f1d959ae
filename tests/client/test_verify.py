from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from service import errors
from service.client import verify
from service.names import Digest, digest_of

BASE = {"a": np.arange(9, dtype=np.float32), "b": np.ones(4, dtype=np.float32)}
OVERLAY = {"a": np.full(9, 7, dtype=np.float32)}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    found = tmp_path / "file", tmp_path / "overlay", tmp_path / "undo"
    for path, tensors in zip(found, (BASE | OVERLAY, OVERLAY, {"a": BASE["a"]}), strict=True):
        save_file(tensors, path)
    return found


@pytest.fixture
def base_digest() -> Digest:
    return digest_of(save(BASE))


def test_a_spliced_file_is_proven_by_its_overlay_and_undo(
    files: tuple[Path, Path, Path], base_digest: Digest
) -> None:
    verify.patched_file(*files, base_digest)


@pytest.mark.parametrize("offset", [-1, -20, -30])
def test_one_wrong_byte_anywhere_is_found(
    files: tuple[Path, Path, Path], base_digest: Digest, offset: int
) -> None:
    content = bytearray(files[0].read_bytes())
    content[offset] ^= 1
    files[0].write_bytes(content)

    with pytest.raises(errors.NotVerified):
        verify.patched_file(*files, base_digest)


def test_an_undo_of_another_base_is_found(
    files: tuple[Path, Path, Path], base_digest: Digest
) -> None:
    save_file({"a": BASE["a"] + 1}, files[2])

    with pytest.raises(errors.NotVerified, match="taken off"):
        verify.patched_file(*files, base_digest)
