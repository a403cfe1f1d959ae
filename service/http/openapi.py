"""The OpenAPI document, with problems where the framework would put errors of its own."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from service import errors
from service.http.problems import answers
from service.schemas.wire import Problem


def operation_id(route: APIRoute) -> str:
    """A short, stable name of an operation: `models.publish`."""
    noun = route.tags[0] if route.tags else "service"
    return f"{noun}.{route.name}"


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of `app`."""
    made = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        tags=app.openapi_tags,
        license_info=app.license_info,
        routes=app.routes,
    )
    for path in made["paths"].values():
        for operation in path.values():
            _with_problems(operation["responses"], has_body="requestBody" in operation)
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = Problem.model_json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    # An error's own fields are extension members (RFC 9457 section 3.2).
    schemas["Problem"]["additionalProperties"] = True
    return made


def _with_problems(responses: dict[str, Any], *, has_body: bool) -> None:
    """Declare what every operation of its form may answer, where it did not say so itself."""
    declared = answers(*([errors.FieldsInvalid, errors.UploadTooLarge] if has_body else []))
    for status, problem in declared.items():
        responses.setdefault(str(status), problem)
    if "application/json" in responses.get("422", {}).get("content", {}):
        responses["422"] = answers(errors.FieldsInvalid)[422]  # in place of the framework's own
