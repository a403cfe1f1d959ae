"""What the routes of named things share: how a line is edited and tagged, what a name may miss."""

from fastapi import Response

from service import errors
from service.db.tables.models import Model
from service.db.tables.patches import Patch
from service.http import conditional
from service.schemas.wire import EditLine

NOT_THERE = (errors.BadName, errors.ReservedNamespace, errors.ThingNotFound, errors.ThingDeleted)
"""What reading the thing of a name may raise."""


def tagged(response: Response, line: Model | Patch) -> None:
    """Name the state of a line in its ETag."""
    response.headers["ETag"] = conditional.tag(line.revision)


def changes(body: EditLine) -> dict[str, object]:
    """What an edit asks for: the fields that were sent; null empties the licence."""
    sent = body.model_dump(exclude_unset=True)
    for field, empty in (("card", ""), ("labels", [])):
        if field in sent and sent[field] is None:
            sent[field] = empty
    return sent
