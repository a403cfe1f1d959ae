"""Which bytes of which blobs make up a file: planned here, read and sent elsewhere.

    base     │ header │ t1 │ t2 │ t3 │ t4 │           overlay  │ header │ t2 │ t4 │

    patched  │ base: header, t1 │ overlay: t2 │ base: t3 │ overlay: t4 │
    undo     │ the overlay's header, in memory │ base: t2 │ base: t4 │

A patched file has the base's header byte for byte. An undo is never stored: it is the base's own
bytes of the tensors that the overlay changes. Both are known from two headers alone.

Entity tags (RFC 9110, strong; here without their quotes), where ‖ joins the digests as text, each
`sha256:` and 64 hex digits, and the sum is over these 142 ASCII characters:

    plain    the 64 hex digits of the file's sha256
    patched  s1-sha256(base digest ‖ overlay digest)
    undo     u1-sha256(base digest ‖ digest of the overlay's header, its 8 length bytes included)
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from service.layout.header import Header
from service.layout.overlay import check_fits
from service.names import Digest, digest_of


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that are in no blob."""

    content: bytes

    @property
    def size_bytes(self) -> int:
        """How many bytes it gives."""
        return len(self.content)

    def cut(self, start: int, end: int) -> "Literal":
        """A part of it."""
        return Literal(self.content[start:end])


@dataclass(frozen=True, slots=True)
class BlobRange:
    """The bytes `[start, end)` of a blob."""

    digest: Digest
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it gives."""
        return self.end - self.start

    def cut(self, start: int, end: int) -> "BlobRange":
        """A part of it."""
        return BlobRange(self.digest, self.start + start, self.start + end)


Segment = Literal | BlobRange


@dataclass(frozen=True)
class Plan:
    """A file as a row of segments, none empty, no two that could be one.

    `sha256` is the digest of the whole file where it is known.
    """

    segments: tuple[Segment, ...]
    etag: str
    sha256: Digest | None = None

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(segment.size_bytes for segment in self.segments)]

    @property
    def size_bytes(self) -> int:
        """The size of the whole file."""
        return self._starts[-1]

    @property
    def digests(self) -> tuple[Digest, ...]:
        """The blobs that it reads, each once."""
        blobs = (s.digest for s in self.segments if isinstance(s, BlobRange))
        return tuple(dict.fromkeys(blobs))

    def cut(self, start: int, end: int) -> list[Segment]:
        """The segments of the bytes `[start, end)`; raises `ValueError` outside the file."""
        if not 0 <= start <= end <= self.size_bytes:
            raise ValueError(f"[{start}, {end}) lies outside a file of {self.size_bytes} bytes")
        found: list[Segment] = []
        at = bisect_right(self._starts, start) - 1
        while start < end:
            segment, begins = self.segments[at], self._starts[at]
            stop = min(end, begins + segment.size_bytes)
            found.append(segment.cut(start - begins, stop - begins))
            start, at = stop, at + 1
        return found


def plan_plain(digest: Digest, size_bytes: int) -> Plan:
    """A blob as it is."""
    segments = _joined([BlobRange(digest, 0, size_bytes)])
    return Plan(segments, etag=digest.removeprefix("sha256:"), sha256=digest)


def plan_patched(
    base_digest: Digest, base: Header, overlay_digest: Digest, overlay: Header
) -> Plan:
    """The base file with the overlay's tensors in place of its own.

    Raises `OverlayDoesNotFit`.
    """
    check_fits(base, overlay, f"base file {base_digest}")
    segments = [BlobRange(base_digest, 0, base.data_start)]
    for own in base.tensors:
        changed = overlay.by_name.get(own.name)
        if changed is None:
            segments.append(BlobRange(base_digest, own.start, own.end))
        else:
            segments.append(BlobRange(overlay_digest, changed.start, changed.end))
    return Plan(_joined(segments), etag=patched_tag(base_digest, overlay_digest))


def patched_tag(base_digest: Digest, overlay_digest: Digest) -> str:
    """The entity tag of a patched file, from digests alone."""
    return "s1-" + _sum(base_digest, overlay_digest)


def plan_undo(base_digest: Digest, base: Header, overlay: Header) -> Plan:
    """The base's own bytes of the overlay's tensors, laid out as the overlay.

    Raises `OverlayDoesNotFit`.
    """
    check_fits(base, overlay, f"base file {base_digest}")
    segments: list[Segment] = [Literal(overlay.raw)]
    for tensor in overlay.tensors:
        own = base.entry(tensor.name)
        segments.append(BlobRange(base_digest, own.start, own.end))
    return Plan(_joined(segments), etag="u1-" + _sum(base_digest, digest_of(overlay.raw)))


@dataclass(frozen=True, slots=True)
class Transplant:
    """`length` bytes at `overlay_start` of an overlay or undo go to `base_start` of the file."""

    base_start: int
    overlay_start: int
    length: int


def in_place(base: Header, overlay: Header) -> list[Transplant]:
    """What to write where to patch a file in place, in file order, neighbours as one.

    The same list serves the overlay and the undo. Raises `OverlayDoesNotFit`.
    """
    check_fits(base, overlay)
    found: list[Transplant] = []
    for own in base.tensors:
        new = overlay.by_name.get(own.name)
        if new is None or not new.size_bytes:
            continue
        last = found[-1] if found else None
        if last and (own.start - last.length, new.start - last.length) == (
            last.base_start,
            last.overlay_start,
        ):
            length = last.length + new.size_bytes
            found[-1] = Transplant(last.base_start, last.overlay_start, length)
        else:
            found.append(Transplant(own.start, new.start, new.size_bytes))
    return found


def _joined(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    joined: list[Segment] = []
    for segment in segments:
        match (joined[-1] if joined else None, segment):
            case _ if not segment.size_bytes:
                pass
            case BlobRange(digest, start, reached), BlobRange(other, begins, end) if (
                digest == other and reached == begins
            ):
                joined[-1] = BlobRange(digest, start, end)
            case _:
                joined.append(segment)
    return tuple(joined)


def _sum(*digests: Digest) -> str:
    return hashlib.sha256("".join(digests).encode("ascii")).hexdigest()
