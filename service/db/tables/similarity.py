"""Signatures measured for comparison: who is near whom, and sets compared in full."""

from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from service.db.declarative import Now, Table


class MeasuredSignature(Table):
    """What a patch version is compared by; little endian, one number a kernel but for the sketch.

    A version without a row was not looked at yet; one with a `problem` could not be read.
    """

    __tablename__ = "measured_signatures"

    version_id: Mapped[int] = mapped_column(ForeignKey("patch_versions.id"), primary_key=True)
    keys: Mapped[bytes] = mapped_column(LargeBinary)
    """i64, sorted: each stands for a kernel's place and shape."""
    energies: Mapped[bytes] = mapped_column(LargeBinary)
    """f64: |R|^2 / |W|^2 of each kernel."""
    sketch: Mapped[bytes] = mapped_column(LargeBinary)
    """f16, `tensors.similarity.WIDTH` of them."""
    length: Mapped[float]
    floor: Mapped[float]
    """What a neighbour's strength must exceed to be among those kept; -1 while there is room."""
    problem: Mapped[str | None]
    measured_at: Mapped[Now]


class Neighbour(Table):
    """One of the versions that a version is most like; the pair may stand here the other way, too.

    `error` is one standard deviation of an estimated cosine, and 0 of an exact one.
    """

    __tablename__ = "neighbours"
    __table_args__ = (Index("ix_neighbours_version_id_strength", "version_id", "strength"),)

    version_id: Mapped[int] = mapped_column(ForeignKey("patch_versions.id"), primary_key=True)
    neighbour_id: Mapped[int] = mapped_column(ForeignKey("patch_versions.id"), primary_key=True)
    cosine: Mapped[float]
    error: Mapped[float]
    own_share: Mapped[float]
    """Which part of the version's energy lies in kernels that both hold."""
    other_share: Mapped[float]
    strength: Mapped[float]
    """How far from zero the cosine certainly is."""


class Comparison(Table):
    """A set of patch files compared each with each: a fact about their bytes, so it never ages."""

    __tablename__ = "comparisons"

    digest: Mapped[str] = mapped_column(primary_key=True)
    """Of the sorted digests of the files; the blobs themselves may be gone."""
    result: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """As `compute.compare.compare` gives it, in the order of the sorted digests."""
    made_at: Mapped[Now]
