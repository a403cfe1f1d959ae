"""Which patches fit which bases, by what they need and what they offer.

Many versions share one architecture, and many patches one requirement, so that a publication of
what is known already compares nothing, and both questions are one join.
"""

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from service.db.declarative import Key, Table


class Architecture(Table):
    """What a base offers: the keys of its patchable tensors (`layout.fit.offers`)."""

    __tablename__ = "architectures"
    __table_args__ = (Index("ix_architectures_offers", "offers", postgresql_using="gin"),)

    id: Mapped[Key]
    digest: Mapped[str] = mapped_column(unique=True)
    """Over the sorted keys."""
    offers: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))


class Requirement(Table):
    """What a patch needs of a base, in both ways of finding a tensor (`layout.fit.needs`)."""

    __tablename__ = "requirements"
    __table_args__ = (
        Index("ix_requirements_by_name", "by_name", postgresql_using="gin"),
        Index("ix_requirements_by_address", "by_address", postgresql_using="gin"),
    )

    id: Mapped[Key]
    digest: Mapped[str] = mapped_column(unique=True)
    by_address: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    by_name: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))


class Fit(Table):
    """A requirement that an architecture meets."""

    __tablename__ = "fits"

    requirement_id: Mapped[int] = mapped_column(ForeignKey("requirements.id"), primary_key=True)
    architecture_id: Mapped[int] = mapped_column(
        ForeignKey("architectures.id"), primary_key=True, index=True
    )
