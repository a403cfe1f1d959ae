"""How rows of the registry look on the wire, where a row's own fields are not enough."""

from decimal import Decimal
from typing import Any

from service.db.tables.builds import READY, Build
from service.db.tables.channels import Channel, ChannelMove
from service.db.tables.models import Alias, AliasMove, ModelFile, ModelVersion
from service.db.tables.patches import PatchVersion
from service.layout.splice import patched_tag
from service.names import Digest
from service.registry import builds, recipes
from service.registry.recipes import Part, Resolved
from service.schemas.models import (
    AliasMoveView,
    AliasView,
    ConversionView,
    ModelFileView,
    ModelVersionView,
)
from service.schemas.patches import PatchVersionView
from service.schemas.recipes import (
    BuildFileView,
    BuildView,
    ChannelView,
    EnteredPart,
    ManifestFile,
    ManifestView,
    MoveView,
    RecipePatchView,
    RecipeView,
)


def model_version(version: ModelVersion) -> ModelVersionView:
    """A model version with its files."""
    conversion = version.conversion
    return ModelVersionView(
        model=version.model.full_name,
        number=version.number,
        reference=version.reference,
        weights_digest=version.weights_digest,
        size_bytes=version.size_bytes,
        files=[ModelFileView.model_validate(file) for file in version.files],
        conversion=None if conversion is None else ConversionView.model_validate(conversion),
        created_by=version.created_by,
        created_at=version.created_at,
        withdrawn_at=version.withdrawn_at,
        withdrawn_reason=version.withdrawn_reason,
    )


def alias(row: Alias) -> AliasView:
    """An alias."""
    return AliasView(name=row.name, version=row.version_number, move=row.head)


def alias_move(row: AliasMove) -> AliasMoveView:
    """A move of an alias."""
    return AliasMoveView(
        move=row.number,
        version=row.version_number,
        moved_by=row.moved_by,
        moved_at=row.moved_at,
    )


def patch_version(version: PatchVersion) -> PatchVersionView:
    """A patch version with its lineage."""
    return PatchVersionView(
        patch=version.patch.full_name,
        number=version.number,
        reference=version.reference,
        digest=version.digest,
        size_bytes=version.size_bytes,
        profile_digest=version.profile_digest,
        clean=version.clean.reference if version.clean else None,
        robust=version.robust.reference if version.robust else None,
        origin=version.origin.reference if version.origin else None,
        clean_digest=version.clean_digest,
        summary=version.summary,
        created_by=version.created_by,
        created_at=version.created_at,
        withdrawn_at=version.withdrawn_at,
        withdrawn_reason=version.withdrawn_reason,
    )


def recipe(resolved: Resolved) -> RecipeView:
    """A resolved recipe."""
    digest = resolved.canonical.digest
    return RecipeView(
        digest=digest,
        commit=builds.hex_of(digest)[:40],
        base=resolved.base.reference,
        base_digest=resolved.base.weights_digest,
        reference=recipes.pinned(resolved),
        patches=[_part(part, resolved.base) for part in resolved.parts],
        canonical=resolved.canonical.json(),
        licenses=recipes.licenses(resolved),
        size_bytes=sum(file.size_bytes for file in resolved.base.weight_files),
        overlay_bytes=resolved.overlay_bytes,
        warnings=recipes.warnings(resolved),
    )


def _part(part: Part, base: ModelVersion) -> RecipePatchView:
    return RecipePatchView(
        patch=part.version.patch.full_name,
        version=part.version.number,
        digest=part.version.digest,
        scale=part.scale,
        size_bytes=part.version.size_bytes,
        fit=recipes.fit_of(part.version, base),
        license=part.version.patch.license,
    )


def build(row: Build) -> BuildView:
    """A build with the files it gives."""
    overlays = {file.path: file for file in row.files}
    files = []
    for file in row.recipe.base.weight_files:
        overlay = overlays.get(file.path)
        files.append(
            BuildFileView(
                path=file.path,
                size_bytes=file.size_bytes,
                base_digest=file.digest,
                overlay_digest=overlay.overlay_digest if overlay else None,
                overlay_size_bytes=overlay.overlay_size_bytes if overlay else 0,
                etag=_etag(file, overlay.overlay_digest if overlay else None),
                sha256=overlay.file_digest if overlay else file.digest,
            )
        )
    return BuildView(
        id=builds.hex_of(row.recipe_digest),
        state=row.state,  # type: ignore[arg-type]  # the table's three words are the schema's
        recipe=recipe(recipes.loaded(row.recipe)),
        operation=row.operation_id,
        files=files if row.state == READY else [],
        created_at=row.created_at,
        ready_at=row.ready_at,
    )


def manifest(row: Build) -> ManifestView:
    """What a ready build consists of."""
    changed = {file.path: builds.overlay_header(file).names for file in row.files}
    shown = build(row)
    return ManifestView(
        recipe=shown.recipe,
        files=[
            ManifestFile(
                path=file.path,
                size_bytes=file.size_bytes,
                base_digest=file.base_digest,
                overlay_digest=file.overlay_digest,
                etag=file.etag,
                sha256=file.sha256,
                tensors=list(changed.get(file.path, ())),
            )
            for file in shown.files
        ],
    )


def _etag(file: ModelFile, overlay: str | None) -> str:
    if overlay is None:
        return file.digest.removeprefix("sha256:")
    return patched_tag(Digest(file.digest), Digest(overlay))


def channel(row: Channel, head: ChannelMove) -> ChannelView:
    """A channel with its last move."""
    return ChannelView(
        namespace=row.namespace,
        name=row.name,
        full_name=row.full_name,
        move=row.head,
        head=move(head),
        created_by=row.created_by,
        created_at=row.created_at,
    )


def move(row: ChannelMove) -> MoveView:
    """A move of a channel."""
    return MoveView(
        number=row.number,
        action=row.action,
        base=row.base_reference,
        entered=[_entered(part) for part in row.entered],
        recipe_digest=row.recipe_digest,
        reverted_to=row.reverted_to,
        moved_by=row.moved_by,
        moved_at=row.moved_at,
    )


def _entered(part: dict[str, Any]) -> EnteredPart:
    return EnteredPart(patch=part["patch"], version=part["version"], scale=Decimal(part["scale"]))
