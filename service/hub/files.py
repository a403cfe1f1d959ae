"""The files of a recipe as the Hub lists them: every one as if it lay in LFS, named by its sha256.

A client checks what it has by these digests (`hf cache verify`). The digest of a patched file is
known once it is built and hashed; only then is such a file listed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from service.db.tables.builds import READY, Build
from service.names import Digest
from service.registry.recipes import Resolved


@dataclass(frozen=True, slots=True)
class Entry:
    """One file; `sha256` None while it is not known."""

    path: str
    size_bytes: int
    sha256: Digest | None

    @property
    def pointer(self) -> bytes:
        """The text that Git keeps for a file in LFS (git-lfs specification, version 1)."""
        return (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid {self.sha256}\nsize {self.size_bytes}\n"
        ).encode()

    @property
    def git_oid(self) -> str:
        """Git's own name of the pointer."""
        return _git_oid("blob", self.pointer)

    def lfs(self, digest_key: str) -> dict[str, Any]:
        """What is told of a file in LFS; lists of files call its digest otherwise than trees do."""
        return {
            digest_key: (self.sha256 or "").removeprefix("sha256:"),
            "size": self.size_bytes,
            "pointerSize": len(self.pointer),
        }


def listed(session: Session, resolved: Resolved) -> list[Entry]:
    """The files of a recipe by path."""
    changed = _changed(session, resolved)
    return [
        Entry(file.path, file.size_bytes, changed.get(file.path, Digest(file.digest)))
        for file in resolved.base.files
    ]


def _changed(session: Session, resolved: Resolved) -> dict[str, Digest | None]:
    """Digests of the files that differ from the base, as far as they are known."""
    if not resolved.parts:
        return {}
    build = session.get(Build, resolved.canonical.digest)
    if build is None or build.state != READY:
        # Which of them the patches touch is known once they are built.
        return {file.path: None for file in resolved.base.weight_files}
    return {f.path: Digest(f.file_digest) if f.file_digest else None for f in build.files}


def all_known(entries: Sequence[Entry]) -> bool:
    """Whether every digest is known."""
    return all(entry.sha256 is not None for entry in entries)


def tree(entries: Sequence[Entry], folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """The items below `folder` ("" is the root), folders before what they hold; empty: no such."""
    prefix = f"{folder}/" if folder else ""
    folders: dict[str, dict[str, Any]] = {}
    found: list[dict[str, Any]] = []
    for entry in entries:
        if not entry.path.startswith(prefix):
            continue
        inner = entry.path[len(prefix) :].split("/")
        for depth in range(1, len(inner) if recursive else min(len(inner), 2)):
            path = prefix + "/".join(inner[:depth])
            if path not in folders:
                folders[path] = directory(path)
                found.append(folders[path])
        if recursive or len(inner) == 1:
            found.append(item(entry))
    return found


def item(entry: Entry) -> dict[str, Any]:
    """A file of a tree."""
    return {
        "type": "file",
        "oid": entry.git_oid,
        "size": entry.size_bytes,
        "path": entry.path,
        "lfs": entry.lfs("oid"),
    }


def directory(path: str) -> dict[str, Any]:
    """A folder of a tree; its oid stands for nothing but its name."""
    return {"type": "directory", "oid": _git_oid("tree", path.encode()), "size": 0, "path": path}


def _git_oid(kind: str, content: bytes) -> str:
    head = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()
