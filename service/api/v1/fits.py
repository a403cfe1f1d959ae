"""Which patches fit a base, which bases a patch fits."""

from fastapi import APIRouter

from service.api.v1.lines import NOT_THERE
from service.api.v1.models import VersionPath
from service.api.v1.patches import NumberPath
from service.db.tables.models import ModelVersion
from service.db.tables.patches import PatchVersion
from service.http.deps import DbSession, ModelPath, PatchPath, Reader
from service.http.paging import Pages
from service.http.problems import answers
from service.names import Reference
from service.registry import fits, models, patches, recipes
from service.schemas.fits import FittingBase, FittingPatch
from service.schemas.wire import Page

router = APIRouter()


@router.get(
    "/models/{namespace}/{name}/versions/{version}/patches",
    name="patches",
    tags=["models"],
    responses=answers(*NOT_THERE),
)
def fitting_patches(
    name: ModelPath,
    version: VersionPath,
    session: DbSession,
    caller: Reader,
    paging: Pages,
) -> Page[FittingPatch]:
    """List the patch versions that fit a model version, newest first."""
    base = models.resolve(session, Reference(name, version))

    def view(row: PatchVersion) -> FittingPatch:
        return FittingPatch(
            patch=row.patch.full_name,
            version=row.number,
            reference=row.reference,
            digest=row.digest,
            size_bytes=row.size_bytes,
            labels=row.patch.labels,
            fit=recipes.fit_of(row, base),
        )

    rows = fits.patches_for(session, base, before=paging.after(int), limit=paging.fetch)
    return paging.page(rows, key=lambda row: row.id, view=view)


@router.get(
    "/patches/{namespace}/{name}/versions/{number}/bases",
    name="bases",
    tags=["patches"],
    responses=answers(*NOT_THERE),
)
def fitting_bases(
    name: PatchPath,
    number: NumberPath,
    session: DbSession,
    caller: Reader,
    paging: Pages,
) -> Page[FittingBase]:
    """List the model versions that a patch version fits, newest first."""
    patch = patches.resolve(session, name, number)

    def view(row: ModelVersion) -> FittingBase:
        return FittingBase(
            model=row.model.full_name,
            version=row.number,
            reference=row.reference,
            weights_digest=row.weights_digest,
            fit=recipes.fit_of(patch, row),
        )

    rows = fits.bases_for(session, patch, before=paging.after(int), limit=paging.fetch)
    return paging.page(rows, key=lambda row: row.id, view=view)
