"""What models and patches have in common: a named line with a card, a licence and labels."""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, any_, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.models import Model
from service.db.tables.patches import Patch
from service.names import Name
from service.registry.access import Principal

Line = TypeVar("Line", Model, Patch)


def kind_of(table: type[Model | Patch]) -> str:
    """`model` or `patch`."""
    return "model" if table is Model else "patch"


def find(session: Session, table: type[Line], name: Name, *, lock: bool = False) -> Line:
    """The line of this name, in whatever case; raises `ThingNotFound` and `ThingDeleted`."""
    query = select(table).where(table.key == name.key)
    line = session.scalar(query.with_for_update() if lock else query)
    if line is None:
        raise errors.ThingNotFound(kind_of(table), str(name))
    if line.deleted_at is not None:
        raise errors.ThingDeleted(kind_of(table), str(name))
    return line


def describe(
    session: Session,
    table: type[Line],
    name: Name,
    *,
    card: str,
    license: str | None,  # noqa: A002  # the field's name everywhere
    labels: Sequence[str],
    by: Principal,
) -> tuple[Line, bool]:
    """Make a line, or replace its description; answers whether it is new.

    A deleted line begins anew: its version numbers go on where they ended.
    """
    made = session.scalar(
        insert(table)
        .values(
            namespace=name.namespace,
            name=name.name,
            key=name.key,
            card=card,
            license=license,
            labels=list(labels),
            created_by=by.id,
        )
        .on_conflict_do_nothing()
        .returning(table.id)
    )
    line = session.scalars(
        select(table)
        .where(table.key == name.key)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    if made is not None:
        return line, True
    was_deleted = line.deleted_at is not None
    line.deleted_at = None
    edit(session, line, card=card, license=license, labels=labels)
    return line, was_deleted


def edit(session: Session, line: Model | Patch, **changes: Any) -> None:
    """Change a line's `card`, `license` or `labels`."""
    for field, value in changes.items():
        setattr(line, field, list(value) if field == "labels" else value)
    line.revision += 1
    line.updated_at = func.now()
    session.flush()
    session.refresh(line)


def listed(
    session: Session,
    table: type[Line],
    *,
    words: str = "",
    label: str | None = None,
    after: str | None,
    limit: int,
) -> Sequence[Line]:
    """Some lines in the order of their keys, behind key `after`.

    Each of `words` must occur in the name or be a label.
    """
    query = matching(select(table), table, words=words, label=label)
    if after is not None:
        query = query.where(table.key > after)
    return session.scalars(query.order_by(table.key).limit(limit)).all()


def matching(
    query: Select[Any], table: type[Line], *, words: str, label: str | None
) -> Select[Any]:
    """Restrict a query to living lines that match."""
    query = query.where(table.deleted_at.is_(None))
    for word in words.lower().split():
        query = query.where(
            table.key.contains(word, autoescape=True) | (literal(word) == any_(table.labels))
        )
    return query if label is None else query.where(table.labels.contains([label]))
