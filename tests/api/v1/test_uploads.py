import base64
import hashlib
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from service.blobs import staging
from service.blobs.folder import FolderStore
from service.db.tables.blobs import Blob
from service.db.tables.uploads import Upload
from service.names import Digest
from service.registry import access, operations, uploads
from service.registry.access import OWNER
from service.schemas.operations import Scope
from service.settings import Settings
from service.worker import tasks
from service.worker.device import DeviceProcess, StoreAddress
from service.worker.kinds import uploads as checks
from service.worker.kinds.table import KINDS

PART = 64 * 1024
CONTENT = random.Random(1).randbytes(2 * PART + 100)  # noqa: S311  # three parts
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()

Work = Callable[[httpx2.Response], dict[str, Any]]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PART_BYTES", PART)


@pytest.fixture
def publisher(client: TestClient, bearer: Callable[..., dict[str, str]]) -> TestClient:
    """The client, with a token that may publish."""
    client.headers.update(bearer(Scope.PUBLISH, Scope.READ))
    return client


@pytest.fixture
def another(own_sessions: sessionmaker[Session]) -> dict[str, str]:
    """The headers of somebody else who may publish."""
    with own_sessions.begin() as session:
        _, text = access.mint(session, "another", [Scope.PUBLISH], by=OWNER)
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "blobs", reserve_bytes=0)


@pytest.fixture
def work(
    own_sessions: sessionmaker[Session], store: FolderStore, tmp_path: Path, publisher: TestClient
) -> Work:
    """Does as a worker what an answer has queued; answers the operation as it ended."""
    parts = tasks.Parts(
        name="test",
        sessions=own_sessions,
        store=store,
        devices={},
        kinds=KINDS,
        scratch=tmp_path,
        retry_wait_s=0,
    )
    device = DeviceProcess("cpu", StoreAddress(""))  # never started

    def worked(accepted: httpx2.Response) -> dict[str, Any]:
        assert accepted.status_code == 202, accepted.text
        tasks.carry_out(parts, accepted.json()["id"], device, lambda: False)
        found: dict[str, Any] = publisher.get(accepted.headers["location"]).json()
        return found

    return worked


def begin(client: TestClient, **headers: str) -> httpx2.Response:
    body = {"digest": DIGEST, "size_bytes": len(CONTENT)}
    return client.post("/v1/uploads", json=body, headers=headers)


def begun(client: TestClient, **headers: str) -> dict[str, Any]:
    answer = begin(client, **headers)
    assert answer.status_code == 201, answer.text
    upload: dict[str, Any] = answer.json()
    return upload


def send(client: TestClient, upload: dict[str, Any], content: bytes = CONTENT) -> None:
    """Send every part that the upload names."""
    for part in upload["parts"]:
        start = (part["number"] - 1) * upload["part_bytes"]
        answer = client.put(part["url"], content=content[start : start + part["size_bytes"]])
        assert answer.status_code == 204, answer.text


def complete(client: TestClient, upload: dict[str, Any]) -> httpx2.Response:
    return client.post(f"/v1/uploads/{upload['id']}/complete")


def refused(answer: httpx2.Response, status: int, slug: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}"), answer.text
    problem: dict[str, Any] = answer.json()
    return problem


def staged_files(store: FolderStore) -> list[str]:
    return sorted(path.name for path in (Path(store.describe()[7:]) / "tmp").iterdir())


def test_parts_become_a_blob_once_a_worker_has_hashed_them(
    publisher: TestClient, work: Work, store: FolderStore
) -> None:
    upload = begun(publisher)
    send(publisher, upload)
    full = publisher.get(f"/v1/uploads/{upload['id']}").json()
    accepted = complete(publisher, upload)
    before = publisher.head(f"/v1/blobs/{DIGEST}").status_code

    operation = work(accepted)

    assert (upload["state"], upload["part_count"], upload["arrived"]) == ("open", 3, [])
    assert (full["arrived"], full["parts"]) == ([1, 2, 3], [])
    assert before == 404
    assert operation["state"] == "succeeded"
    assert operation["result"]["links"] == {"blob": f"/v1/blobs/{DIGEST}"}
    assert publisher.get(f"/v1/blobs/{DIGEST}").content == CONTENT
    assert publisher.get(f"/v1/uploads/{upload['id']}").json()["state"] == "done"
    assert staged_files(store) == []


def test_completed_twice_it_is_one_operation(publisher: TestClient, work: Work) -> None:
    upload = begun(publisher)
    send(publisher, upload)

    first, second = complete(publisher, upload), complete(publisher, upload)
    work(first)
    third = complete(publisher, upload)

    assert first.json()["id"] == second.json()["id"] == third.json()["id"]
    assert third.json()["state"] == "succeeded"


def test_a_blob_that_is_there_is_not_sent_again(publisher: TestClient) -> None:
    publisher.put(f"/v1/blobs/{DIGEST}", content=CONTENT)

    answer = begin(publisher)

    assert (answer.status_code, answer.json()) == (
        200,
        {"digest": DIGEST, "size_bytes": len(CONTENT)},
    )


def test_begun_again_an_upload_goes_on_where_it_was(publisher: TestClient) -> None:
    upload = begun(publisher)
    send(publisher, {**upload, "parts": upload["parts"][1:2]})

    again = begun(publisher)

    assert again["id"] == upload["id"]
    assert again["arrived"] == [2]
    assert [part["number"] for part in again["parts"]] == [1, 3]


def test_addresses_come_page_by_page(publisher: TestClient) -> None:
    upload = begun(publisher)

    page = publisher.get(f"/v1/uploads/{upload['id']}", params={"after": 1, "limit": 1}).json()

    assert [part["number"] for part in page["parts"]] == [2]
    assert page["parts"][0]["url"] == f"/v1/uploads/{upload['id']}/parts/2"


def test_what_is_missing_is_named(publisher: TestClient) -> None:
    upload = begun(publisher)
    send(publisher, {**upload, "parts": upload["parts"][1:2]})

    problem = refused(complete(publisher, upload), 409, "parts-missing")

    assert (problem["count"], problem["missing"]) == (2, [1, 3])


def test_wrong_bytes_never_become_a_blob_and_leave_nothing(
    publisher: TestClient, work: Work, store: FolderStore
) -> None:
    upload = begun(publisher)
    send(publisher, upload, CONTENT[:-1] + b"x")

    operation = work(complete(publisher, upload))

    assert operation["problem"]["type"] == "/problems/digest-mismatch"
    assert publisher.head(f"/v1/blobs/{DIGEST}").status_code == 404
    assert staged_files(store) == []
    assert list(store.digests()) == []
    problem = refused(publisher.get(f"/v1/uploads/{upload['id']}"), 410, "upload-ended")
    assert "other bytes" in problem["detail"]
    refused(complete(publisher, upload), 410, "upload-ended")
    assert begun(publisher)["id"] != upload["id"]


def test_a_check_that_was_cancelled_can_be_asked_for_again(
    publisher: TestClient, work: Work
) -> None:
    upload = begun(publisher)
    send(publisher, upload)
    first = complete(publisher, upload)
    publisher.post(f"{first.headers['location']}/cancel")

    second = complete(publisher, upload)

    assert first.json()["id"] != second.json()["id"]
    assert work(second)["state"] == "succeeded"


def test_a_worker_that_dies_before_it_records_loses_nothing(
    publisher: TestClient, work: Work, store: FolderStore, own_sessions: sessionmaker[Session]
) -> None:
    upload = begun(publisher)
    send(publisher, upload)
    accepted = complete(publisher, upload)
    with own_sessions.begin() as session:
        operation = operations.begin(session, accepted.json()["id"], worker="dead")
        assert operation is not None
        job = checks.Ingest(*uploads.to_check(session, operation.request))
    checks.ingest(job, store, lambda *_: None)

    assert work(accepted)["state"] == "succeeded"
    assert publisher.get(f"/v1/blobs/{DIGEST}").content == CONTENT


def test_while_it_is_checked_an_upload_takes_nothing_more(publisher: TestClient) -> None:
    upload = begun(publisher)
    send(publisher, upload)
    complete(publisher, upload)

    refused(publisher.put(upload["parts"][0]["url"], content=CONTENT[:PART]), 409, "upload-sealed")
    refused(publisher.delete(f"/v1/uploads/{upload['id']}"), 409, "upload-sealed")
    assert begun(publisher)["state"] == "checking"


def test_two_callers_may_send_one_blob_at_once(
    publisher: TestClient, another: dict[str, str], work: Work, store: FolderStore
) -> None:
    first, second = begun(publisher), begun(publisher, **another)
    send(publisher, first)
    own = publisher.headers["Authorization"]
    publisher.headers.update(another)
    send(publisher, second)
    of_second = complete(publisher, second)
    publisher.headers["Authorization"] = own

    ends = [work(complete(publisher, first)), work(of_second)]

    assert first["id"] != second["id"]
    assert [end["state"] for end in ends] == ["succeeded", "succeeded"]
    assert publisher.get(f"/v1/blobs/{DIGEST}").content == CONTENT
    assert staged_files(store) == []


def test_an_upload_is_its_callers_alone(publisher: TestClient, another: dict[str, str]) -> None:
    upload = begun(publisher)
    url = f"/v1/uploads/{upload['id']}"

    for answer in (
        publisher.get(url, headers=another),
        publisher.put(f"{url}/parts/1", content=CONTENT[:PART], headers=another),
        publisher.post(f"{url}/complete", headers=another),
        publisher.delete(url, headers=another),
    ):
        refused(answer, 404, "not-found")


def test_an_aborted_upload_is_gone(publisher: TestClient, store: FolderStore) -> None:
    upload = begun(publisher)
    send(publisher, upload)

    answer = publisher.delete(f"/v1/uploads/{upload['id']}")

    assert answer.status_code == 204
    assert staged_files(store) == []
    refused(publisher.delete(f"/v1/uploads/{upload['id']}"), 410, "upload-ended")
    refused(publisher.put(upload["parts"][0]["url"], content=CONTENT[:PART]), 410, "upload-ended")
    assert begun(publisher)["id"] != upload["id"]


def test_after_a_week_an_upload_is_over(
    publisher: TestClient, store: FolderStore, own_sessions: sessionmaker[Session]
) -> None:
    upload = begun(publisher)
    send(publisher, {**upload, "parts": upload["parts"][:1]})
    with own_sessions.begin() as session:
        session.execute(update(Upload).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))

    answer = publisher.get(f"/v1/uploads/{upload['id']}")
    with own_sessions.begin() as session:
        late = uploads.expire(session)
    for each in late:
        store.staging.discard(each)

    assert "within a week" in refused(answer, 410, "upload-ended")["detail"]
    assert [each.id for each in late] == [upload["id"]]
    assert staged_files(store) == []
    with own_sessions.begin() as session:
        assert uploads.expire(session) == []


def test_an_upload_that_the_store_has_lost_is_begun_anew(
    publisher: TestClient, store: FolderStore, own_sessions: sessionmaker[Session]
) -> None:
    upload = begun(publisher)
    with own_sessions.begin() as session:
        store.staging.discard(uploads.staged(session.get_one(Upload, upload["id"])))

    refused(publisher.get(f"/v1/uploads/{upload['id']}"), 410, "upload-ended")
    again = begun(publisher)

    assert again["id"] != upload["id"]
    assert again["arrived"] == []


def test_what_there_is_not_is_refused(publisher: TestClient) -> None:
    upload = begun(publisher)
    parts = f"/v1/uploads/{upload['id']}/parts"

    for number in ("0", "-1", "9" * 40, "1.5", "%00"):
        refused(publisher.put(f"{parts}/{number}", content=b"x"), 422, "fields-invalid")
    for number in ("4", "2147483648"):
        refused(publisher.put(f"{parts}/{number}", content=b"x"), 404, "not-found")
    for other in ("x", "0" * 31, "A" * 32, "..%2F..%2Fsha256", "0" * 32):
        url = f"/v1/uploads/{other}"
        answers = [
            publisher.get(url),
            publisher.put(f"{url}/parts/1", content=b"x"),
            publisher.post(f"{url}/complete"),
            publisher.delete(url),
        ]
        assert {answer.status_code for answer in answers} <= {404, 405, 422}


def test_a_part_of_another_size_is_refused(publisher: TestClient) -> None:
    url = begun(publisher)["parts"][0]["url"]

    for size in (0, 1, PART - 1, PART + 1, 5 * PART):
        announced = publisher.put(url, content=bytes(size))
        streamed = publisher.put(url, content=iter([bytes(size)]))

        refused(announced, 422, "part-size-wrong")
        assert (streamed.status_code, streamed.json()["type"]) in {
            (400, "/problems/body-cut-off"),
            (422, "/problems/body-too-long"),
        }


def test_a_part_whose_bytes_turned_on_their_way_does_not_count(publisher: TestClient) -> None:
    upload = begun(publisher)
    url, first = upload["parts"][0]["url"], CONTENT[:PART]
    right = base64.b64encode(hashlib.sha256(first).digest()).decode()

    turned = publisher.put(
        url, content=b"x" + first[1:], headers={"Content-Digest": f"sha-256=:{right}:"}
    )
    unreadable = publisher.put(url, content=first, headers={"Content-Digest": "sha-256=:?:"})
    missing = publisher.get(f"/v1/uploads/{upload['id']}").json()["arrived"]
    good = publisher.put(url, content=first, headers={"Repr-Digest": f"sha-256=:{right}:"})

    refused(turned, 422, "digest-mismatch")
    refused(unreadable, 400, "bad-request")
    assert missing == []
    assert good.status_code == 204


def test_an_upload_that_cannot_be_is_refused(publisher: TestClient) -> None:
    for body in (
        {"digest": DIGEST, "size_bytes": 0},
        {"digest": DIGEST, "size_bytes": -5},
        {"digest": DIGEST, "size_bytes": 10**30},
        {"digest": "sha256:x", "size_bytes": 1},
        {"digest": DIGEST, "size_bytes": 1, "part_bytes": 1},
    ):
        refused(publisher.post("/v1/uploads", json=body), 422, "fields-invalid")
    too_large = {"digest": DIGEST, "size_bytes": 4 * 2**20 + 1}
    refused(publisher.post("/v1/uploads", json=too_large), 413, "upload-too-large")


def test_only_who_may_publish_uploads(
    client: TestClient, bearer: Callable[..., dict[str, str]]
) -> None:
    refused(begin(client), 401, "token-missing")
    refused(begin(client, **bearer(Scope.READ)), 403, "scope-missing")


class TestADamagedBlob:
    @pytest.fixture
    def path(
        self, publisher: TestClient, store: FolderStore, own_sessions: sessionmaker[Session]
    ) -> Path:
        """The file of a blob with wrong bytes of the right number, which a check has noticed."""
        publisher.put(f"/v1/blobs/{DIGEST}", content=CONTENT)
        found = store.local_path(Digest(DIGEST))
        assert found is not None
        found.write_bytes(os.urandom(len(CONTENT)))
        with own_sessions.begin() as session:
            session.execute(update(Blob).values(damaged_at=datetime.now(UTC)))
        return found

    def test_counts_as_absent_and_is_replaced_by_a_put(
        self, publisher: TestClient, path: Path
    ) -> None:
        head = publisher.head(f"/v1/blobs/{DIGEST}")

        answer = publisher.put(f"/v1/blobs/{DIGEST}", content=CONTENT)

        assert (head.status_code, answer.status_code) == (404, 200)
        assert path.read_bytes() == CONTENT
        assert publisher.get(f"/v1/blobs/{DIGEST}").content == CONTENT

    def test_is_replaced_by_an_upload_in_parts(
        self, publisher: TestClient, path: Path, work: Work
    ) -> None:
        upload = begun(publisher)
        send(publisher, upload)

        operation = work(complete(publisher, upload))

        assert operation["state"] == "succeeded"
        assert path.read_bytes() == CONTENT
        assert publisher.head(f"/v1/blobs/{DIGEST}").status_code == 200


class TestOnAFullDisk:
    @pytest.fixture
    def settings(self, own_database_url: str, tmp_path: Path) -> Settings:
        return Settings(
            database_url=SecretStr(own_database_url),
            blob_url=str(tmp_path / "blobs"),
            disk_reserve_bytes=2**60,
        )

    def test_an_upload_is_refused_before_a_byte_is_sent(
        self, publisher: TestClient, store: FolderStore
    ) -> None:
        refused(begin(publisher), 507, "disk-full")

        assert staged_files(store) == []
