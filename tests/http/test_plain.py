"""Blobs of an object store: told where they are, or handed out here. On a real SeaweedFS."""

import contextlib
import hashlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy.orm import Session, sessionmaker

from service.app import create_app
from service.blobs.opening import open_store
from service.client.client import Client
from service.http.plain import SIGNED_FOR_S
from service.names import digest_of
from service.registry import access, blobs
from service.registry.access import OWNER
from service.schemas.operations import Scope
from service.settings import Settings
from tests.seaweed import S3Address, start_seaweed
from tests.webserver import serving

CONTENT = random.Random(1).randbytes(3_000_000)  # noqa: S311
DIGEST = digest_of(CONTENT)
TAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
URL = f"/v1/blobs/{DIGEST}"

Start = Callable[..., httpx2.Client]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Address]:
    with start_seaweed(tmp_path_factory.mktemp("seaweed")) as address:
        yield address


@pytest.fixture
def token(own_sessions: sessionmaker[Session]) -> str:
    with own_sessions.begin() as session:
        blobs.record(session, DIGEST, len(CONTENT))
        return access.mint(session, "test", [Scope.READ], by=OWNER)[1]


@pytest.fixture
def start(
    s3: S3Address,
    own_database_url: str,
    token: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Start]:
    """Starts a service on a bucket that holds one blob; answers a client of it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    url = f"s3://{s3.bucket}/{os.urandom(4).hex()}"
    store = open_store(url, endpoint_url=s3.endpoint_url)
    with store.writer(DIGEST, len(CONTENT)) as writer:
        writer.write(CONTENT)
        writer.commit()
    with contextlib.ExitStack() as stack:

        def started(**changes: object) -> httpx2.Client:
            settings = Settings(
                database_url=SecretStr(own_database_url),
                blob_url=url,
                s3_endpoint_url=s3.endpoint_url,
                cache_dir=tmp_path / "cache",
                disk_reserve_bytes=0,
                **changes,  # type: ignore[arg-type]  # checked by pydantic
            )
            served = stack.enter_context(serving(create_app(settings)))
            client = httpx2.Client(
                base_url=served.url, headers={"Authorization": f"Bearer {token}"}, timeout=20
            )
            return stack.enter_context(client)

        yield started


def test_a_blob_is_fetched_from_the_store_itself(start: Start, s3: S3Address) -> None:
    client = start()

    answer = client.get(URL)
    followed = client.get(URL, follow_redirects=True)

    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["location"].startswith(s3.endpoint_url)
    assert f"X-Amz-Expires={SIGNED_FOR_S}" in answer.headers["location"]
    assert answer.headers["etag"] == TAG
    assert answer.headers["cache-control"] == "no-store"
    assert followed.content == CONTENT
    assert followed.headers["content-type"] == "application/octet-stream"
    assert "authorization" not in followed.request.headers


def test_a_range_is_fetched_from_the_store_itself(start: Start) -> None:
    answer = start().get(URL, headers={"Range": "bytes=100-299"}, follow_redirects=True)

    assert (answer.status_code, answer.content) == (206, CONTENT[100:300])
    assert answer.history[0].status_code == 307


def test_validators_are_judged_here(start: Start) -> None:
    client = start()

    known = client.get(URL, headers={"If-None-Match": TAG})
    head = client.head(URL)
    resumed = client.get(URL, headers={"If-Range": TAG, "Range": "bytes=2999990-"})
    changed = client.get(URL, headers={"If-Range": '"other"', "Range": "bytes=2999990-"})
    outside = client.get(URL, headers={"Range": "bytes=3000000-"})

    assert known.status_code == 304
    assert (head.status_code, head.headers["content-length"]) == (200, "3000000")
    assert head.headers["etag"] == TAG
    assert (resumed.status_code, resumed.content) == (206, CONTENT[2_999_990:])
    assert (changed.status_code, changed.content) == (200, CONTENT)
    assert outside.status_code == 416
    assert outside.json()["type"] == "/problems/bad-range"


def test_a_blob_that_the_store_has_lost_is_a_problem(
    start: Start, own_sessions: sessionmaker[Session]
) -> None:
    lost = digest_of(b"lost")
    with own_sessions.begin() as session:
        blobs.record(session, lost, 4)

    answer = start().get(f"/v1/blobs/{lost}")

    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/blob-not-found"


def test_where_clients_do_not_reach_the_store_all_passes_through(start: Start) -> None:
    answer = start(s3_presign=False).get(URL)

    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["etag"] == TAG


def test_our_client_follows_verifies_and_resumes(start: Start, token: str, tmp_path: Path) -> None:
    url, into = str(start().base_url), tmp_path / "blob"

    with Client(url, token) as client:
        found = client.blobs.download(DIGEST, into)
        into.with_name("blob.part").write_bytes(CONTENT[:1000])
        into.with_name("blob.part.etag").write_text(str(found.etag))
        again = client.blobs.download(DIGEST, into)

    assert into.read_bytes() == CONTENT
    assert (found.etag, found.digest) == (TAG, DIGEST)
    assert again.headers["content-range"] == "bytes 1000-2999999/3000000"
