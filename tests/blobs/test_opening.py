"""From a URL to a store, and from a bad one to a message without secrets."""

from pathlib import Path

import pytest

from service import errors
from service.blobs.folder import FolderStore
from service.blobs.opening import open_store


def test_a_folder_is_opened_by_path_or_file_url(tmp_path: Path) -> None:
    by_path = open_store(str(tmp_path / "a b"), reserve_bytes=0)
    by_url = open_store((tmp_path / "a b").as_uri(), reserve_bytes=0)

    assert isinstance(by_path, FolderStore)
    assert by_path.describe() == by_url.describe() == (tmp_path / "a b").as_uri()


@pytest.mark.parametrize(
    "url", ["", "s3://", "s3:///prefix", "file://host/x", "file:///", "gs://b/x", "s3://k:pw@b/x"]
)
def test_a_bad_url_is_named_without_its_secrets(url: str) -> None:
    with pytest.raises(errors.BadStoreUrl) as caught:
        open_store(url)

    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"), [("s3://bucket", "s3://bucket"), ("s3://bucket/a/b/", "s3://bucket/a/b")]
)
def test_a_bucket_is_opened_without_asking_it(
    url: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    store = open_store(url, endpoint_url="http://127.0.0.1:9")

    assert store.describe() == shown
