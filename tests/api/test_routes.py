import re
from typing import Final

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

METHODS: Final = ("get", "head", "put", "post", "patch", "delete")
VALUES: Final = {
    "digest": "sha256:" + "0" * 64,
    "build_id": "0" * 64,
    "number": "1",
    "token_id": "1",
}
OPEN: Final = {"/healthz", "/readyz", "/metrics", "/problems", "/problems/{slug}"}


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"anonymous_read": False}))


def test_nothing_but_health_and_problems_answers_who_shows_no_token(
    app: FastAPI, client: TestClient
) -> None:
    asked = {
        f"{method} {path}": client.request(
            method,
            re.sub(r"{(\w+)}", lambda name: VALUES.get(name[1], "x"), path),
            json={} if method in {"put", "post", "patch"} else None,
        ).status_code
        for path, methods in app.openapi()["paths"].items()
        for method in METHODS
        if method in methods and path not in OPEN
    }

    assert len(asked) > 60
    # Whoever is unknown learns nothing else first: neither what exists nor what a body lacks.
    assert {where: status for where, status in asked.items() if status != 401} == {}


def test_no_page_shows_anything_to_who_shows_no_token(client: TestClient) -> None:
    pages = ("/", "/models", "/patches", "/channels", "/builds", "/operations", "/models/a/b")

    answers = {page: client.get(page, headers={"Accept": "application/json"}) for page in pages}

    assert {page: answer.status_code for page, answer in answers.items()} == dict.fromkeys(
        pages, 401
    )
