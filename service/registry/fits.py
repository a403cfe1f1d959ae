"""Which patches fit a base, and which bases a patch fits: one query each.

What is published is compared with what is there once, when its architecture or its requirement is
the first of its kind.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Select, func, insert, literal, or_, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from service.db.tables.fits import Architecture, Fit, Requirement
from service.db.tables.models import ModelVersion
from service.db.tables.patches import PatchVersion
from service.layout import fit
from service.names import digest_of

_LOCK: Final = 0x66697473
"""Two that are the first of their kinds must see each other, so they are recorded in turn."""


def architecture_of(session: Session, base: fit.Base) -> int:
    """The id of what a base offers, compared with every requirement if it is new."""
    offers = sorted(fit.offers(base))
    digest = _digest(offers)
    known = session.scalar(select(Architecture.id).where(Architecture.digest == digest))
    if known is not None:
        return known
    made = _first(session, Architecture, digest=digest, offers=offers)
    if made is None:
        return session.scalars(select(Architecture.id).where(Architecture.digest == digest)).one()
    met = or_(Requirement.by_name.contained_by(offers), Requirement.by_address.contained_by(offers))
    _record(session, select(Requirement.id, literal(made)).where(met))
    return made


def requirement_of(session: Session, parts: Sequence[fit.Part]) -> int:
    """The id of what a signature needs, compared with every architecture if it is new."""
    needs = fit.needs(parts)
    by_address = sorted(needs.by_address)
    by_name = None if needs.by_name is None else sorted(needs.by_name)
    digest = _digest([by_address, by_name])
    known = session.scalar(select(Requirement.id).where(Requirement.digest == digest))
    if known is not None:
        return known
    made = _first(session, Requirement, digest=digest, by_address=by_address, by_name=by_name)
    if made is None:
        return session.scalars(select(Requirement.id).where(Requirement.digest == digest)).one()
    ways = [Architecture.offers.contains(keys) for keys in (by_address, by_name) if keys]
    _record(session, select(literal(made), Architecture.id).where(or_(*ways)))
    return made


def _digest(keys: Any) -> str:
    return digest_of(repr(keys).encode())


def _first(session: Session, table: type[Architecture | Requirement], **values: Any) -> int | None:
    """The id of a new row; None where another transaction was first."""
    session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    query = postgresql.insert(table).values(**values).on_conflict_do_nothing()
    return session.scalar(query.returning(table.id))


def _record(session: Session, pairs: Select[int, int]) -> None:
    session.execute(insert(Fit).from_select(["requirement_id", "architecture_id"], pairs))


# ── the two questions ────────────────────────────────────────────────────────────────────────


def patches_for(
    session: Session, base: ModelVersion, *, before: int | None, limit: int
) -> Sequence[PatchVersion]:
    """Patch versions that fit `base`, newest first, before the one of id `before`."""
    met = select(Fit.requirement_id).where(Fit.architecture_id == base.architecture_id)
    query = select(PatchVersion).where(PatchVersion.requirement_id.in_(met))
    return session.scalars(_page(query, PatchVersion, before, limit)).all()


def bases_for(
    session: Session, patch: PatchVersion, *, before: int | None, limit: int
) -> Sequence[ModelVersion]:
    """Model versions that `patch` fits, newest first, before the one of id `before`."""
    met = select(Fit.architecture_id).where(Fit.requirement_id == patch.requirement_id)
    query = select(ModelVersion).where(ModelVersion.architecture_id.in_(met))
    return session.scalars(_page(query, ModelVersion, before, limit)).all()


def _page(
    query: Select[Any], table: type[ModelVersion | PatchVersion], before: int | None, limit: int
) -> Select[Any]:
    query = query.where(table.deleted_at.is_(None), table.withdrawn_at.is_(None))
    if before is not None:
        query = query.where(table.id < before)
    return query.order_by(table.id.desc()).limit(limit)
