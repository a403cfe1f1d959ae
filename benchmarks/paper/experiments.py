"""What is measured: every experiment as the cases that it consists of.

A *case* is a base with patches on it, looked at through some corruptions. An experiment lists its
cases for one net and one seed; nothing here trains, extracts or measures.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import combinations
from typing import Final, get_args

from benchmarks.paper.trainings import CLEAN, ORIGIN, UPDATED, Plan, Training
from service.schemas.patches import Quality
from service.tensors.selection import DEFAULT, All, ByEnergy, First, Named, Selection

STANDARD: Final[Quality] = "standard"
QUALITIES: Final[tuple[Quality, ...]] = get_args(Quality)
MINMAX_BITS: Final = (4, 3, 2)
ENERGIES: Final = (0.5, 0.7, 0.85, 0.95)
SCALES: Final = ("0.25", "0.5", "0.75", "1", "1.25", "1.5")
DEPTHS: Final[Mapping[str, tuple[int, ...]]] = {
    "vgg": tuple(range(1, 11)),
    "resnet": (1, 3, 6, 9, 12),
}
SHALLOW: Final[Mapping[str, Selection]] = {"vgg": First(7), "resnet": First(6)}
"""What holds an eighth to a quarter of the parameters and most of the robustness."""
DEEP: Final[Mapping[str, Selection]] = {
    "vgg": Named(tuple(f"features.{place}.*" for place in (7, 10, 12, 15, 17, 20, 22))),
    "resnet": Named(("layer3.*", "layer4.*")),
}
"""As many kernels from the other end, with more than nine tenths of the parameters."""
BALANCED: Final = "balanced"
"""The service is asked for the scales."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A patch to extract: from which pair, of which kernels, how closely.

    The robust net is of another seed than the clean one in a *foreign* pair.
    """

    clean: Training
    corruption: str
    layers: Selection = DEFAULT
    quality: Quality = STANDARD
    robust_seed: int | None = None

    @property
    def robust(self) -> Training:
        """The net that saw the corruption."""
        seed = self.clean.seed if self.robust_seed is None else self.robust_seed
        return replace(self.clean, role=self.corruption, seed=seed)

    @property
    def line(self) -> str:
        """The registry's name for the patches of this pair; selections are its versions."""
        robust = self.robust
        against = "" if robust.seed == self.clean.seed else f"-on-{self.clean.seed}"
        return f"{robust.name}{against}"

    @property
    def origin(self) -> Training:
        """What both nets went on from."""
        return Training(self.clean.net, ORIGIN)


@dataclass(frozen=True, slots=True)
class Case:
    """Patches on a base, each at its scale, and through which corruptions to look at it.

    `method` says how the scales came about, or who packed the signature. With `minmax_bits` the
    signature is packed by the paper's own quantizer instead of the registry's.
    """

    base: Training
    parts: tuple[tuple[Signature, Decimal], ...]
    seen: tuple[str, ...]
    method: str = ""
    minmax_bits: int | None = None

    def robust(self, corruption: str) -> Training:
        """The net that was trained for this corruption on the base's own data; the base: clean."""
        if corruption == CLEAN:
            return self.base
        seeds = {s.corruption: s.robust.seed for s, _ in self.parts}
        seed = seeds.get(corruption, self.base.seed)
        return Training(self.base.net, corruption, self.base.data, seed)

    @property
    def needs(self) -> set[Training]:
        """Every net that must be trained before it can be measured."""
        of_patches = {t for s, _ in self.parts for t in (s.clean, s.robust, s.origin)}
        compared = {self.robust(corruption) for corruption in self.seen}
        return {self.base, *of_patches, *compared}


def _clean(net: str, seed: int, data: str = "a") -> Training:
    return Training(net, CLEAN, data, seed)


def _single(signature: Signature, scale: str = "1", base: Training | None = None) -> Case:
    """One patch, by default on the net that it was extracted on, seen through its corruption."""
    return Case(base or signature.clean, ((signature, Decimal(scale)),), (signature.corruption,))


def _also_clean(case: Case) -> Case:
    return replace(case, seen=(*case.seen, CLEAN))


# ── the experiments ──────────────────────────────────────────────────────────────────────────


def shallow(net: str, seed: int, plan: Plan) -> Iterator[Case]:
    """Robustness sits in the first kernels: the first k, and the last ones as a control."""
    choices: list[Selection] = [*map(First, DEPTHS[net]), DEEP[net]]
    for corruption in plan.corruptions:
        for layers in choices:
            yield _single(Signature(_clean(net, seed), corruption, layers, "exact"))


def recovery(net: str, seed: int, plan: Plan) -> Iterator[Case]:
    """How much of the gap comes back by the energy kept; also on foreign pairs."""
    foreign = (seed + 1) % plan.seeds
    for corruption in plan.corruptions:
        matched = Signature(_clean(net, seed), corruption)
        for share in ENERGIES:
            yield _single(replace(matched, layers=ByEnergy(share)))
        yield _single(replace(matched, layers=All()))
        if foreign != seed:
            for layers in (DEFAULT, All()):
                yield _single(replace(matched, layers=layers, robust_seed=foreign))


def scale(net: str, seed: int, plan: Plan) -> Iterator[Case]:
    """From the patch taken the other way to half as much again."""
    for corruption in plan.corruptions:
        for at in SCALES:
            yield _also_clean(_single(Signature(_clean(net, seed), corruption), at))


def quality(net: str, seed: int, plan: Plan) -> Iterator[Case]:
    """Bytes against loss: every quality, and the paper's quantizer on the same signature."""
    for corruption in plan.corruptions:
        for layers in (DEFAULT, SHALLOW[net]):
            exact = Signature(_clean(net, seed), corruption, layers, "exact")
            for name in QUALITIES:
                yield _single(replace(exact, quality=name))
            for bits in MINMAX_BITS:
                yield replace(_single(exact), minmax_bits=bits, method=f"min-max {bits} bits")


def composition(net: str, seed: int, plan: Plan) -> Iterator[Case]:
    """Several patches at once, at scales that are found without data."""
    signatures = [Signature(_clean(net, seed), corruption) for corruption in plan.corruptions]
    for count in range(2, len(signatures) + 1):
        for chosen in combinations(signatures, count):
            seen = tuple(signature.corruption for signature in chosen)
            for method, at in METHODS.items():
                parts = tuple((signature, at(count)) for signature in chosen)
                case = Case(_clean(net, seed), parts, seen, method)
                yield _also_clean(case) if method in {"sum", BALANCED} else case


METHODS: Final[Mapping[str, Callable[[int], Decimal]]] = {
    "sum": lambda _: Decimal(1),
    "mean": lambda count: _places(1 / Decimal(count)),
    "1/sqrt n": lambda count: _places(1 / Decimal(count).sqrt()),
    BALANCED: lambda _: Decimal(1),  # what is wished for; the service answers with what to use
}


def _places(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.0001"))


def transfer(net: str, seed: int, plan: Plan) -> Iterator[Case]:
    """A patch of one data set on the clean net of another, beside that one's own patch."""
    base = _clean(net, seed, "b")
    for corruption in plan.corruptions:
        for layers in (First(4), DEFAULT):
            for at in ("0.5", "1"):
                signature = Signature(_clean(net, seed), corruption, layers)
                yield _also_clean(_single(signature, at, base))
        yield replace(_also_clean(_single(Signature(base, corruption))), method="its own patch")


def update(net: str, seed: int, plan: Plan) -> Iterator[Case]:
    """An old patch on the clean net after further training."""
    base = Training(net, UPDATED, "a", seed)
    for corruption in plan.corruptions:
        yield _also_clean(_single(Signature(_clean(net, seed), corruption), base=base))


Experiment = Callable[[str, int, Plan], Iterator[Case]]
"""From net and seed to cases."""

EXPERIMENTS: Final[Mapping[str, Experiment]] = {
    "recovery": recovery,
    "quality": quality,
    "transfer": transfer,
    "update": update,
    "composition": composition,
    "shallow": shallow,
    "scale": scale,
}
"""In the order in which they are measured."""
