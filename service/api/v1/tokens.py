"""Tokens: who may do what."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Response

from service import errors
from service.http.deps import Admin, DbSession
from service.http.paging import Pages
from service.http.problems import answers
from service.registry import access
from service.schemas.operations import MintedToken, MintToken, TokenView
from service.schemas.wire import Page

router = APIRouter(prefix="/tokens", tags=["tokens"])

TokenId = Annotated[int, Path(ge=1, lt=2**63)]


@router.post("", name="mint", status_code=201)
def mint(body: MintToken, session: DbSession, caller: Admin, response: Response) -> MintedToken:
    """Make a token. Its text is in this answer and nowhere else."""
    token, text = access.mint(
        session,
        body.name,
        body.scopes,
        by=caller,
        namespace_pattern=body.namespace_pattern,
        expires_in=timedelta(days=body.expires_in_days) if body.expires_in_days else None,
    )
    session.refresh(token)
    response.headers["Cache-Control"] = "no-store"
    shown = TokenView.model_validate(token)
    return MintedToken(**shown.model_dump(), token=text)


@router.get("", name="list")
def listed(session: DbSession, caller: Admin, paging: Pages) -> Page[TokenView]:
    """List the tokens, oldest first, without their texts."""
    rows = access.tokens(session, after=paging.after(int), limit=paging.fetch)
    return paging.page(rows, key=lambda token: token.id, view=TokenView.model_validate)


@router.delete(
    "/{token_id}",
    name="revoke",
    status_code=204,
    responses=answers(errors.ThingNotFound),
)
def revoke(token_id: TokenId, session: DbSession, caller: Admin) -> None:
    """End a token at once."""
    access.revoke(session, token_id, by=caller)
