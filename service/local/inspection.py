"""What a local file is: a patch file, or a weight file, with or without a patch in place."""

from pathlib import Path
from typing import Any

from service import errors
from service.layout import inplace, patchfile
from service.layout.disk import reader
from service.layout.header import Header, read_header
from service.layout.patchfile import PatchFile


def inspect(path: Path) -> dict[str, Any]:
    """Describe a file by its header alone.

    Raises `ThingNotFound`, `NotSafetensors`, `UnsupportedFormat`, `NotAPatchFile`, `BadSidecar`.
    """
    if not path.is_file():
        raise errors.ThingNotFound("file", str(path))
    size = path.stat().st_size
    with path.open("rb") as file:
        header = read_header(reader(file), size, str(path))
        if header.metadata.get("format") == patchfile.FORMAT:
            return _patch(patchfile.read(reader(file), size))
    return _weights(path, header)


def _patch(patch: PatchFile) -> dict[str, Any]:
    return {
        "kind": "patch",
        "version": patch.header.metadata["version"],
        "size_bytes": patch.size_bytes,
        "parameters": dict(patch.parameters),
        "inputs": dict(patch.inputs),
        "summary": dict(patch.summary),
        "tensors": [
            {
                "path": tensor.path,
                "name": tensor.name,
                "shape": list(tensor.shape),
                "kind": str(tensor.kind),
                "codec": str(tensor.codec),
                "size_bytes": tensor.codes.size_bytes + tensor.halves.size_bytes,
                "norm": tensor.norm,
                "weight_norm": tensor.weight_norm,
            }
            for tensor in patch.tensors
        ],
    }


def _weights(path: Path, header: Header) -> dict[str, Any]:
    record = inplace.status(path)
    return {
        "kind": "weights",
        "size_bytes": header.file_size,
        "metadata": dict(header.metadata),
        "in_place": record.json() if record else None,
        "tensors": [
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "size_bytes": tensor.size_bytes,
            }
            for tensor in header.tensors
        ],
    }
