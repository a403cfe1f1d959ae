from typing import Any

import pytest
from fastapi import FastAPI

from service.app import create_app
from service.http.problems import MEDIA_TYPE
from service.settings import Settings

METHODS = {"get", "head", "put", "post", "patch", "delete"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    # Nothing is opened before the application starts.
    app: FastAPI = create_app(
        Settings.model_validate({"database_url": "postgresql://nowhere/x", "blob_url": "/nowhere"})
    )
    return app.openapi()


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    ]


def test_every_error_that_is_declared_is_a_problem(
    operations: list[tuple[str, dict[str, Any]]],
) -> None:
    wrong = [
        (where, status)
        for where, operation in operations
        for status, answer in operation["responses"].items()
        if int(status) >= 400 and list(answer["content"]) != [MEDIA_TYPE]
    ]

    assert len(operations) > 40
    assert wrong == []


def test_every_operation_declares_what_any_may_answer(
    operations: list[tuple[str, dict[str, Any]]],
) -> None:
    lacking: dict[str, set[str]] = {}
    for where, operation in operations:
        expected = {"500"}
        if "/v1/" in where:
            expected |= {"400", "401", "403", "422", "503"}
        if "requestBody" in operation:
            expected |= {"413", "422"}
        if operation.get("parameters"):
            expected |= {"422"}
        if "{" in where and not where.startswith("put "):  # a PUT may make what is not there
            expected |= {"404"}
        if missing := expected - set(operation["responses"]):
            lacking[where] = missing

    assert lacking == {}


def test_every_change_needs_a_token_and_says_so(
    operations: list[tuple[str, dict[str, Any]]],
) -> None:
    open_to_all = [where for where, operation in operations if not operation.get("security")]

    assert open_to_all == [
        "get /healthz",
        "get /readyz",
        "get /metrics",
        "get /problems",
        "get /problems/{slug}",
    ]


def test_operations_have_names_of_their_own_and_are_explained(
    operations: list[tuple[str, dict[str, Any]]],
) -> None:
    names = [operation["operationId"] for _, operation in operations]

    assert sorted(names) == sorted(set(names))
    assert [where for where, operation in operations if not operation.get("description")] == []


def test_every_group_is_explained(
    document: dict[str, Any], operations: list[tuple[str, dict[str, Any]]]
) -> None:
    used = {tag for _, operation in operations for tag in operation["tags"]}

    assert used == {tag["name"] for tag in document["tags"]}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    lost = {
        reference
        for reference in _references(document)
        if reference.removeprefix("#/components/schemas/") not in schemas
    }

    assert lost == set()
    assert "HTTPValidationError" not in schemas


def _references(value: object) -> list[str]:
    match value:
        case {"$ref": str(reference)}:
            return [reference]
        case dict():
            return [found for part in value.values() for found in _references(part)]
        case list():
            return [found for part in value for found in _references(part)]
        case _:
            return []
