"""What a command's end means to a script: the only table from error to exit code.

0  done                              5  refused: no token, or not with this one
1  failed: an operation, the disk    6  what was given cannot be right
2  wrong usage                       7  the service cannot answer now, or is not there
3  not found, or deleted             8  bytes did not verify
4  conflict, or decided on a state that has passed
"""

import json
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

import typer
from pydantic import ValidationError
from typer.main import get_command

from service import errors
from service.client.problem import UNREADABLE, OperationProblem, ServiceProblem
from service.errors import PatchbayError


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    REFUSED = 5
    INVALID = 6
    UNAVAILABLE = 7
    NOT_VERIFIED = 8


BY_STATUS: Final[Mapping[int, Exit]] = {
    0: Exit.UNAVAILABLE,
    400: Exit.INVALID,
    401: Exit.REFUSED,
    403: Exit.REFUSED,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    410: Exit.NOT_FOUND,
    412: Exit.CONFLICT,
    413: Exit.INVALID,
    416: Exit.INVALID,
    422: Exit.INVALID,
    428: Exit.CONFLICT,
    429: Exit.UNAVAILABLE,
    502: Exit.UNAVAILABLE,
    503: Exit.UNAVAILABLE,
    504: Exit.UNAVAILABLE,
    507: Exit.UNAVAILABLE,
}

BY_KIND: Final[Mapping[type[PatchbayError], Exit]] = {
    errors.DigestMismatch: Exit.NOT_VERIFIED,
    errors.DamagedBlobs: Exit.NOT_VERIFIED,
    errors.DamagedBlob: Exit.NOT_VERIFIED,
    errors.NotVerified: Exit.NOT_VERIFIED,
    errors.FileNotAsRecorded: Exit.NOT_VERIFIED,
    errors.NotFound: Exit.NOT_FOUND,
    errors.Gone: Exit.NOT_FOUND,
    errors.Conflict: Exit.CONFLICT,
    errors.Stale: Exit.CONFLICT,
    errors.PreconditionMissing: Exit.CONFLICT,
    errors.Unauthenticated: Exit.REFUSED,
    errors.Forbidden: Exit.REFUSED,
    errors.Invalid: Exit.INVALID,
    errors.TooLarge: Exit.INVALID,
    errors.Busy: Exit.UNAVAILABLE,
    errors.Unavailable: Exit.UNAVAILABLE,
    errors.StorageFull: Exit.UNAVAILABLE,
    errors.Broken: Exit.FAILED,
}
"""Each kind's code; a leaf stands here, before its kind, only where it has another."""

_VERIFYING = {kind.slug for kind, code in BY_KIND.items() if code is Exit.NOT_VERIFIED}


def code_of(error: Exception) -> Exit:
    """The exit code of an error that ended a command."""
    match error:
        case OperationProblem():
            return Exit.FAILED
        case ServiceProblem(slug=slug) if slug in _VERIFYING:
            return Exit.NOT_VERIFIED
        case ServiceProblem(slug=slug) if slug == UNREADABLE:
            return Exit.UNAVAILABLE
        case ServiceProblem(status=status):
            return BY_STATUS.get(status, Exit.FAILED)
        case PatchbayError():
            return next(BY_KIND[kind] for kind in type(error).__mro__ if kind in BY_KIND)
        case _:
            return Exit.FAILED


def run(app: typer.Typer, args: Sequence[str] | None = None) -> int:
    """Run a command and answer its exit code; an error is told on stderr, as JSON with --json."""
    asked = list(sys.argv[1:] if args is None else args)
    try:
        get_command(app).main(args=asked, prog_name="patchbay")
    except SystemExit as ending:  # what typer itself ends with: help, wrong usage, Ctrl-C
        return ending.code if isinstance(ending.code, int) else Exit.OK
    except ValidationError as error:  # an option's value that no request may carry
        wrong = error.errors()[0]
        where = ".".join(str(part) for part in wrong["loc"])
        sys.stderr.write(f"patchbay: {where}: {wrong['msg']}\n")
        return Exit.USAGE
    except (PatchbayError, ServiceProblem, OSError) as error:
        _tell(error, as_json="--json" in asked)
        return code_of(error)
    return Exit.OK


def _tell(error: Exception, *, as_json: bool) -> None:
    if as_json:
        sys.stderr.write(json.dumps(_document(error), default=str) + "\n")
        return
    sys.stderr.write(f"patchbay: {error}\n")
    for wrong in error.fields.get("errors", []) if isinstance(error, ServiceProblem) else []:
        sys.stderr.write(f"  {wrong.get('field')}: {wrong.get('message')}\n")


def _document(error: Exception) -> dict[str, Any]:
    match error:
        case ServiceProblem():
            return error.json()
        case PatchbayError():
            return {"slug": error.slug, "detail": str(error)} | error.fields
        case _:
            return {"slug": "os-error", "detail": str(error)}
