"""From a URL to a blob store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from service import errors
from service.blobs.folder import FolderStore
from service.blobs.s3 import Patience, S3Store, connect
from service.blobs.store import BlobStore


def open_store(
    url: str,
    *,
    endpoint_url: str | None = None,
    reserve_bytes: int | None = None,
    patience: Patience | None = None,
) -> BlobStore:
    """Open `s3://bucket/prefix`, `file:///folder` or the path of a folder.

    `endpoint_url` and `patience` are for S3, `reserve_bytes` for a folder. Raises `BadStoreUrl`,
    and for a folder `StoreUnavailable`; whether S3 answers is told by the store's `check`.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "s3":
            if not parts.netloc or parts.query or "@" in parts.netloc:
                raise errors.BadStoreUrl(_without_secrets(url))
            return S3Store(connect(endpoint_url, patience), parts.netloc, parts.path)
        case "file":
            if parts.netloc not in {"", "localhost"} or not parts.path.strip("/"):
                raise errors.BadStoreUrl(_without_secrets(url))
            return FolderStore(Path(unquote(parts.path)), reserve_bytes=reserve_bytes)
        case "" if url:
            return FolderStore(Path(url).expanduser(), reserve_bytes=reserve_bytes)
        case _:
            raise errors.BadStoreUrl(_without_secrets(url))


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
