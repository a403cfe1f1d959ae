from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.cli.exits import Exit
from service.client.client import Client
from service.layout.pieces import file_digest
from service.names import Digest
from tests.cli.conftest import Command
from tests.service_process import ServiceProcess


def _stored(served: ServiceProcess, digest: Digest) -> Path:
    name = digest.removeprefix("sha256:")
    return served.home / "blobs" / "sha256" / name[:2] / name


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"conv.weight": np.arange(8, dtype=np.float32).reshape(2, 4)}, path)
    return path


def test_a_damaged_base_is_found_refused_and_mended_by_another_push(
    patchbay: Command, served: ServiceProcess, weights: Path, tmp_path: Path
) -> None:
    patchbay("push", "kept/net", weights)
    digest, content = file_digest(weights), weights.read_bytes()
    _stored(served, digest).chmod(0o640)
    _stored(served, digest).write_bytes(content[:-1] + b"?")

    assert patchbay("verify", digest, "--rate", "1").code == Exit.NOT_VERIFIED
    refused = patchbay("pull", "kept/net", "-o", tmp_path / "out")
    again = patchbay("push", "kept/net", weights)
    pulled = patchbay("pull", "kept/net", "-o", tmp_path / "out")

    assert refused.code != 0
    assert "is damaged in the store" in refused.err
    assert (again.code, pulled.code, patchbay("verify", digest).code) == (Exit.OK,) * 3
    assert (tmp_path / "out").read_bytes() == content


def test_what_nothing_needs_is_counted_and_then_removed(
    patchbay: Command, served: ServiceProcess, client: Client, weights: Path, tmp_path: Path
) -> None:
    patchbay("push", "gone/net", weights)
    litter = tmp_path / "litter"
    litter.write_bytes(b"nobody refers to this")
    digest = client.blobs.upload(litter).digest

    spared = patchbay("gc").json
    counted = patchbay("gc", "--dry-run", "--older-than", "0").json
    removed = patchbay("gc", "--older-than", "0").json

    assert digest in counted["examples"]
    assert digest not in spared["examples"]
    assert removed["count"] >= 1
    assert not _stored(served, Digest(digest)).exists()
    assert patchbay("pull", "gone/net", "-o", tmp_path / "out").code == Exit.OK


def test_a_blob_that_is_not_known_is_named(patchbay: Command) -> None:
    unknown = "sha256:" + "0" * 64

    ended = patchbay("verify", unknown)

    assert ended.code == Exit.NOT_FOUND
    assert unknown in ended.err
