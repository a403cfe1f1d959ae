"""Uploads in parts."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from service.schemas.wire import Body, Digest, Moment, View


class UploadState(StrEnum):
    """Where an upload stands."""

    OPEN = "open"
    CHECKING = "checking"
    DONE = "done"


class BeginUpload(Body):
    """A blob to send in parts; one without bytes is sent by `PUT /v1/blobs/{digest}`."""

    digest: Digest
    size_bytes: Annotated[int, Field(ge=1, le=2**62)]


class PartView(View):
    """A part that is to be sent by PUT, and where to."""

    number: int = Field(description="Counted from 1.")
    size_bytes: int
    url: str = Field(
        description="Where to PUT the part, until `expires_at`: in the service (a path, with your "
        "token), or straight in the store (a whole address, without it)."
    )


class UploadView(View):
    """An upload in parts, and the next parts to send."""

    id: str
    digest: Digest
    size_bytes: int
    part_bytes: int = Field(description="The size of every part but the last.")
    part_count: int
    state: UploadState = Field(
        description="`open`: send what is missing, then complete it; `checking`: the operation "
        "reads and hashes the whole; `done`: it is a blob."
    )
    operation: str | None = Field(description="The id of the operation that checks it.")
    expires_at: Moment = Field(description="What is not complete by then is removed.")
    arrived: list[int] = Field(description="The numbers of the parts that are there.")
    parts: list[PartView] = Field(description="The next missing parts, in order.")
    parts_expire_at: Moment | None = Field(description="Until when their addresses hold.")
