"""The routes that models and patches share: describe, read, edit and delete a named line."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from sqlalchemy.orm import Session

from service import errors
from service.http import conditional
from service.http.deps import DbSession, Publisher, Reader
from service.http.problems import answers
from service.names import Name
from service.registry import lines
from service.registry.access import Principal
from service.registry.lines import Line
from service.schemas.operations import Scope
from service.schemas.wire import DescribeLine, EditLine, LineView

NOT_THERE = (errors.BadName, errors.ReservedNamespace, errors.ThingNotFound, errors.ThingDeleted)
"""What reading the thing of a name may raise."""

PATH = "/{namespace}/{name}"


def add_routes(
    router: APIRouter,
    table: type[Line],
    view: type[LineView],
    named: Callable[..., Awaitable[Name]],
    retire: Callable[[Session, Name, Principal], None],
) -> None:
    """Add the routes of one line of `table`; `named` reads its name off the address."""
    kind = lines.kind_of(table)

    @router.put(
        PATH,
        name="describe",
        description=f"Make a {kind}, or replace what is said of it.",
        status_code=201,
        response_model=view,
        responses={
            200: {"description": "It was there before.", "model": view},
            **answers(errors.BadName, errors.ReservedNamespace),
        },
    )
    def describe(
        name: Annotated[Name, Depends(named)],
        body: DescribeLine,
        session: DbSession,
        caller: Publisher,
        response: Response,
    ) -> Line:
        caller.require(Scope.PUBLISH, name.namespace)
        line, new = lines.describe(session, table, name, **body.model_dump(), by=caller)
        response.status_code = 201 if new else 200
        response.headers["Location"] = f"/v1{router.prefix}/{line.full_name}"
        response.headers["ETag"] = conditional.tag(line.revision)
        return line

    @router.get(
        PATH,
        name="read",
        description=f"Read what is said of a {kind}.",
        response_model=view,
        responses=answers(*NOT_THERE),
    )
    def read(
        name: Annotated[Name, Depends(named)],
        session: DbSession,
        caller: Reader,
        response: Response,
    ) -> Line:
        line = lines.find(session, table, name)
        response.headers["ETag"] = conditional.tag(line.revision)
        return line

    @router.patch(
        PATH,
        name="edit",
        description=f"Change some of what is said of a {kind}.",
        response_model=view,
        responses=answers(*NOT_THERE),
    )
    def edit(
        name: Annotated[Name, Depends(named)],
        body: EditLine,
        session: DbSession,
        caller: Publisher,
        response: Response,
    ) -> Line:
        caller.require(Scope.PUBLISH, name.namespace)
        line = lines.find(session, table, name, lock=True)
        lines.edit(session, line, **_changes(body))
        response.headers["ETag"] = conditional.tag(line.revision)
        return line

    @router.delete(
        PATH,
        name="delete",
        description=f"Delete a {kind} with all its versions; refused while one is needed.",
        status_code=204,
        responses=answers(*NOT_THERE, errors.StillNeeded),
    )
    def delete(
        name: Annotated[Name, Depends(named)], session: DbSession, caller: Publisher
    ) -> None:
        caller.require(Scope.PUBLISH, name.namespace)
        retire(session, name, caller)


def _changes(body: EditLine) -> dict[str, object]:
    """What an edit asks for: the fields that were sent; null empties one."""
    sent = body.model_dump(exclude_unset=True)
    for field, empty in (("card", ""), ("labels", [])):
        if field in sent and sent[field] is None:
            sent[field] = empty
    return sent
