"""The container of a PyTorch checkpoint: told apart from other formats, taken to pieces by bytes.

    net/data.pkl        the pickle: names, shapes, strides, which record each tensor lies in
    net/data/0, 1, …    one record a storage: its bytes, not compressed
    net/byteorder, net/version, …

A zip archive whose one folder holds that is what `torch.save` writes since release 1.6. Before it
wrote a magic number and pickles one behind the other; before 0.2, a tar archive. Nothing here runs
or even builds what a pickle says.
"""

import pickletools
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO, Final

from service import errors
from service.layout.header import sniff

START_BYTES: Final = 512
"""How much of a file's beginning tells its format."""
MAX_RECORDS: Final = 100_000
MAX_PICKLE_BYTES: Final = 64 * 2**20

_ZIP: Final = b"PK\x03\x04"
_LEGACY: Final = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
_TAR_AT: Final = 257
_SAVE: Final = "load it and save model.state_dict() with torch.save, or as safetensors"
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
_ENCRYPTED: Final = 0x1
_BROKEN: Final = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError),
    *(ValueError, EOFError, struct.error),
)
"""What zipfile raises over an archive that is none."""


class Form(Enum):
    """How a checkpoint is laid out."""

    ZIP = "zip"
    LEGACY = "legacy"


def form_of(start: bytes, file: str) -> Form:
    """The form of a checkpoint, by its first `START_BYTES` bytes.

    Raises `UnsupportedFormat`, naming what the file is instead.
    """
    if start.startswith(_ZIP):
        return Form.ZIP
    if start.startswith(_LEGACY):
        return Form.LEGACY
    if start[_TAR_AT:].startswith(b"ustar"):
        form = "a tar archive, as torch.save wrote them before release 0.2"
        raise errors.UnsupportedFormat(file, form, _SAVE)
    if start[8:9] == b"{":
        advice = "give it a name that ends in .safetensors"
        raise errors.UnsupportedFormat(file, "no checkpoint but a safetensors file", advice)
    if start.startswith(b"\x1f\x8b"):
        raise errors.UnsupportedFormat(file, "a gzip archive", "unpack it first")
    sniff(start, file)
    raise errors.UnsupportedFormat(file, "not a PyTorch checkpoint", _SAVE)


# ── the archive ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Archive:
    """The pickle of a checkpoint, and the (start, size in bytes) of each storage's record."""

    pickle: bytes
    storages: frozenset[tuple[int, int]]


def read_archive(file: BinaryIO, size_bytes: int, name: str) -> Archive:
    """Read the directory of a checkpoint's archive; the storages stay where they are.

    Raises `BadCheckpoint`, and `UnsupportedFormat` where another program wrote the archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            root = _root([record.filename for record in records], name)
            _check_records(records, size_bytes, name)
            if archive.NameToInfo[f"{root}/data.pkl"].file_size > MAX_PICKLE_BYTES:
                raise errors.BadCheckpoint(name, f"its pickle is over {MAX_PICKLE_BYTES} bytes")
            pickle = archive.read(f"{root}/data.pkl")
            order = archive.NameToInfo.get(f"{root}/byteorder")
            if order is not None and archive.read(order)[:8] != b"little":
                raise errors.BadCheckpoint(name, "its numbers are not in little-endian order")
    except _BROKEN as error:
        reason = f"its archive is damaged or cut off ({error}); send it again"
        raise errors.BadCheckpoint(name, reason) from error
    data = f"{root}/data/"
    storages = [record for record in records if record.filename.startswith(data)]
    return Archive(pickle, frozenset(_placed(file, storages, name)))


def _root(paths: list[str], name: str) -> str:
    """The one folder of an archive that `torch.save` wrote."""
    roots = {path.partition("/")[0] for path in paths}
    if any(path.endswith(".npy") for path in paths):
        raise errors.UnsupportedFormat(name, "a NumPy archive", "write it as safetensors")
    if any(path.endswith(("/constants.pkl", "/code/__torch__.py")) for path in paths):
        advice = "load it with torch.jit.load and save its state_dict() with torch.save"
        raise errors.UnsupportedFormat(name, "a TorchScript archive", advice)
    if any(
        path.endswith(("/archive_format", "serialized_exported_program.json")) for path in paths
    ):
        advice = "load it with torch.export.load and save its state_dict with torch.save"
        raise errors.UnsupportedFormat(name, "an exported PyTorch program", advice)
    if len(roots) != 1 or f"{next(iter(roots))}/data.pkl" not in paths:
        raise errors.UnsupportedFormat(name, "a zip archive that torch.save did not write", _SAVE)
    return roots.pop()


def _check_records(records: list[zipfile.ZipInfo], size_bytes: int, name: str) -> None:
    if len(records) > MAX_RECORDS:
        raise errors.BadCheckpoint(name, f"its archive has more than {MAX_RECORDS} records")
    if len({record.filename for record in records}) != len(records):
        raise errors.BadCheckpoint(name, "its archive holds two records of one name")
    for record in records:
        # torch.save never compresses; a record that is may unfold to any size.
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            reason = f"record {record.filename!r:.100} of its archive is compressed"
            raise errors.BadCheckpoint(name, f"{reason}; save it again with torch.save")
        if not 0 <= record.header_offset < size_bytes:
            raise errors.BadCheckpoint(name, f"record {record.filename!r:.100} lies outside of it")
        if record.flag_bits & _ENCRYPTED:
            raise errors.BadCheckpoint(name, f"record {record.filename!r:.100} is encrypted")
    if sum(record.file_size for record in records) > size_bytes:
        raise errors.BadCheckpoint(name, "the records of its archive overlap")


def _placed(file: BinaryIO, records: list[zipfile.ZipInfo], name: str) -> Iterator[tuple[int, int]]:
    for record in records:
        file.seek(record.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_ZIP):
            reason = f"record {record.filename!r:.100} of its archive is not where it should be"
            raise errors.BadCheckpoint(name, reason)
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        start = record.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        yield start, record.file_size


# ── what a pickle names ──────────────────────────────────────────────────────────────────────


_ORDINARY: Final = re.compile(
    r"torch\.(\w*Storage|storage\.\w+|Size|Tensor|device|bool|[a-z]+\d\w*)"
    r"|torch\.(_utils\._rebuild_\w+|_tensor\._rebuild_from_type_v2|nn\.parameter\.Parameter)"
    r"|collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(set|bytearray|complex)"
)
_RENAMED: Final = {"__builtin__": "builtins"}
"""Protocol 2, which torch.save writes, has the names of Python 2."""


def globals_of(pickle: bytes) -> list[str]:
    """What a pickle would import, as `module.name`, in order; read, never carried out.

    As far as it can be read: a pickle may hide what it imports, but not make it be imported here.
    """
    found: dict[str, None] = {}
    texts = ["?", "?"]
    memo: dict[int, str] = {}
    try:
        for code, argument, _ in pickletools.genops(pickle):
            match code.name:
                case "GLOBAL" | "INST":
                    module, _, name = str(argument).partition(" ")
                    found[f"{_RENAMED.get(module, module)}.{name}"] = None
                case "STACK_GLOBAL":
                    found[".".join(texts[-2:])] = None
                case "MEMOIZE":
                    memo[len(memo)] = texts[-1]
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    memo[int(argument or 0)] = texts[-1]
                case "GET" | "BINGET" | "LONG_BINGET":
                    texts.append(memo.get(int(argument or 0), "?"))
                case _:
                    texts += [argument] if isinstance(argument, str) else []
    except (ValueError, OverflowError, IndexError):
        pass  # cut off or nonsense: what was found so far
    return list(found)


def strange(names: Iterable[str]) -> list[str]:
    """Those of `names` that the pickle of a state dict has no need of."""
    return [name for name in names if not _ORDINARY.fullmatch(name)]
