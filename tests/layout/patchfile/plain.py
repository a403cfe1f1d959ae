"""Patch files decoded by their drawing, with safetensors and numpy alone: nothing of ours."""

import hashlib
import json
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import load_file

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

LEVELS = np.array([-1.510, -0.4528, 0.4528, 1.510], np.float32)


def decode(path: str) -> dict[tuple[str, str], Floats]:
    """D of each tensor by (file, name); asserts what the file pins."""
    with safe_open(path, "numpy") as file:
        assert file.metadata()["format"] == "patchbay.rws"
        version = file.metadata()["version"]
    entries = load_file(path)
    halves, codes = entries["halves"], entries["codes"]
    stream = zlib.decompressobj()
    index = json.loads(stream.decompress(entries["index"].tobytes()))
    tail = stream.unused_data
    columns = index["tensors"]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    found, digests = {}, []
    for row in rows:
        took = _took(row)
        size = row["bytes"] if version == "1" else row["deflated"] or _codes_bytes(row)
        own, codes = codes[:size], codes[size:]
        half, halves = halves[:took], halves[took:]
        if version == "2" and row["deflated"]:
            own = np.frombuffer(zlib.decompress(own.tobytes(), wbits=-15), np.uint8)
        unpacked = _tensor(row, own, half)
        found[index["files"][row["file"]], row["name"]] = unpacked
        digests.append(hashlib.sha256(unpacked.astype("<f4").tobytes()).digest())
    assert codes.size == halves.size == 0
    _check_pins(version, rows, tail, digests)
    return found


def norms(path: str) -> list[tuple[float, float]]:
    """The norms of the kernels of a file of version 2."""
    entries = load_file(path)
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
    return -(-_n(row) // {"q8": 1, "q4": 2, "q2": 4, "ternary": 5, "sign": 8}[row["codec"]])


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
        case "q2":
            codes = LEVELS[np.stack([own >> shift & 3 for shift in (0, 2, 4, 6)], 1)]
        case "ternary":
            codes = np.stack([own // 3**i % 3 for i in range(5)], 1).astype(np.float32) - 1
        case _:
            codes = np.stack([own >> i & 1 for i in range(8)], 1).astype(np.float32) * 2 - 1
    levels = codes.astype(np.float32).ravel()[: _n(row)].reshape(len(scale), _n(row) // len(scale))
    return (levels * scale[:, None]).reshape(row["shape"])


def _check_pins(
    version: str, rows: list[dict[str, Any]], tail: bytes, digests: list[bytes]
) -> None:
    if version == "1":
        assert tail == b""
        assert [digest.hex() for digest in digests] == [row["sha256"] for row in rows]
        return
    at = 8 * sum(row["kernel"] for row in rows)
    pins = [tail[at + 8 * i :][:8] for i in range(len(rows))]
    assert pins == [digest[:8] for digest in digests]
    assert tail[at + 8 * len(rows) :] == hashlib.sha256(b"".join(digests)).digest()
