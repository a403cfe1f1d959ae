"""Patch files decoded by their drawing, with safetensors and numpy alone: nothing of ours."""

import hashlib
import json
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

LEVELS = np.array([-1.510, -0.4528, 0.4528, 1.510], np.float32)


def decode(content: bytes) -> list[tuple[str, str, str, Floats]]:
    """File, name, kind and D of each tensor; asserts what the file pins."""
    header_bytes = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + header_bytes])["__metadata__"]
    assert metadata["format"] == "patchbay.rws"
    version = metadata["version"]
    entries = load(content)
    halves, codes = entries["halves"], entries["codes"]
    stream = zlib.decompressobj()
    index = json.loads(stream.decompress(entries["index"].tobytes()))
    tail = stream.unused_data
    columns = index["tensors"]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    found, digests = [], []
    for row in rows:
        took = _took(row)
        size = row["bytes"] if version == "1" else row["deflated"] or _codes_bytes(row)
        own, codes = codes[:size], codes[size:]
        half, halves = halves[:took], halves[took:]
        if version == "2" and row["deflated"]:
            own = np.frombuffer(zlib.decompress(own.tobytes(), wbits=-15), np.uint8)
        unpacked = _tensor(row, own, half)
        found.append((index["files"][row["file"]], row["name"], row["kind"], unpacked))
        digests.append(hashlib.sha256(unpacked.astype("<f4").tobytes()).digest())
    assert codes.size == halves.size == 0
    _check_pins(version, rows, tail, digests, content)
    return found


def norms(content: bytes) -> list[tuple[float, float]]:
    """The norms of the kernels of a file of version 2."""
    entries = load(content)
    stream = zlib.decompressobj()
    kernels = sum(json.loads(stream.decompress(entries["index"].tobytes()))["tensors"]["kernel"])
    pairs = np.frombuffer(stream.unused_data, "<f4", 2 * kernels).reshape(-1, 2)
    return [(float(norm), float(weight)) for norm, weight in pairs]


def _n(row: dict[str, Any]) -> int:
    return int(np.prod(row["shape"]))


def _took(row: dict[str, Any]) -> int:
    if row["codec"] in {"f32", "f16"}:
        return {"f32": 0, "f16": _n(row)}[row["codec"]]
    return int(row["shape"][0])


def _codes_bytes(row: dict[str, Any]) -> int:
    if row["codec"] in {"f32", "f16"}:
        return {"f32": 4 * _n(row), "f16": 0}[row["codec"]]
    return -(-_n(row) // {"q8": 1, "q4": 2, "five": 3, "q2": 4}[row["codec"]])


def _tensor(row: dict[str, Any], own: Bytes, half: npt.NDArray[np.float16]) -> Floats:
    scale = half.astype(np.float32) * np.float32(2.0 ** row["exponent"])
    match str(row["codec"]):
        case "f32":
            return np.frombuffer(own.tobytes(), "<f4").reshape(row["shape"])
        case "f16":
            return scale.reshape(row["shape"])
        case "q8":
            codes = own.view(np.int8).astype(np.float32)
        case "q4":
            codes = np.stack([own & 15, own >> 4], 1).astype(np.float32) - np.float32(8)
        case "five":
            codes = np.stack([own // 5**i % 5 for i in range(3)], 1).astype(np.float32) - 2
        case _:
            codes = LEVELS[np.stack([own >> shift & 3 for shift in (0, 2, 4, 6)], 1)]
    levels = codes.astype(np.float32).ravel()[: _n(row)].reshape(len(scale), _n(row) // len(scale))
    return (levels * scale[:, None]).reshape(row["shape"])


def _check_pins(
    version: str, rows: list[dict[str, Any]], tail: bytes, digests: list[bytes], content: bytes
) -> None:
    if version == "1":
        assert tail == b""
        assert [digest.hex() for digest in digests] == [row["sha256"] for row in rows]
        return
    at = 8 * sum(row["kernel"] for row in rows)
    pins = [tail[at + 8 * i :][:8] for i in range(len(rows))]
    assert pins == [digest[:8] for digest in digests]
    sealed = [hashlib.sha256(content[:-32]).digest(), *digests]
    assert tail[at + 8 * len(rows) :] == hashlib.sha256(b"".join(sealed)).digest()
