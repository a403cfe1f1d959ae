"""The files that a change in place reads: a weight file, an overlay, the undo of an earlier one."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from service import errors
from service.layout.disk import DISK, Disk, read_chunks, reader
from service.layout.header import Header, read_header
from service.layout.overlay import overlay_header
from service.layout.sidecar import AppliedRecipe, Place, Sidecar
from service.layout.splice import in_place
from service.names import Digest


def file_digest(path: Path) -> Digest:
    """The digest of a local file."""
    with path.open("rb") as file:
        return Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One weight file of a recipe: its base, and the overlay where patches touch it."""

    base_digest: Digest
    overlay: Path | None
    overlay_digest: Digest | None


@dataclass(frozen=True, slots=True)
class Change:
    """What to make of the files: every weight file of the model, by its path there."""

    base: str
    recipe: AppliedRecipe
    files: Mapping[str, WeightFile]


class Opened:
    """A safetensors file, open, its header read."""

    def __init__(self, path: Path) -> None:
        self.file: BinaryIO = path.open("rb")
        self.path = path
        size = path.stat().st_size
        self.header: Header = read_header(reader(self.file), size, str(path))

    def close(self) -> None:
        """Close it."""
        self.file.close()

    def tensor(self, name: str) -> Iterator[bytes]:
        """The bytes of one tensor."""
        entry = self.header.entry(name)
        return read_chunks(self.file, entry.start, entry.end)


def spliced(file: Opened, changed: Opened | None) -> Iterator[bytes]:
    """The bytes of `file` with the tensors of `changed` in place of its own.

    Raises `OverlayDoesNotFit`.
    """
    if changed is not None:
        in_place(file.header, changed.header)
    yield file.header.raw
    for tensor in file.header.tensors:
        here = changed is not None and tensor.name in changed.header
        source = changed if changed is not None and here else file
        yield from source.tensor(tensor.name)


def digest_of_chunks(chunks: Iterable[bytes]) -> Digest:
    """The digest of bytes that come one after the other."""
    sha256 = hashlib.sha256()
    for chunk in chunks:
        sha256.update(chunk)
    return Digest("sha256:" + sha256.hexdigest())


def write_copy(base: Path, wanted: WeightFile, into: Path, disk: Disk = DISK) -> Digest:
    """Write a patched copy of `base`, which is not touched; answers the copy's digest.

    Raises `FileNotAsRecorded`, `NotVerified`, `OverlayDoesNotFit`.
    """
    actual = file_digest(base)
    if actual != wanted.base_digest:
        raise errors.FileNotAsRecorded(str(base), wanted.base_digest, actual)
    with closing(Opened(base)) as file, ExitStack() as stack:
        overlay = None
        if wanted.overlay is not None:
            overlay = stack.enter_context(closing(Opened(wanted.overlay)))
            check_overlay(file, overlay, wanted.overlay_digest)
        disk.make_folder(into.parent)
        disk.write_file(into, spliced(file, overlay))
    return file_digest(into)


def check_overlay(base: Opened, overlay: Opened, expected: Digest | None) -> None:
    """Check that an overlay fits, and that its bytes are the ones its digest names.

    Raises `OverlayDoesNotFit` and `NotVerified`.
    """
    in_place(base.header, overlay.header)
    actual = file_digest(overlay.path)
    if actual != expected:
        raise errors.NotVerified(str(overlay.path), str(expected), actual, "fetch it again")


class Pieces:
    """A weight file, the overlay that is wanted on it, and the undo of the one it carries."""

    def __init__(self, place: Place, now: Sidecar, path: str, wanted: WeightFile) -> None:
        self._open: list[Opened] = []
        try:
            self.base = self._add(place.weight_file(path))
            self.overlay = self._add(wanted.overlay) if wanted.overlay else None
            if self.overlay is not None:
                check_overlay(self.base, self.overlay, wanted.overlay_digest)
            carried = now.files[path].overlay_digest is not None
            self.old = self._add(place.undo(now.generation, path)) if carried else None
        except BaseException:
            self._close()
            raise

    def _add(self, path: Path) -> Opened:
        opened = Opened(path)
        self._open.append(opened)
        return opened

    def _close(self) -> None:
        for opened in self._open:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _source(self, name: str) -> Opened:
        """Where the bytes of tensor `name` are to come from."""
        for piece in (self.overlay, self.old):
            if piece is not None and name in piece.header:
                return piece
        return self.base

    def digests(self) -> tuple[Digest, Digest]:
        """The digests of the file as it is and as it is going to be."""
        if self.overlay is None and self.old is None:
            same = file_digest(self.base.path)
            return same, same
        before, after = hashlib.sha256(), hashlib.sha256()
        raw = self.base.header.raw
        before.update(raw)
        after.update(raw)
        for tensor in self.base.header.tensors:
            source = self._source(tensor.name)
            for chunk in self.base.tensor(tensor.name):
                before.update(chunk)
                if source is self.base:
                    after.update(chunk)
            if source is not self.base:
                for chunk in source.tensor(tensor.name):
                    after.update(chunk)
        return (
            Digest(f"sha256:{before.hexdigest()}"),
            Digest(f"sha256:{after.hexdigest()}"),
        )

    def undo(self) -> Iterator[bytes]:
        """The base's bytes of every tensor of the overlay, laid out as the overlay."""
        names = self.overlay.header.names if self.overlay else ()
        header = overlay_header(self.base.header, names)
        yield header.raw
        for name in header.names:
            carried = self.old is not None and name in self.old.header
            source = self.old if self.old is not None and carried else self.base
            yield from source.tensor(name)

    def writes(self) -> Iterator[bytes]:
        """Every tensor that changes: the overlay's, and the base's of what is taken off."""
        pieces = [piece for piece in (self.overlay, self.old) if piece is not None]
        names = {name for piece in pieces for name in piece.header.names}
        header = overlay_header(self.base.header, names)
        yield header.raw
        for name in header.names:
            yield from self._source(name).tensor(name)
