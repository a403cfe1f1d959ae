"""Both blob stores, the S3 one on a real SeaweedFS that the whole session shares."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from service.blobs.bucket import Patience
from service.blobs.folder import FolderStore
from service.blobs.opening import Presigning, open_store
from service.blobs.store import BlobStore
from tests.seaweed import S3Address, start_seaweed

QUICK = Patience(connect_s=1, read_s=20, attempts=2)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Address]:
    with start_seaweed(tmp_path_factory.mktemp("seaweed")) as address:
        yield address


@pytest.fixture
def open_s3(monkeypatch: pytest.MonkeyPatch) -> Callable[[S3Address], BlobStore]:
    """A store in a prefix of its own, with its keys where boto3 looks for them."""

    def opened(address: S3Address) -> BlobStore:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", address.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", address.secret_key)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        url = f"s3://{address.bucket}/{uuid4().hex}"
        return open_store(
            url, endpoint_url=address.endpoint_url, presigning=Presigning(), patience=QUICK
        )

    return opened


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "blobs", reserve_bytes=0)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest) -> BlobStore:
    """Each store in turn; what a test here shows, holds for all."""
    if request.param == "folder":
        found: BlobStore = request.getfixturevalue("folder")
        return found
    opened: Callable[[S3Address], BlobStore] = request.getfixturevalue("open_s3")
    return opened(request.getfixturevalue("s3"))
