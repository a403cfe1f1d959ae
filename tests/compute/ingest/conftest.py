"""Checkpoints of every form, and how to have them converted."""

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from service.compute.ingest import work

GIB = 2**30
FILE = "net.pth"


@dataclass(frozen=True)
class Converted:
    """What came of a checkpoint: the safetensors file, and what is said of it."""

    content: bytes
    order: list[str]
    tied: dict[str, str]
    left_out: list[str]


Convert = Callable[..., Converted]


def saved(value: object, **options: Any) -> bytes:
    """What `torch.save` writes."""
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def legacy(value: object) -> bytes:
    """What `torch.save` wrote before release 1.6."""
    return saved(value, _use_new_zipfile_serialization=False)


def records(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Converts in this very process; what a converter adds is tested beside it."""

    def converted(content: bytes, limit_bytes: int = GIB) -> Converted:
        path, out = tmp_path / "checkpoint", tmp_path / "out"
        path.write_bytes(content)
        with out.open("wb") as file:
            found = work.convert(path, FILE, file, limit_bytes, lambda _: None)
        return Converted(out.read_bytes(), **found)

    return converted
