"""The sha256 of files that lie in no blob of their own, read as clients are sent them."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from service.layout.header import Read
from service.layout.splice import Literal, Plan, Segment
from service.names import Digest

CHUNK_BYTES: Final = 2**20


def digest_files(
    plans: Mapping[str, Plan],
    open_read: Callable[[Digest], Read],
    progress: Callable[[float, str], None],
) -> dict[str, Digest]:
    """The digest of each planned file, by path; raises what `open_read` raises."""
    total = sum(plan.size_bytes for plan in plans.values()) or 1
    done = 0
    found: dict[str, Digest] = {}
    for path, plan in plans.items():
        readers = {digest: open_read(digest) for digest in plan.digests}
        sha256 = hashlib.sha256()
        for start in range(0, plan.size_bytes, CHUNK_BYTES):
            progress(done / total, f"hashing {path}")
            end = min(start + CHUNK_BYTES, plan.size_bytes)
            for segment in plan.cut(start, end):
                sha256.update(_content(segment, readers))
            done += end - start
        found[path] = Digest("sha256:" + sha256.hexdigest())
    return found


def _content(segment: Segment, readers: Mapping[Digest, Read]) -> bytes:
    if isinstance(segment, Literal):
        return segment.content
    return readers[segment.digest](segment.start, segment.end)
