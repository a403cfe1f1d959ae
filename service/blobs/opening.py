"""From a URL to a blob store."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from service import errors
from service.blobs.bucket import Patience, connect
from service.blobs.folder import FolderStore
from service.blobs.s3 import S3Store
from service.blobs.store import BlobStore


@dataclass(frozen=True, slots=True)
class Presigning:
    """Clients are sent to the S3 store with signed URLs.

    `public_url` is the endpoint at which they reach it, where that is not the service's own.
    """

    public_url: str | None = None


def open_store(
    url: str,
    *,
    endpoint_url: str | None = None,
    presigning: Presigning | None = None,
    reserve_bytes: int | None = None,
    patience: Patience | None = None,
) -> BlobStore:
    """Open `s3://bucket/prefix`, `file:///folder` or the path of a folder.

    `endpoint_url`, `presigning` and `patience` are for S3, `reserve_bytes` for a folder. Raises
    `BadStoreUrl`, and for a folder `StoreUnavailable`; whether S3 answers is told by the store's
    `check`.
    """
    parts = urlsplit(url)
    match parts.scheme:
        case "s3":
            if not parts.netloc or parts.query or "@" in parts.netloc:
                raise errors.BadStoreUrl(_without_secrets(url))
            client = connect(endpoint_url, patience)
            signer = None
            if presigning is not None:
                public_url = presigning.public_url
                signer = connect(public_url, patience) if public_url else client
            return S3Store(client, parts.netloc, parts.path, presigner=signer)
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
