"""From cases to rows: has the service extract, build and hand out, and judges what it hands out.

A *unit* is an experiment on one net and one seed. Its rows are written as one JSON file when all
of its cases are measured. Judgements are remembered by the digest of the recipe, so a unit that is
run again judges only what has become other bytes.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.torch import load_file

from benchmarks.paper.experiments import EXPERIMENTS, Case, Signature
from benchmarks.paper.judging import Judge
from benchmarks.paper.nets import NETS, StateDict
from benchmarks.paper.packing import packed_by_minmax
from benchmarks.paper.served import Registry
from benchmarks.paper.trainings import Nets, Plan, Training
from service.client.problem import ServiceProblem
from service.errors import CannotBalance
from service.schemas.patches import PatchVersionView
from service.schemas.recipes import RecipeView
from service.tensors.selection import All, ByEnergy, First, Named, Selection

BUILT_AHEAD: Final = 12
"""So many recipes are asked for at once: they are built while the first are judged."""


Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Unit:
    """An experiment on one net and one seed."""

    experiment: str
    net: str
    seed: int

    @property
    def name(self) -> str:
        """The stem of the file that its rows lie in."""
        return f"{self.experiment}-{self.net}-{self.seed}"

    def cases(self, plan: Plan) -> list[Case]:
        """What it consists of."""
        return list(EXPERIMENTS[self.experiment](self.net, self.seed, plan))


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one case.

    `accuracy`, `unpatched` and `robust` are shares of right answers by what was seen: of the
    patched net, of its base, and of the net trained for that corruption. `judged` names the patched
    net in the ledger.
    """

    experiment: str
    net: str
    seed: int
    data: str
    patches: list[str]
    pair: str
    selection: str
    quality: str
    method: str
    scales: list[str]
    bytes: int
    base_bytes: int
    energy_kept: float
    parameters_kept: float
    judged: str
    accuracy: dict[str, float]
    unpatched: dict[str, float]
    robust: dict[str, float]

    @property
    def ratio(self) -> float:
        """How many times smaller the patches are than the base as it is stored."""
        return self.base_bytes / self.bytes

    def recovery(self, corruption: str) -> float:
        """The share of the gap between the unpatched and the robust net that is given back."""
        gap = self.robust[corruption] - self.unpatched[corruption]
        return (self.accuracy[corruption] - self.unpatched[corruption]) / gap


def units(plan: Plan) -> Iterator[Unit]:
    """Every unit: an experiment with all its seeds before the next experiment."""
    for experiment in EXPERIMENTS:
        for seed in range(plan.seeds):
            for net in NETS:
                yield Unit(experiment, net, seed)


def rows_file(nets: Nets, unit: Unit) -> Path:
    """Where the rows of a unit lie."""
    return nets.cache / "rows" / nets.plan.name / f"{unit.name}.json"


def rows(nets: Nets) -> list[Row]:
    """All that is measured so far."""
    files = [rows_file(nets, unit) for unit in units(nets.plan)]
    return [Row(**row) for file in files if file.is_file() for row in json.loads(file.read_text())]


def measure_all(
    registry: Registry, judge: Judge, chosen: Collection[str], again: Collection[str], tell: Tell
) -> None:
    """Measure the units of the chosen experiments whose nets are trained.

    Those that are measured already are passed over, but for experiments in `again`.
    """
    nets = registry.nets
    for unit in units(nets.plan):
        file = rows_file(nets, unit)
        done = file.is_file() and unit.experiment not in again
        if done or unit.experiment not in chosen:
            continue
        cases = unit.cases(nets.plan)
        untrained = {need.name for case in cases for need in case.needs if not nets.trained(need)}
        if untrained:
            tell(f"{unit.name}: waits for {len(untrained)} nets, such as {min(untrained)}")
            continue
        tell(f"{unit.name}: {len(cases)} cases")
        measured = Bench(registry, judge, unit, tell).measure(cases)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps([asdict(row) for row in measured], indent=1), encoding="ascii")
        part.replace(file)


@dataclass
class Bench:
    """Measures the cases of one unit."""

    registry: Registry
    judge: Judge
    unit: Unit
    tell: Tell

    def measure(self, cases: Sequence[Case]) -> list[Row]:
        """The rows of the cases, in their order."""
        self.registry.extract(signature for case in cases for signature, _ in case.parts)
        pairs = [(case, recipe) for case in cases if (recipe := self._resolved(case))]
        measured = []
        for start in range(0, len(pairs), BUILT_AHEAD):
            some = pairs[start : start + BUILT_AHEAD]
            for _, recipe in some:
                if self.judge.ledger.given_by(recipe.digest) is None:
                    self.registry.request(recipe)
            measured += [self._row(case, recipe) for case, recipe in some]
        return measured

    def _resolved(self, case: Case) -> RecipeView | None:
        """The recipe; None where the service says that these patches cannot be balanced."""
        try:
            return self.registry.resolve(case)
        except ServiceProblem as problem:
            if problem.slug != CannotBalance.slug:
                raise
            self.tell(f"{self.unit.name}: {problem.detail}")
            return None

    def _row(self, case: Case, recipe: RecipeView) -> Row:
        patches = [self.registry.patch(signature) for signature, _ in case.parts]
        scales = {part.digest: part.scale for part in recipe.patches}
        made = self._packed(case, recipe) if case.minmax_bits else self._patched(recipe)
        return Row(
            **asdict(self.unit),
            data=case.base.data,
            **_about([signature for signature, _ in case.parts], patches),
            method=case.method,
            scales=[str(scales[patch.digest]) for patch in patches],
            bytes=made.packed_bytes or sum(patch.size_bytes for patch in patches),
            base_bytes=self.registry.publish(case.base).size_bytes,
            judged=made.file,
            accuracy={seen: self._share(case, seen, made.file, made.weights) for seen in case.seen},
            unpatched={seen: self._share_of(case.base, case, seen) for seen in case.seen},
            robust={seen: self._share_of(case.robust(seen), case, seen) for seen in case.seen},
        )

    def _patched(self, recipe: RecipeView) -> "_Made":
        """What the service builds; pulled where it is not known which file that is."""
        pull = cache(partial(self.registry.pull, recipe))
        file = self.judge.ledger.given_by(recipe.digest)
        if file is None:
            file, _ = pull()
            self.judge.ledger.pulled(recipe.digest, file)
        return _Made(file, lambda: pull()[1])

    def _packed(self, case: Case, recipe: RecipeView) -> "_Made":
        """The same of an exact patch, packed by the paper's quantizer."""
        assert case.minmax_bits is not None  # noqa: S101  # who calls has looked
        file, patched = self.registry.pull(recipe)
        base = load_file(self.registry.nets.file(case.base))
        size, weights = packed_by_minmax(base, patched, case.minmax_bits)
        return _Made(f"{file}/minmax{case.minmax_bits}", lambda: weights, size)

    def _share_of(self, net: Training, case: Case, seen: str) -> float:
        """How much of the images a net as it was trained reads rightly."""
        file = self.registry.publish(net).files[0].digest
        return self._share(case, seen, file, partial(load_file, self.registry.nets.file(net)))

    def _share(self, case: Case, seen: str, file: str, weights: Callable[[], StateDict]) -> float:
        """How much of the base's images a net with these weights reads rightly."""
        data, net = case.base.data, case.base.net
        rights = self.judge.known(file, data, seen)
        if rights is None:
            rights = self.judge.judge(file, data, seen, net, weights())
        return float(rights.mean())


@dataclass(frozen=True, slots=True)
class _Made:
    """Patched weights: the name of their bytes, how to come by them, how many bytes packed."""

    file: str
    weights: Callable[[], StateDict]
    packed_bytes: int | None = None


def _about(signatures: Sequence[Signature], patches: Sequence[PatchVersionView]) -> dict[str, Any]:
    """What a row says of its patches; of several, the mean."""
    first, summaries = signatures[0], [patch.summary for patch in patches]
    return {
        "patches": [signature.corruption for signature in signatures],
        "pair": "matched" if first.robust.seed == first.clean.seed else "foreign",
        "selection": selection_label(first.layers),
        "quality": first.quality,
        "energy_kept": float(np.mean([summary["energy_kept"] for summary in summaries])),
        "parameters_kept": float(
            np.mean([s["parameters_kept"] / s["parameters"] for s in summaries])
        ),
    }


def selection_label(selection: Selection) -> str:
    """A selection in words short enough for a table."""
    match selection:
        case ByEnergy(share):
            return f"energy {share:g}"
        case First(count):
            return f"first {count}"
        case Named():
            return "the deep ones"
        case All():
            return "all"
