"""Recipes: read, resolve to exact versions, check that all fits, name by digest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, Literal

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.models import Model, ModelVersion
from service.db.tables.patches import PatchVersion
from service.db.tables.recipes import Recipe, RecipePatch
from service.layout import fit
from service.names import (
    MAX_PATCHES,
    CanonicalRecipe,
    Digest,
    Ingredient,
    Name,
    Reference,
    canonical_recipe,
    model_reference,
    parse_digest,
    parse_recipe,
    patch_reference,
    scale_text,
    version_number,
)
from service.registry import models, patches
from service.registry.access import Principal
from service.schemas.recipes import RecipeBody

Fit = Literal["same_base", "same_architecture"]
USUAL_SCALES = (Decimal(0), Decimal("1.5"))  # outside, accuracy falls: Cai et al. 2023
SHOWN_REASONS = 10
PLAIN_SUM: Final = "plain sums of several patches interfere; balance them, or take smaller scales"


@dataclass(frozen=True, slots=True)
class Part:
    """A patch of a recipe with its version found."""

    version: PatchVersion
    scale: Decimal


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe whose every name is an exact version; `entered` as given, zeros included."""

    base: ModelVersion
    entered: tuple[Part, ...]
    canonical: CanonicalRecipe
    parts: tuple[Part, ...]
    """In canonical order: merged, without zeros."""
    overlay_bytes: int


def fit_of(version: PatchVersion, base: ModelVersion) -> Fit:
    """Whether a patch was extracted on these very weights, or fits by its tensors alone."""
    return "same_base" if version.clean_digest == base.weights_digest else "same_architecture"


def resolve(session: Session, recipe: RecipeBody | str, *, require: Fit) -> Resolved:
    """Resolve and check a recipe: an object, a reference string, or a recipe digest.

    Raises `BadReference`, `BadRecipe`, `ThingNotFound`, `ThingDeleted`, `TwoVersionsOfOnePatch`,
    `BadScale`, `DoesNotFit`, `NotTheSameBase`.
    """
    return resolve_all(session, [recipe], require=require)[0]


def resolve_all(
    session: Session, every: Sequence[RecipeBody | str], *, require: Fit
) -> list[Resolved]:
    """Resolve and check recipes as `resolve` does each; what several of them name is read once."""
    look = _Look(session)
    found = [look.recipe(recipe, require) for recipe in every]
    fresh = [each for each in found if isinstance(each, _Entered)]
    known = look.known(each.canonical.digest for each in fresh)
    return [look.resolved(each, known) if isinstance(each, _Entered) else each for each in found]


@dataclass(frozen=True, slots=True)
class _Entered:
    """A recipe whose names are found, and whose patches are not yet known to fit."""

    base: ModelVersion
    entered: tuple[Part, ...]
    canonical: CanonicalRecipe


class _Look:
    """Finds what recipes name, each thing once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._models: dict[Reference, ModelVersion] = {}
        self._patches: dict[tuple[Name, int | None], PatchVersion] = {}
        self._overlays: dict[tuple[int, frozenset[int]], int] = {}

    def recipe(self, recipe: RecipeBody | str, require: Fit) -> _Entered | Resolved:
        """Find a recipe's base and patches, or a whole recipe that is named by its digest."""
        if isinstance(recipe, str) and recipe.startswith("sha256:"):
            return _recorded(self._session, parse_digest(recipe), require)
        base, ingredients = self._read(recipe)
        if len(ingredients) > MAX_PATCHES:
            raise errors.BadRecipe(
                base.reference, f"lists {len(ingredients)} patches; at most {MAX_PATCHES} may be"
            )
        entered = tuple(Part(self._patch(item), item.scale) for item in ingredients)
        _check_versions(entered)
        canonical = canonical_recipe(
            Digest(base.weights_digest), ((Digest(p.version.digest), p.scale) for p in entered)
        )
        if require == "same_base":
            _require_same_base(base, entered)
        return _Entered(base, entered, canonical)

    def known(self, digests: Iterable[Digest]) -> dict[str, int]:
        """How many bytes of tensors each recipe touches, of those that are recorded."""
        query = select(Recipe.digest, Recipe.overlay_bytes).where(Recipe.digest.in_(set(digests)))
        return {row.digest: row.overlay_bytes for row in self._session.execute(query)}

    def resolved(self, recipe: _Entered, known: Mapping[str, int]) -> Resolved:
        """The recipe, checked unless it was when it was recorded."""
        overlay_bytes = known.get(recipe.canonical.digest)
        if overlay_bytes is None:
            overlay_bytes = self._fitting(recipe.base, recipe.entered)
        by_digest = {part.version.digest: part.version for part in reversed(recipe.entered)}
        parts = tuple(Part(by_digest[digest], scale) for digest, scale in recipe.canonical.patches)
        return Resolved(recipe.base, recipe.entered, recipe.canonical, parts, overlay_bytes)

    def _read(self, recipe: RecipeBody | str) -> tuple[ModelVersion, Sequence[Ingredient]]:
        if isinstance(recipe, str):
            reference = model_reference(recipe)
            if reference.revision is None or not set("+ =") & set(reference.revision):
                return self._model(reference), ()
            text = parse_recipe(reference.revision, reference.name.namespace)
            return self._model(Reference(reference.name, text.base)), text.patches
        base = self._model(model_reference(recipe.base))
        return base, [_ingredient(part.patch, part.scale) for part in recipe.patches]

    def _model(self, reference: Reference) -> ModelVersion:
        if reference not in self._models:
            self._models[reference] = models.resolve(self._session, reference)
        return self._models[reference]

    def _patch(self, item: Ingredient) -> PatchVersion:
        key = item.patch, item.version
        if key not in self._patches:
            self._patches[key] = patches.resolve(self._session, *key)
        return self._patches[key]

    def _fitting(self, base: ModelVersion, entered: Sequence[Part]) -> int:
        key = base.id, frozenset(part.version.id for part in entered)
        if key not in self._overlays:
            self._overlays[key] = _check_fit(self._session, base, entered)
        return self._overlays[key]


def _ingredient(text: str, scale: Decimal) -> Ingredient:
    reference = patch_reference(text)
    number = version_number(reference.revision) if reference.revision else None
    return Ingredient(reference.name, number, scale)


def _check_versions(entered: Sequence[Part]) -> None:
    numbers: dict[str, set[int]] = {}
    for part in entered:
        numbers.setdefault(part.version.patch.full_name, set()).add(part.version.number)
    for patch, found in numbers.items():
        if len(found) > 1:
            raise errors.TwoVersionsOfOnePatch(patch, sorted(found))


def _recorded(session: Session, digest: Digest, require: Fit) -> Resolved:
    resolved = _living(loaded(find(session, digest)))
    if require == "same_base":
        _require_same_base(resolved.base, resolved.parts)
    return resolved


def _living(resolved: Resolved) -> Resolved:
    """The same recipe, if none of its versions was deleted; raises `ThingDeleted`."""
    versions: list[ModelVersion | PatchVersion] = [resolved.base]
    versions += [part.version for part in resolved.parts]
    for version in versions:
        if version.deleted_at is not None:
            raise errors.ThingDeleted("version", version.reference)
    return resolved


def _require_same_base(base: ModelVersion, entered: Sequence[Part]) -> None:
    for part in entered:
        if fit_of(part.version, base) != "same_base":
            extracted_on = part.version.clean.reference if part.version.clean else "other weights"
            raise errors.NotTheSameBase(part.version.reference, base.reference, extracted_on)


def _check_fit(session: Session, base: ModelVersion, entered: Sequence[Part]) -> int:
    """Check each patch against the base; answers how many bytes of tensors they touch."""
    headers = models.headers(session, base.weight_files)
    needs = {part.version.reference: patches.needs(part.version) for part in entered}
    for reference, needed in needs.items():
        _refuse(reference, base, fit.check(headers, needed))
    _refuse(" with ".join(needs), base, fit.mixed(headers, needs.values()))
    return sum(
        headers[path].entry(name).size_bytes
        for path, names in fit.touched(headers, needs.values()).items()
        for name in names
    )


def _refuse(patch: str, base: ModelVersion, reasons: Sequence[str]) -> None:
    if reasons:
        more = max(0, len(reasons) - SHOWN_REASONS)
        raise errors.DoesNotFit(patch, base.reference, list(reasons[:SHOWN_REASONS]), more)


def loaded(recipe: Recipe) -> Resolved:
    """A recorded recipe, as if it were resolved again; its checks were made when it was made."""
    parts = tuple(Part(row.version, row.scale) for row in recipe.patches)
    canonical = canonical_recipe(
        Digest(recipe.base.weights_digest),
        ((Digest(part.version.digest), part.scale) for part in parts),
    )
    return Resolved(recipe.base, parts, canonical, parts, recipe.overlay_bytes)


def find(session: Session, digest: Digest) -> Recipe:
    """The recorded recipe of this digest; raises `ThingNotFound`."""
    recipe = session.get(Recipe, digest)
    if recipe is None:
        raise errors.ThingNotFound("recipe", digest)
    return recipe


def find_all(session: Session, digests: Sequence[Digest]) -> list[Recipe]:
    """The recorded recipes of these digests, in their order; raises `ThingNotFound`."""
    query = select(Recipe).where(Recipe.digest.in_(digests))
    found = {recipe.digest: recipe for recipe in session.scalars(query)}
    for digest in digests:
        if digest not in found:
            raise errors.ThingNotFound("recipe", digest)
    return [found[digest] for digest in digests]


def is_known(session: Session, digest: Digest) -> bool:
    """Whether a recipe was recorded."""
    return session.scalar(select(Recipe.digest).where(Recipe.digest == digest)) is not None


def of_commit(session: Session, model: Model, commit: str) -> Resolved:
    """The recorded recipe on a model's own weights whose digest begins with these hex digits.

    Raises `ThingNotFound` and `ThingDeleted`.
    """
    first, last = (Digest(f"sha256:{commit:{filler}<64}") for filler in "0f")
    own = (ModelVersion.model_id == model.id) & ModelVersion.deleted_at.is_(None)
    found = session.scalars(select(Recipe).where(Recipe.digest.between(first, last))).first()
    if found is None:
        raise errors.ThingNotFound("commit", f"{model.full_name}@{commit}")
    base = session.scalars(
        select(ModelVersion)
        .where(own, ModelVersion.weights_digest == found.base.weights_digest)
        .order_by(ModelVersion.number.desc())
    ).first()
    if base is None:
        raise errors.ThingNotFound("commit", f"{model.full_name}@{commit}")
    # Not on the version that it was first made on: that may be another model's, or deleted.
    return _living(replace(loaded(found), base=base))


def save(session: Session, resolved: Resolved, *, by: Principal) -> Recipe:
    """Record a recipe, so that its digest finds it again; as `save_all` does."""
    save_all(session, [resolved], by=by)
    return find(session, resolved.canonical.digest)


def save_all(session: Session, every: Sequence[Resolved], *, by: Principal) -> None:
    """Record recipes, in order of their digests; each once however often it is made.

    None of their versions can be deleted before this transaction ends, so that what it points at a
    recipe (a channel, a build) is seen by whoever would delete one. Raises `ThingDeleted`.
    """
    _hold(session, ModelVersion, [resolved.base for resolved in every])
    _hold(session, PatchVersion, [part.version for each in every for part in each.parts])
    by_digest = {resolved.canonical.digest: resolved for resolved in every}
    rows = [
        {
            "digest": digest,
            "base_version_id": by_digest[digest].base.id,
            "canonical": by_digest[digest].canonical.json(),
            "overlay_bytes": by_digest[digest].overlay_bytes,
            "created_by": by.id,
        }
        for digest in sorted(by_digest)
    ]
    made = session.scalars(
        insert(Recipe).values(rows).on_conflict_do_nothing().returning(Recipe.digest)
    )
    session.add_all(
        RecipePatch(
            recipe_digest=digest,
            position=position,
            patch_version_id=part.version.id,
            scale=part.scale,
        )
        for digest in made.all()
        for position, part in enumerate(by_digest[Digest(digest)].parts)
    )
    session.flush()


def _hold(
    session: Session,
    table: type[ModelVersion | PatchVersion],
    versions: Sequence[ModelVersion | PatchVersion],
) -> None:
    wanted = {version.id: version.reference for version in versions}
    living = select(table.id).where(table.id.in_(wanted), table.deleted_at.is_(None))
    held = set(session.scalars(living.order_by(table.id).with_for_update(read=True)))
    for gone in wanted.keys() - held:
        raise errors.ThingDeleted("version", wanted[gone])


def pinned(resolved: Resolved) -> str:
    """The recipe as a reference string with every version pinned."""
    base = resolved.base.model
    parts = "".join(
        f"+{_short(part.version, base.namespace)}~{part.version.number}={scale_text(part.scale)}"
        for part in resolved.parts
    )
    return f"{base.full_name}@{resolved.base.number}{parts}"


def _short(version: PatchVersion, namespace: str) -> str:
    patch = version.patch
    same = patch.namespace.lower() == namespace.lower()
    return patch.name if same else f"{patch.namespace}.{patch.name}"


def licenses(resolved: Resolved) -> list[str]:
    """The licences of all parts, each once."""
    patched = (part.version.patch.license for part in resolved.parts)
    return sorted({text for text in (resolved.base.model.license, *patched) if text})


def warnings(resolved: Resolved) -> list[str]:
    """What is allowed but worth a second look, for people."""
    found = []
    if resolved.base.withdrawn_at is not None:
        found.append(f"base {resolved.base.reference} is withdrawn")
    for part in resolved.parts:
        name = part.version.reference
        if part.version.withdrawn_at is not None:
            found.append(f"patch {name} is withdrawn")
        if fit_of(part.version, resolved.base) == "same_architecture":
            found.append(f"patch {name} was extracted on another base of the same architecture")
        if not USUAL_SCALES[0] <= part.scale <= USUAL_SCALES[1]:
            found.append(f"patch {name}: accuracy usually falls outside scales 0 to 1.5")
    if len(resolved.parts) > 1:
        found.append(PLAIN_SUM)
    return found
