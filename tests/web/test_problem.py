import pytest
from starlette.testclient import TestClient

from tests.web.browsing import read


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/models/vision/none", 404, "no model 'vision/none'"),
        ("/patches/vision/none", 404, "no patch 'vision/none'"),
        ("/channels/vision/none", 404, "no channel 'vision/none'"),
        ("/operations/none", 404, "no operation 'none'"),
        ("/models/v1/x", 422, "reserved"),
        ("/patches/a/b?version=0", 422, "version"),
        ("/models?cursor=nonsense", 400, "cursor"),
        ("/patches?base=nonsense", 422, "nonsense"),
        ("/models?q=%00", 400, "NUL"),
        ("/nothing/here/<b>", 404, "there is nothing at /nothing/here/<b>"),
    ],
)
def test_a_browser_sees_a_problem_as_a_page(
    client: TestClient, path: str, status: int, words: str
) -> None:
    answer = client.get(path)

    seen = read(answer)
    assert answer.status_code == status
    assert f"Problem {status}" in seen.text
    assert words.lower() in seen.text.lower()
    assert answer.headers["cache-control"] == "no-store"


def test_whoever_asks_for_no_page_gets_a_problem_document(client: TestClient) -> None:
    client.headers["Accept"] = "*/*"

    answer = client.get("/models/vision/none?version=2")

    assert answer.json()["type"] == "/problems/not-found"


def test_the_api_answers_a_browser_as_it_answers_everybody(closed: TestClient) -> None:
    missing = closed.get("/v1/models")
    unknown = closed.get("/static/none.css")

    assert missing.status_code == 401
    for answer in (missing, unknown):
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_wrong_method_is_a_page_too(client: TestClient) -> None:
    answer = client.post("/models")

    assert answer.status_code == 405
    assert "use GET" in read(answer).text
