"""The sha256 of files that lie in no blob of their own, read as clients are sent them.

What is read of a blob is held to the blob's own digest in the same pass, what no client is sent of
it included: else the digest of a damaged file would be told as that of the right one.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from service import errors
from service.layout.header import Read
from service.layout.splice import Literal, Plan, Segment
from service.names import Digest

CHUNK_BYTES: Final = 2**20


def digest_files(
    plans: Mapping[str, Plan],
    sizes: Mapping[Digest, int],
    open_read: Callable[[Digest], Read],
    progress: Callable[[float, str], None],
) -> dict[str, Digest]:
    """The digest of each planned file, by path; `sizes` are those of the blobs that plans name.

    Raises `DamagedBlob`, and what `open_read` raises.
    """
    total = sum(plan.size_bytes for plan in plans.values()) or 1
    done = 0
    found: dict[str, Digest] = {}
    for path, plan in plans.items():
        sources = {digest: _Source(digest, open_read(digest)) for digest in plan.digests}
        sha256 = hashlib.sha256()
        for start in range(0, plan.size_bytes, CHUNK_BYTES):
            progress(done / total, f"hashing {path}")
            end = min(start + CHUNK_BYTES, plan.size_bytes)
            for segment in plan.cut(start, end):
                sha256.update(_content(segment, sources))
            done += end - start
        for digest, source in sources.items():
            source.check(sizes[digest])
        found[path] = Digest("sha256:" + sha256.hexdigest())
    return found


def _content(segment: Segment, sources: Mapping[Digest, "_Source"]) -> bytes:
    if isinstance(segment, Literal):
        return segment.content
    return sources[segment.digest].read(segment.start, segment.end)


class _Source:
    """A blob that is hashed while ranges of it are read; in order, each byte is read once."""

    def __init__(self, digest: Digest, read: Read) -> None:
        self._digest = digest
        self._read = read
        self._sha256 = hashlib.sha256()
        self._at = 0

    def read(self, start: int, end: int) -> bytes:
        """The bytes `[start, end)`."""
        self._pass_over(start)
        content = self._read(start, end)
        if end > self._at:
            self._sha256.update(memoryview(content)[self._at - start :])
            self._at = end
        return content

    def check(self, size_bytes: int) -> None:
        """Raise `DamagedBlob` unless the whole hashes to its name."""
        self._pass_over(size_bytes)
        if self._digest != f"sha256:{self._sha256.hexdigest()}":
            raise errors.DamagedBlob(self._digest)

    def _pass_over(self, end: int) -> None:
        while self._at < end:
            piece = self._read(self._at, min(self._at + CHUNK_BYTES, end))
            self._sha256.update(piece)
            self._at += len(piece)
