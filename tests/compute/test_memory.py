"""Private memory is bounded by a few tensors, never by the model: a child process has a limit."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from service.layout import deflate, patchfile
from service.layout.codecs import Codec, Kind
from service.layout.patchfile import Notes, Packed
from service.names import TensorAddress
from tests.patchfiles import sealed

KERNELS = 40
SHAPE = (512, 1024)
SPARE_MIB = 96
"""The two models take 160 MiB, and the two walks read them twice."""

CHILD = """
import resource, sys
from pathlib import Path
import torch
from service.compute import extract
from service.compute.measure import ExtractOptions
from service.compute.pairing import Trio
from service.compute.sources import ModelFiles, WeightFile
from service.layout.disk import reader
from service.layout.header import read_header
from service.tensors.selection import All, Quality

folder, quality, spare = Path(sys.argv[1]), Quality(sys.argv[2]), int(sys.argv[3]) * 2**20

def model(side):
    files = {}
    for path in sorted(folder.glob(f"{side}-*.safetensors")):
        read = reader(path.open("rb"))
        files[path.name.removeprefix(side)] = WeightFile(
            read_header(read, path.stat().st_size), read)
    return ModelFiles(files, "sha256:" + "0" * 64)

torch.set_num_threads(2)
torch.ones(2**16).sum()
taken = next(int(line.split()[1]) for line in open("/proc/self/status") if "VmData" in line)
resource.setrlimit(resource.RLIMIT_DATA, (taken * 1024 + spare,) * 2)
extract.extract(
    Trio(model("clean"), model("robust"), None), ExtractOptions(layers=All(), quality=quality),
    folder / "patch", folder / "profile", device=torch.device("cpu"), progress=lambda done: None)
"""

VERIFY = """
import resource, sys
from pathlib import Path
import torch
from service.compute.verify import verify_patch
from service.layout.disk import reader

path, spare = Path(sys.argv[1]), int(sys.argv[2]) * 2**20
torch.set_num_threads(2)
torch.ones(2**16).sum()
taken = next(int(line.split()[1]) for line in open("/proc/self/status") if "VmData" in line)
resource.setrlimit(resource.RLIMIT_DATA, (taken * 1024 + spare,) * 2)
print(verify_patch(reader(path.open("rb")), path.stat().st_size, torch.device("cpu")).summary)
"""
CLAIMED = 3 * 2**24
"""Elements: 192 MiB once they are decoded, 16 MiB of codes, 2 MiB of a file."""


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of models in eight files each."""
    folder = tmp_path_factory.mktemp("sharded")
    clean = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    step = 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    for side in ("clean", "robust"):
        kernel = clean if side == "clean" else clean + step
        for shard in range(8):
            names = [f"layer{n}.weight" for n in range(shard, KERNELS, 8)]
            tensors = {name: kernel.roll(len(name), 0).contiguous() for name in names}
            save_file(tensors, folder / f"{side}-{shard}.safetensors")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA as Linux counts it")
@pytest.mark.parametrize("quality", ["standard", "exact"])
def test_a_sharded_pair_is_extracted_within_a_limit_below_its_size(
    sharded: Path, quality: str
) -> None:
    command = [sys.executable, "-c", CHILD, str(sharded), quality, str(SPARE_MIB)]

    done = subprocess.run(  # noqa: S603  # our own words
        command, capture_output=True, text=True, timeout=200, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert (sharded / "patch").stat().st_size > 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA as Linux counts it")
def test_a_small_file_that_decodes_to_a_large_tensor_is_verified_within_a_limit_below_that(
    tmp_path: Path,
) -> None:
    nothing = bytes([2 + 2 * 5 + 2 * 25]) * (CLAIMED // 3)
    stream = deflate.deflated(nothing)
    assert stream is not None
    zeros = hashlib.sha256()
    for _ in range(3 * 4):
        zeros.update(bytes(CLAIMED // 3))
    digest, address = zeros.hexdigest(), TensorAddress("m", "w")
    own = (Kind.ADDITIVE, Codec.FIVE, 0, 0.0, 1.0, digest, len(stream))
    tensor = Packed(address, (1, CLAIMED), *own)
    index = patchfile.compose_index([tensor], Notes())
    header = patchfile.compose_header([tensor], len(index))
    file = tmp_path / "zeros.rws.safetensors"
    file.write_bytes(sealed(header.raw + bytes(2) + stream + index, [tensor]))

    done = subprocess.run(  # noqa: S603  # our own words
        [sys.executable, "-c", VERIFY, str(file), str(SPARE_MIB)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert file.stat().st_size < 3 * 2**20
