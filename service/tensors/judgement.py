"""Which corruption is this? The label of the nearest signature, judged by its margin.

Judged by how far the next label is behind, never by the nearest cosine alone: the same corruption
learned on another data set was found at cosines of 0.45 to 0.51, another corruption on the same at
up to 0.56, yet the nearest was always the right one, by at least 0.16. Signatures are not centred:
taking the mean signature away made right answers wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Final

SMALL_MARGIN: Final = 0.1
WEAK_COSINE: Final = 0.2
SMALL_SHARE: Final = 0.5
FEW_LABELS: Final = 3
_TEMPERATURE: Final = 0.05
"""One rival 0.16 behind, the least of the margins above, leaves a confidence of 0.96."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A signature of the catalogue beside the unknown one.

    `error` is one standard deviation of an estimated cosine, 0 of an exact one; the shares are the
    parts of the energy of the unknown and of this one that lie in shared kernels.
    """

    reference: str
    labels: tuple[str, ...]
    cosine: float
    error: float
    own_share: float
    other_share: float


@dataclass(frozen=True, slots=True)
class Label:
    """How near the nearest signature of a label is; `margin` to the nearest that lacks it."""

    label: str
    nearest: str
    cosine: float
    margin: float | None
    patches: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer, and why it should not be trusted, if so.

    `confidence` weighs the best cosines of all labels against each other; no calibrated chance.
    """

    label: str | None
    second: str | None
    margin: float | None
    confidence: float
    reasons: tuple[str, ...]
    labels: tuple[Label, ...]

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against it."""
        return self.label is not None and not self.reasons


def judge(found: Sequence[Candidate]) -> Verdict:
    """Judge an unknown signature by all that share a kernel with it."""
    ranked = sorted(found, key=lambda one: (-one.cosine, one.reference))
    if not ranked:
        reason = "no labelled signature has a kernel of the same place and shape; is it of another "
        return Verdict(None, None, None, 0.0, (reason + "architecture?",), ())
    labels = _ranking(ranked)
    first = labels[0]
    rival = next((one for one in ranked if first.label not in one.labels), None)
    second = next((each for each in labels if rival and each.label in rival.labels), None)
    sure = None if first.margin is None or rival is None else first.margin - 2 * rival.error
    others = [label for label in labels if label.label not in ranked[0].labels]
    weights = sum(exp((each.cosine - first.cosine) / _TEMPERATURE) for each in others)
    return Verdict(
        first.label,
        second.label if second else None,
        first.margin,
        1 / (1 + weights) if others else 0.0,
        tuple(_doubts(ranked[0], sure, len(others) + 1)),
        tuple(labels),
    )


def _ranking(ranked: Sequence[Candidate]) -> list[Label]:
    """The labels, nearest first; of those that one signature has, what tells most goes first."""
    found = []
    for label in dict.fromkeys(label for one in ranked for label in one.labels):
        holders = [one for one in ranked if label in one.labels]
        rival = next((one for one in ranked if label not in one.labels), None)
        margin = holders[0].cosine - rival.cosine if rival else None
        found.append(Label(label, holders[0].reference, holders[0].cosine, margin, len(holders)))
    return sorted(
        found, key=lambda each: (-each.cosine, each.margin is None, each.patches, each.label)
    )


def _doubts(nearest: Candidate, margin: float | None, labels: int) -> list[str]:
    doubts = []
    if margin is None:
        doubts.append("there is no signature of another label to tell it from")
    elif margin < SMALL_MARGIN:
        doubts.append(f"the margin to the second label is {margin:.2f}, below {SMALL_MARGIN}")
    if labels < FEW_LABELS:
        doubts.append(f"signatures of {labels} label(s) can be compared; {FEW_LABELS} are wanted")
    if nearest.cosine < WEAK_COSINE:
        doubts.append(f"the nearest signature is far: its cosine is {nearest.cosine:.2f}")
    for share, whose in ((nearest.own_share, "its own"), (nearest.other_share, "the nearest's")):
        if share < SMALL_SHARE:
            doubts.append(f"only {share:.0%} of {whose} energy lies in kernels that both hold")
    return doubts
