"""Read a checkpoint with `torch.load(weights_only=True)`, and hold it to what its archive says."""

import mmap
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor

from service import errors
from service.compute.ingest import statedict
from service.compute.ingest.statedict import StateDict
from service.layout import checkpoint
from service.layout.checkpoint import Archive, Form
from service.layout.strict_json import shown

DTYPES: Final[Mapping[torch.dtype, str]] = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
}
"""Every dtype of torch that safetensors has, in the order in which the library sorts by them."""

_REFUSED_GLOBAL: Final = re.compile(r"GLOBAL (\S+) (?:was not an allowed|whose module)")
_NO_MEMORY: Final = re.compile(r"allocate memory|bad_alloc|out of memory", re.IGNORECASE)
_NAMED_GLOBALS: Final = 10


MAX_DIMENSIONS: Final = 64
"""Of numpy; no model has that many."""

_UNSIGNED: Final = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}

Bits = NDArray[np.unsignedinteger[Any]]
"""The elements of a tensor as numbers of their size; strided as the tensor is."""


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor to copy; `open` gives its elements, where it can as a view of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    open: Callable[[], Bits]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds: tensors in forward order, tied names, what was left out."""

    tensors: tuple[Source, ...]
    tied: Mapping[str, str]
    left_out: tuple[str, ...]


def read(path: Path, file: str) -> Checkpoint:
    """Read the checkpoint at `path`, called `file` by its publisher.

    Raises `BadCheckpoint`, `UnsafeCheckpoint`, `UnsupportedFormat`, `ConversionOverLimit`.
    """
    with path.open("rb") as opened:
        form = checkpoint.form_of(opened.read(checkpoint.START_BYTES), file)
        if form is Form.LEGACY:
            return _checkpoint(
                _load(path, file, None, "cpu"), file, lambda _, tensor: _bits(tensor)
            )
        archive = checkpoint.read_archive(opened, path.stat().st_size, file)
        found = _load(path, file, archive, "meta")
        return _checkpoint(found, file, _in_file(opened, archive, file))


def _load(path: Path, file: str, archive: Archive | None, device: str) -> StateDict:
    try:
        with warnings.catch_warnings(action="ignore"):  # what they warn of is refused
            loaded = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(str(error), path, file, archive) from error
    except MemoryError as error:
        raise errors.ConversionOverLimit(file, "the memory that a converter may use") from error
    except Exception as error:
        # A pickle of a stranger ends in whatever exception it likes.
        if _NO_MEMORY.search(str(error)):
            limit = "the memory that a converter may use"
            raise errors.ConversionOverLimit(file, limit) from error
        reason = f"torch cannot read it ({type(error).__name__}: {_line(str(error))})"
        raise errors.BadCheckpoint(file, reason) from error
    return statedict.find(loaded, file)


def _refusal(message: str, path: Path, file: str, archive: Archive | None) -> errors.PatchbayError:
    """Say by name what a checkpoint would have imported."""
    found = checkpoint.globals_of(archive.pickle if archive else path.read_bytes()[: 2**24])
    told = _REFUSED_GLOBAL.search(message)
    names = [name for name in found if told and f".{name}".endswith(f".{told[1]}")]
    names += [name for name in checkpoint.strange(found) if name not in names]
    if not names and told:
        names = [told[1]]
    if names:
        return errors.UnsafeCheckpoint(file, [_line(name) for name in names[:_NAMED_GLOBALS]])
    reason = _line(message.rpartition("WeightsUnpickler error:")[2].strip())
    return errors.BadCheckpoint(
        file, f"torch cannot read its pickle ({reason}); save it again with torch.save's defaults"
    )


def _line(text: str) -> str:
    return shown(text.strip().partition("\n")[0]).strip("'\"")


def _checkpoint(found: StateDict, file: str, opened: Callable[[str, Tensor], Bits]) -> Checkpoint:
    for name, tensor in found.tensors.items():
        _check(name, tensor, file)
    kept, tied = statedict.untied(found.tensors, file)
    sources = tuple(
        Source(name, DTYPES[tensor.dtype], tuple(tensor.shape), partial(opened, name, tensor))
        for name, tensor in kept.items()
    )
    return Checkpoint(sources, tied, found.left_out)


def _check(name: str, tensor: Tensor, file: str) -> None:
    kind: Any = type(tensor)
    if kind not in {Tensor, torch.nn.Parameter}:
        _refuse(file, name, f"of the kind {kind.__name__}")
    if tensor.layout is not torch.strided or tensor.is_nested:
        _refuse(file, name, f"{str(tensor.layout).removeprefix('torch.')}; make it dense first")
    if tensor.is_quantized:
        _refuse(file, name, "quantized; dequantize it first")
    if tensor.is_conj() or tensor.is_neg():
        _refuse(file, name, "a conjugated or negated view; resolve it first")
    if tensor.dtype not in DTYPES:
        _refuse(file, name, f"of {tensor.dtype}, which safetensors does not have")
    if tensor.ndim > MAX_DIMENSIONS:
        _refuse(file, name, f"of {tensor.ndim} dimensions, over the limit of {MAX_DIMENSIONS}")


def _refuse(file: str, name: str, what: str) -> NoReturn:
    raise errors.BadCheckpoint(file, f"tensor {name!r:.200} is {what}")


# ── elements ─────────────────────────────────────────────────────────────────────────────────


def _bits(tensor: Tensor) -> Bits:
    """The elements of a tensor in memory."""
    found: Bits = tensor.detach().view(_UNSIGNED[tensor.itemsize]).numpy()
    return found


def _in_file(opened: BinaryIO, archive: Archive, file: str) -> Callable[[str, Tensor], Bits]:
    """How a tensor on the meta device is seen as the bytes of its record in a map of the file."""
    whole = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)

    def bits(name: str, tensor: Tensor) -> Bits:
        storage, size = tensor.untyped_storage(), tensor.itemsize
        start, size_bytes = getattr(storage, "_checkpoint_offset", None), storage.nbytes()
        if start is None:
            _refuse(file, name, "without data")
        if (start, size_bytes) not in archive.storages:
            _refuse(file, name, f"said to lie in {size_bytes} bytes, as no record of the archive")
        if not tensor.numel():
            return np.empty(tuple(tensor.shape), f"u{size}")
        last = tensor.storage_offset() + sum(
            (extent - 1) * step for extent, step in zip(tensor.shape, tensor.stride(), strict=True)
        )
        if (
            tensor.storage_offset() < 0
            or min(tensor.stride(), default=0) < 0
            or ((last + 1) * size > size_bytes)
        ):
            _refuse(file, name, f"said to go beyond its record of {size_bytes} bytes")
        record: Bits = np.frombuffer(whole, f"u{size}", size_bytes // size, start)
        return as_strided(
            record[tensor.storage_offset() :],
            tuple(tensor.shape),
            tuple(step * size for step in tensor.stride()),
            writeable=False,
        )

    return bits
