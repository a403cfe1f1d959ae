"""All routes of the REST interface, and what the OpenAPI document says of them as a whole."""

from typing import Final

from fastapi import APIRouter

from service import errors
from service.api.v1 import (
    blobs,
    builds,
    channels,
    evaluations,
    extractions,
    fits,
    models,
    operations,
    patches,
    recipes,
    similarity,
    sweeps,
    tokens,
    upkeep,
    uploads,
    weights,
)
from service.http.problems import answers

DESCRIPTION: Final = """\
Clean base models and small patches on them, versioned; patched weights built on demand for any
choice of patches and scales, and taken off again exactly.

Errors are problem documents (RFC 9457): `type` leads to a page about the kind of problem, `detail`
names the thing and the next step. Lists are read page by page along `next`. A change of an alias or
a channel carries `If-Match`. Long work answers 202 with the address of an operation.
"""

TAGS: Final = [
    {"name": "blobs", "description": "Immutable bytes, named by their sha256."},
    {"name": "uploads", "description": "Large blobs in parts, past restarts."},
    {"name": "models", "description": "Base models: versions, files, aliases."},
    {"name": "patches", "description": "Patches: versions, extraction, profiles."},
    {"name": "evaluations", "description": "Measured accuracies of patches on bases."},
    {"name": "recipes", "description": "A base and the patches on it, resolved and checked."},
    {"name": "builds", "description": "Carried-out recipes, and the files they give."},
    {"name": "weights", "description": "Patched files of a recipe, built where need be."},
    {"name": "channels", "description": "Mutable names of recipes, with their history."},
    {"name": "operations", "description": "Long work: progress, results, cancelling."},
    {"name": "tokens", "description": "Who may do what."},
    {"name": "service", "description": "Health, metrics, problems."},
]

router = APIRouter(
    prefix="/v1",
    # What any of these routes may answer; a route adds its own.
    responses=answers(
        errors.BadRequest,
        errors.TokenMissing,
        errors.TokenInvalid,
        errors.ScopeMissing,
        errors.Invalid,
        errors.Broken,
        errors.DatabaseUnavailable,
    ),
)
for _noun in (
    blobs,
    uploads,
    models,
    patches,
    extractions,
    similarity,
    fits,
    evaluations,
    recipes,
    builds,
    sweeps,
    weights,
    channels,
    operations,
    tokens,
    upkeep,
):
    router.include_router(_noun.router)
