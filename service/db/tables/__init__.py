"""The tables, one file a noun. Importing this package registers every one of them."""

from service.db.tables import (
    access,
    blobs,
    builds,
    channels,
    evaluations,
    fits,
    models,
    operations,
    patches,
    recipes,
    similarity,
    uploads,
)

__all__ = [
    "access",
    "blobs",
    "builds",
    "channels",
    "evaluations",
    "fits",
    "models",
    "operations",
    "patches",
    "recipes",
    "similarity",
    "uploads",
]
