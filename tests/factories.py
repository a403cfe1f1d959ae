"""Valid things with one part overridden: models, patches and recipes, as rows of a database."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from service.db.tables.models import Model, ModelVersion
from service.db.tables.patches import Patch, PatchVersion
from service.layout.header import Header, compose
from service.names import Digest, digest_of, model_name, patch_name
from service.registry import blobs, lines, models, patches
from service.registry.access import OWNER
from service.registry.patches import Signature
from service.schemas.recipes import RecipeBody, RecipePart

TENSORS = (("conv.weight", "F32", (4, 3, 3, 3)), ("fc.weight", "F32", (10, 4)))
TOUCHED = (("model.safetensors", "conv.weight", (4, 3, 3, 3), "additive"),)


def digest(text: str) -> Digest:
    """The digest of some bytes that nobody needs to see."""
    return digest_of(text.encode())


def publish_model(
    session: Session,
    name: str = "vision/net",
    *,
    content: str = "clean",
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...] = TENSORS,
    files: Mapping[str, str] | None = None,
) -> ModelVersion:
    """Publish a version whose weight files hold `tensors`; `content` makes their digests."""
    lines.describe(session, Model, model_name(name), card="", license=None, labels=[], by=OWNER)
    header = compose(tensors)
    weights = files or {"model.safetensors": content}
    read: dict[Digest, Header] = {}
    for text in weights.values():
        blobs.record(session, digest(text), header.file_size)
        read[digest(text)] = header
    named = {path: digest(text) for path, text in weights.items()}
    version, _ = models.publish(session, model_name(name), named, read, by=OWNER)
    return version


def signature(
    content: str = "fog",
    *,
    clean: str | None = None,
    touched: tuple[tuple[Any, ...], ...] = TOUCHED,
) -> Signature:
    """What the registry keeps of a patch file."""
    return Signature(
        digest=digest(content),
        size_bytes=100,
        tensors=[list(row) for row in touched],
        summary={"quality": "standard"},
        inputs={"clean": Digest(clean) if clean else None},
    )


def publish_patch(
    session: Session,
    name: str = "vision/fog",
    *,
    content: str | None = None,
    clean: ModelVersion | None = None,
    touched: tuple[tuple[Any, ...], ...] = TOUCHED,
) -> PatchVersion:
    """Publish a patch version; `content` makes its digest."""
    lines.describe(session, Patch, patch_name(name), card="", license=None, labels=[], by=OWNER)
    made = signature(
        content or name, clean=clean.weights_digest if clean else None, touched=touched
    )
    blobs.record(session, made.digest, made.size_bytes)
    version, _ = patches.publish(
        session,
        patch_name(name),
        made,
        profile=None,
        operation=None,
        by="owner",
        lineage={"clean": clean},
    )
    return version


def recipe(base: str = "vision/net", /, **scales: str) -> RecipeBody:
    """A recipe on `base`; each keyword is a patch of namespace `vision` and its scale."""
    parts = [RecipePart(patch=f"vision/{n}", scale=Decimal(s)) for n, s in scales.items()]
    return RecipeBody(base=base, patches=parts)
