"""Which corruption is this? Patches of other runs and another data set, held to a small catalogue.

The catalogue holds the patches of seed 0 on the first data set, one a corruption, labelled with it.
It needs a service of its own: further patches of the same signatures would be nearest to all.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.paper.experiments import Signature
from benchmarks.paper.measuring import Tell
from benchmarks.paper.nets import NETS
from benchmarks.paper.served import Registry
from benchmarks.paper.trainings import CLEAN, DATA, Nets, Plan, Training
from service.schemas.similarity import Identify


@dataclass(frozen=True, slots=True)
class Identified:
    """An unknown pair and what the service took it for; `cosines` by label."""

    net: str
    data: str
    seed: int
    corruption: str
    label: str | None
    margin: float | None
    trusted: bool
    cosines: dict[str, float]

    @property
    def right(self) -> bool:
        """Whether the nearest signature is of the same corruption."""
        return self.label == self.corruption


def catalogue(plan: Plan, net: str) -> list[Signature]:
    """The patches that unknown ones are held to."""
    base = Training(net, CLEAN, DATA[0], 0)
    return [Signature(base, corruption) for corruption in plan.corruptions]


def unknown(plan: Plan, net: str) -> Iterator[Signature]:
    """The pairs to identify: all but those that the catalogue is made of."""
    for data in DATA:
        for seed in range(plan.seeds):
            if (data, seed) != (DATA[0], 0):
                for corruption in plan.corruptions:
                    yield Signature(Training(net, CLEAN, data, seed), corruption)


def identified_file(nets: Nets) -> Path:
    """Where the answers lie."""
    return nets.cache / "rows" / nets.plan.name / "identification.json"


def identified(nets: Nets) -> list[Identified]:
    """The answers so far."""
    file = identified_file(nets)
    return [Identified(**one) for one in json.loads(file.read_text())] if file.is_file() else []


def wanted(nets: Nets) -> list[Signature]:
    """The pairs that could be identified by now."""
    pairs = [signature for net in NETS for signature in unknown(nets.plan, net)]
    return [
        pair for pair in pairs if all(map(nets.trained, (pair.clean, pair.robust, pair.origin)))
    ]


def outdated(nets: Nets) -> bool:
    """Whether more pairs can be identified than were."""
    return len(wanted(nets)) > len(identified(nets))


def identify_all(registry: Registry, tell: Tell) -> None:
    """Fill the catalogue of an empty service and have it identify every pair that is trained."""
    nets, pairs = registry.nets, wanted(registry.nets)
    tell(f"identification: {len(pairs)} pairs")
    for net in NETS:
        _fill(registry, catalogue(nets.plan, net))
    answers = [_identify(registry, pair) for pair in pairs]
    file = identified_file(nets)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps([asdict(answer) for answer in answers], indent=1), encoding="ascii")
    part.replace(file)


def _fill(registry: Registry, signatures: list[Signature]) -> None:
    """Extract what unknown ones are held to, and wait until the service can compare it."""
    registry.extract(signatures)
    for signature in signatures:
        patch = registry.patch(signature)
        list(registry.client.similarity.neighbours(patch.patch, patch.number))


def _identify(registry: Registry, pair: Signature) -> Identified:
    clean, robust, origin = (
        registry.publish(net).reference for net in (pair.clean, pair.robust, pair.origin)
    )
    answer = registry.client.similarity.identify(
        Identify(clean=clean, robust=robust, origin=origin)
    )
    if answer.compared < len(registry.nets.plan.corruptions):
        raise RuntimeError(f"{pair.robust.name} was held to {answer.compared} patches only")
    return Identified(
        net=pair.clean.net,
        data=pair.clean.data,
        seed=pair.clean.seed,
        corruption=pair.corruption,
        label=answer.label,
        margin=answer.margin,
        trusted=answer.trusted,
        cosines={rank.label: rank.cosine for rank in answer.labels},
    )
