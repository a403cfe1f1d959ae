"""Uploads in parts: out of sight until the whole is published under its digest.

    begin ─▶ parts, in any order, each as often as need be ─▶ seal ─▶ read and hash ─▶ publish
                                                                └────────── wrong ──▶ discard

A part is kept as soon as its request ends, so an upload outlives the client, the service and the
store. All parts but the last hold `part_bytes`; they are counted from 1. After `seal` no part
changes any more, so what was hashed is what is published: bytes that are not what their digest
says never take its place.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from service import errors
from service.blobs.streams import MIB, BlobReader, BlobWriter
from service.names import Digest

PART_BYTES: Final = 16 * MIB
MAX_PARTS: Final = 10_000
"""The limit of S3: beyond 156 GiB, parts grow."""


def part_bytes(size_bytes: int) -> int:
    """How large the parts of an upload are: at least 16 MiB, and at most 10 000 of them."""
    return max(PART_BYTES, -(-size_bytes // MAX_PARTS))


@dataclass(frozen=True, slots=True)
class Staged:
    """An upload in parts: whose bytes it should hold, and how it is cut.

    `token` is the store's own name of it.
    """

    id: str
    digest: Digest
    size_bytes: int
    part_bytes: int
    token: str

    @property
    def part_count(self) -> int:
        """How many parts there are."""
        return max(1, -(-self.size_bytes // self.part_bytes))

    def part_range(self, number: int) -> tuple[int, int]:
        """The bytes `[start, end)` of part `number`; raises `ThingNotFound` if there is none."""
        if not 1 <= number <= self.part_count:
            raise errors.ThingNotFound("part", f"{number} of {self.part_count}")
        start = (number - 1) * self.part_bytes
        return start, min(start + self.part_bytes, self.size_bytes)

    def part_size(self, number: int) -> int:
        """How many bytes part `number` holds; raises `ThingNotFound`."""
        start, end = self.part_range(number)
        return end - start

    def missing(self, arrived: Collection[int]) -> list[int]:
        """The parts that have not arrived, in order."""
        return [number for number in range(1, self.part_count + 1) if number not in arrived]


def unheard(done_bytes: int) -> None:
    """Hear nothing of what is done."""


class Staging(Protocol):
    """Where a store keeps uploads in parts; every method may raise `StoreUnavailable`.

    Once an upload was published or discarded, methods raise `UploadEnded`.
    """

    def begin(self, upload: str, digest: Digest, size_bytes: int) -> Staged:
        """Begin an upload under the name `upload`, new and made of hex digits.

        Raises `DiskFull`.
        """

    def part_url(self, staged: Staged, number: int, expires_s: int) -> str | None:
        """Where a client may PUT a part itself, for so long; None: parts come by `part_writer`.

        The address takes exactly the part's size. Raises `ThingNotFound`.
        """

    def part_writer(self, staged: Staged, number: int, digest: Digest | None = None) -> BlobWriter:
        """Begin to take a part, in place of what there was; its bytes must hash to `digest`.

        Raises `ThingNotFound`, `UploadSealed` and `DiskFull`, the last two also while writing.
        """

    def arrived(self, staged: Staged) -> frozenset[int]:
        """The parts that are there with the size that they should have; all, once sealed."""

    def seal(self, staged: Staged) -> None:
        """Join the parts; from now on none of them changes. Sealed already, it stays so.

        Raises `PartsMissing`.
        """

    def open(self, staged: Staged) -> BlobReader:
        """Open what was sealed."""

    def publish(self, staged: Staged, told: Callable[[int], None] = unheard) -> None:
        """Make what was sealed the blob of its digest, in one step; the caller has hashed it.

        Where that takes long, `told` hears now and then how many bytes are in their place, and may
        raise to end it. Raises `DiskFull`.
        """

    def discard(self, staged: Staged) -> None:
        """Remove an upload with all its parts; one that is gone is no error."""


def check_complete(staged: Staged, arrived: Collection[int]) -> None:
    """Check that every part is there; raises `PartsMissing`."""
    if missing := staged.missing(arrived):
        raise errors.PartsMissing(staged.id, len(missing), missing[:100])
