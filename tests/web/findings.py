"""What was found of a catalogue's patches since: measurements, neighbours, a comparison."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from service import queue
from service.db.tables.models import ModelVersion
from service.db.tables.patches import PatchVersion
from service.layout.header import compose
from service.names import digest_of
from service.registry import (
    builds,
    comparisons,
    evaluations,
    operations,
    recipes,
    similarity,
)
from service.registry.access import OWNER
from service.registry.builds import Overlay
from service.schemas.evaluations import Result

COSINES = [[1.0, 0.62, -0.31], [0.62, 1.0, 0.05], [-0.31, 0.05, 1.0]]
"""Of fog, haze and snow, as the catalogue has them."""
HOSTILE = "<script>alert(1)</script>.weight"
CURVES = {
    "clean": (0.92, 0.918, 0.912, 0.9, 0.871),
    "fog": (0.48, 0.61, 0.72, 0.79, 0.76),
    "gaussian-noise": (0.35, 0.37, 0.41, 0.42, 0.4),
}
RECIPE = "vision/net@1+fog=0.5+haze=0.7"
SCALES = ("0", "0.25", "0.5", "1", "1.25")


def measure(session: Session, patch: PatchVersion, base: ModelVersion) -> None:
    """Publish curves, each point by two seeds."""
    results = [
        Result(
            data_set="digits",
            corruption=corruption,
            severity=None if corruption == "clean" else Decimal(3),
            scale=Decimal(scale),
            accuracy=accuracy + (0.01 if seed else -0.01),
            n=500,
            seed=seed,
        )
        for corruption, curve in CURVES.items()
        for scale, accuracy in zip(SCALES, curve, strict=True)
        for seed in (0, 1)
    ]
    evaluations.publish(session, patch, base, results, by=OWNER)


def index(session: Session, versions: Sequence[PatchVersion]) -> None:
    """Put versions into the index; `COSINES` are those of the first three."""
    rows = [
        {"version_id": v.id, "keys": b"", "energies": b"", "sketch": b"", "length": 1.0}
        for v in versions
    ]
    pairs = [(a, b) for a in range(len(versions)) for b in range(len(versions)) if a != b]
    neighbours = [
        {
            "version_id": versions[a].id,
            "neighbour_id": versions[b].id,
            "cosine": COSINES[a][b],
            "error": 0.02 if {a, b} == {1, 2} else 0.0,
            "own_share": 0.9,
            "other_share": 0.8,
            "strength": abs(COSINES[a][b]),
        }
        for a, b in pairs
    ]
    operation = similarity.bring_up_to_date(session, by="owner")
    similarity.record(session, operation, [{**row, "problem": None} for row in rows], neighbours)


def compare(session: Session, versions: Sequence[PatchVersion]) -> None:
    """Record an exact comparison, as a worker would, of some of the first three."""
    operations.worker_seen(session, "w1", list(queue.ALL), "cpu")
    operation = comparisons.request(session, versions, by=OWNER, limits=operations.Limits())
    at = ["fog", "haze", "snow"].index
    ranked = sorted(versions, key=lambda version: version.digest)
    places = [at(version.patch.name) for version in ranked]
    comparisons.record(session, operation, _compared(np.array(COSINES)[np.ix_(places, places)]))


def _compared(cosines: NDArray[np.float64]) -> dict[str, Any]:
    """What is found of signatures of one kernel and unit length."""
    conflict = ((1 - cosines) / 2).tolist()
    values = np.linalg.eigvalsh(cosines)
    layer = {
        "tensor": HOSTILE,
        "shape": [8, 1, 3, 3],
        "patches": list(range(len(cosines))),
        "gram": cosines.tolist(),
        "conflict": conflict,
    }
    return {
        "gram": cosines.tolist(),
        "cosines": cosines.tolist(),
        "conflict": conflict,
        "shared": np.ones_like(cosines).tolist(),
        "balance": {
            "condition": values[-1] / values[0],
            "solve": np.linalg.inv(cosines).tolist(),
        },
        "layers": [layer],
    }


def build(session: Session) -> None:
    """Carry out a recipe of two patches."""
    recipe = recipes.resolve(session, RECIPE, require="same_base")
    digest = recipe.canonical.digest
    made, operation = builds.request(session, recipe, by=OWNER, limits=operations.Limits())
    assert operation is not None
    overlay = compose((("conv.weight", "F32", (4, 3, 3, 3)),))
    path = "model.safetensors"
    done = Overlay(path, digest_of(b"overlay"), overlay.file_size, overlay.raw)
    operations.begin(session, operation.id, worker="w1")
    held = operations.hold(session, operation.id, 1)
    operations.succeed(session, held, builds.record(session, digest, [done]))
    session.refresh(made, ["files"])
    made.files[0].file_digest = digest_of(b"patched")
