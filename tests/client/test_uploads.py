"""Sending in parts, to a service and a store that misbehave."""

import base64
import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from service.client import blobs
from service.client.client import Client
from service.client.problem import OperationProblem, ServiceProblem
from service.client.uploads import PATIENCE_S
from tests.client.conftest import Moody

PART = 1000
CONTENT = random.Random(2).randbytes(2 * PART + 1)  # noqa: S311  # three parts
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
KNOWN = (200, {"digest": DIGEST, "size_bytes": len(CONTENT)})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large."""
    monkeypatch.setattr(blobs, "RESUMABLE_FROM", 1)
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def upload(
    *missing: int, store: str = "", state: str = "open", operation: str | None = None
) -> tuple[int, dict[str, Any]]:
    """What the service says of an upload that lacks some parts."""
    sizes = {1: PART, 2: PART, 3: 1}
    return 201, {
        "id": "u1",
        "digest": DIGEST,
        "size_bytes": len(CONTENT),
        "part_bytes": PART,
        "part_count": 3,
        "state": state,
        "operation": operation,
        "expires_at": "2030-01-01T00:00:00Z",
        "arrived": [number for number in sizes if number not in missing],
        "parts": [
            {
                "number": number,
                "size_bytes": sizes[number],
                "url": f"{store}/v1/uploads/u1/parts/{number}",
            }
            for number in missing
        ],
        "parts_expire_at": None,
    }


def operation(state: str, slug: str = "") -> dict[str, Any]:
    return {
        "id": "o1",
        "kind": "ingest",
        "subject": "",
        "state": state,
        "progress": 0.5,
        "message": "",
        "attempt": 1,
        "result": None,
        "problem": {"type": f"/problems/{slug}", "detail": slug} if slug else None,
        "created_by": "me",
        "created_at": "2026-01-01T00:00:00Z",
        "started_at": None,
        "ended_at": None,
    }


def plan(moody: Moody, *stands: tuple[int, dict[str, Any]], ends: dict[str, Any]) -> None:
    """Let the service say of the upload where it stands, one answer a round."""
    moody.answers[("POST", "/v1/uploads")] = list(stands)
    moody.answers[("POST", "/v1/uploads/u1/complete")] = [(202, operation("queued"))]
    moody.answers[("GET", "/v1/operations/o1")] = [(200, ends)]
    for number in (1, 2, 3):
        moody.answers[("PUT", f"/v1/uploads/u1/parts/{number}")] = [(204, b"")]


def sent(moody: Moody) -> list[tuple[str, bytes]]:
    return sorted((path[-1], body) for method, path, _, body in moody.seen if method == "PUT")


def test_what_is_missing_is_sent_and_the_whole_checked(
    moody: Moody, client: Client, file: Path
) -> None:
    plan(moody, upload(1, 3), upload(), KNOWN, ends=operation("succeeded"))
    told: list[tuple[int, int]] = []

    done = client.blobs.upload(file, sending=lambda *at: told.append(at))

    assert done.sent
    assert sent(moody) == [("1", CONTENT[:PART]), ("3", CONTENT[-1:])]
    assert told[0] == (PART, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    headers = moody.requests("PUT")[0]
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Content-Digest"].startswith("sha-256=:")


def test_a_blob_that_is_there_is_not_sent(moody: Moody, client: Client, file: Path) -> None:
    plan(moody, KNOWN, ends=operation("succeeded"))

    done = client.blobs.upload(file)

    assert not done.sent
    assert sent(moody) == []


def test_a_store_gets_a_checksum_and_never_the_token(
    moody: Moody, client: Client, file: Path
) -> None:
    store = moody.url.replace("127.0.0.1", "localhost")
    plan(moody, upload(2, store=store), upload(), KNOWN, ends=operation("succeeded"))

    client.blobs.upload(file)

    (headers,) = moody.requests("PUT")
    md5 = hashlib.md5(CONTENT[PART : 2 * PART], usedforsecurity=False).digest()
    assert "Authorization" not in headers
    assert headers["Content-MD5"] == base64.b64encode(md5).decode()


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_whatever_a_store_answers_fresh_addresses_are_tried(
    moody: Moody, client: Client, file: Path, status: int
) -> None:
    store = moody.url.replace("127.0.0.1", "localhost")
    stale, fresh = upload(2, store=store), upload(2, store=store)
    plan(moody, stale, fresh, upload(), KNOWN, ends=operation("succeeded"))
    moody.answers[("PUT", "/v1/uploads/u1/parts/2")] = [(status, b"<Error/>"), (200, b"")]

    client.blobs.upload(file)

    assert [body for _, body in sent(moody)] == [CONTENT[PART : 2 * PART]] * 2


def test_without_progress_patience_ends_and_the_reason_is_told(
    moody: Moody, client: Client, file: Path, pauses: list[float]
) -> None:
    plan(moody, upload(1), ends=operation("succeeded"))
    moody.answers[("PUT", "/v1/uploads/u1/parts/1")] = [(410, {"type": "/problems/upload-ended"})]

    with pytest.raises(ServiceProblem) as caught:
        client.blobs.upload(file)

    assert caught.value.slug == "upload-ended"
    assert sum(pauses) >= PATIENCE_S


def test_a_refusal_is_told_at_once(
    moody: Moody, client: Client, file: Path, pauses: list[float]
) -> None:
    plan(moody, upload(1), ends=operation("succeeded"))
    moody.answers[("PUT", "/v1/uploads/u1/parts/1")] = [(403, {"type": "/problems/scope-missing"})]

    with pytest.raises(ServiceProblem, match="PUT"):
        client.blobs.upload(file)

    assert pauses == []


def test_bytes_that_hash_to_another_digest_are_not_sent_again(
    moody: Moody, client: Client, file: Path
) -> None:
    plan(moody, upload(), ends=operation("failed", "digest-mismatch"))

    with pytest.raises(OperationProblem) as caught:
        client.blobs.upload(file)

    assert caught.value.slug == "digest-mismatch"


def test_a_check_that_met_an_outage_is_asked_for_again(
    moody: Moody, client: Client, file: Path
) -> None:
    plan(moody, upload(), upload(), KNOWN, ends={})
    failed, well = operation("failed", "store-unavailable"), operation("succeeded")
    moody.answers[("GET", "/v1/operations/o1")] = [(200, failed), (200, well)]

    assert client.blobs.upload(file).sent
