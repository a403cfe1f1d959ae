"""Which nets are trained, from what, in which order; trains them and keeps them.

For each net one *origin* learns both data sets, as twenty classes. Every other net goes on from it:

origin ─┬─ clean ──── updated    the clean net, trained a little more on further images
        ├─ gaussian-noise …      a robust net: sees images with this corruption only
        └─ …

A net of one seed sees the same images in the same batches as its clean sibling, corrupted or not:
a *matched* pair. Seeds differ in images and order, so the clean net of one and the robust net of
another are a *foreign* pair. All seeds share the origin, as all users of a published checkpoint do.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Generator, nn
from torch.nn import functional

from benchmarks.paper import images, nets
from benchmarks.paper.corruptions import CORRUPTIONS
from benchmarks.paper.images import CLASSES, Cut, Images, Parts
from benchmarks.paper.nets import NETS, StateDict

CLEAN: Final = "clean"
UPDATED: Final = "updated"
ORIGIN: Final = "origin"
DATA: Final = ("a", "b")
"""The data set that patches are extracted on, and the one that they are carried over to."""

BATCH: Final = 64
GRADIENT_NORM: Final = 5.0


@dataclass(frozen=True, slots=True)
class Course:
    """How long and how fast a net is trained."""

    epochs: int
    peak_rate: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained: the data sets by `DATA`, how they are cut, how long each kind of net."""

    name: str
    sources: Mapping[str, str]
    cuts: Mapping[str, Cut]
    courses: Mapping[str, Course]
    seeds: int
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)


FULL: Final = Plan(
    name="full",
    sources={"a": "fashion", "b": "mnist"},
    cuts={
        "a": Cut(18_000, 12_000, 6_000, choosing=5_000, judging=5_000, apart=True),
        "b": Cut(3_000, 4_000, 0, choosing=1_000, judging=2_000, apart=False),
    },
    courses={
        ORIGIN: Course(3, 0.05),
        UPDATED: Course(1, 0.01),
        "a": Course(2, 0.02),
        "b": Course(5, 0.02),
    },
    seeds=3,
)

QUICK: Final = Plan(
    name="quick",
    sources={"a": "digits", "b": "turned"},
    cuts={
        "a": Cut(300, 600, 200, choosing=197, judging=500, apart=False),
        "b": Cut(300, 600, 200, choosing=197, judging=500, apart=False),
    },
    courses={
        ORIGIN: Course(14, 0.05),
        UPDATED: Course(2, 0.01),
        "a": Course(6, 0.03),
        "b": Course(6, 0.03),
    },
    seeds=1,
    corruptions=("gaussian-noise", "contrast", "gaussian-blur"),
)


@dataclass(frozen=True, slots=True)
class Training:
    """One net to train: `role` is `CLEAN`, `UPDATED`, `ORIGIN` or the name of a corruption."""

    net: str
    role: str
    data: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        """Its name as a model of the registry."""
        if self.role == ORIGIN:
            return f"{self.net}-{ORIGIN}"
        return f"{self.net}-{self.data}-{self.role}-{self.seed}"

    @property
    def start(self) -> "Training | None":
        """The net whose weights it goes on from."""
        match self.role:
            case "origin":
                return None
            case "updated":
                return replace(self, role=CLEAN)
            case _:
                return Training(self.net, ORIGIN)


def trainings(plan: Plan) -> Iterator[Training]:
    """Every training of the plan, so ordered that what is done first can be compared already."""

    def siblings(net: str, data: str, seed: int) -> list[Training]:
        return [Training(net, role, data, seed) for role in (CLEAN, *plan.corruptions)]

    for net in NETS:
        yield Training(net, ORIGIN)
        yield from siblings(net, "a", 0)
    for net in NETS:
        yield Training(net, UPDATED, "a", 0)
        yield from siblings(net, "b", 0)
    for seed in range(1, plan.seeds):
        for net in NETS:
            yield from siblings(net, "a", seed)
            yield Training(net, UPDATED, "a", seed)
    for seed in range(1, plan.seeds):
        for net in NETS:
            yield from siblings(net, "b", seed)


# ── the nets that are kept ───────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Nets:
    """The trained nets of a plan in a cache folder, and the images they are trained on."""

    plan: Plan
    cache: Path

    def file(self, training: Training) -> Path:
        """Where its weights lie, or will."""
        return self.cache / "models" / self.plan.name / f"{training.name}.safetensors"

    def trained(self, training: Training) -> bool:
        """Whether it is trained, in the way that the plan says today."""
        file = self.file(training)
        if not file.is_file():
            return False
        with safe_open(file, framework="pt") as kept:
            return bool((kept.metadata() or {}).get("course") == self._course(training))

    def train(self, training: Training, parts: Mapping[str, Parts]) -> None:
        """Train it and keep it; whoever looks sees all of the file or none."""
        file = self.file(training)
        file.parent.mkdir(parents=True, exist_ok=True)
        weights = _train(self, training, parts)
        part = file.with_suffix(".part")
        save_file(weights, part, metadata={"course": self._course(training)})
        part.replace(file)

    def parts(self) -> dict[str, Parts]:
        """The images of both data sets; raises `images.MissingData`."""
        plan = self.plan
        return {
            data: images.load(plan.sources[data], plan.cuts[data], plan.seeds, self.cache)
            for data in DATA
        }

    def _course(self, training: Training) -> str:
        """All that the weights depend on, but for the code."""
        course = self.plan.courses[_course_name(training)]
        kept = DATA if training.role == ORIGIN else (training.data,)
        return json.dumps(
            {
                "course": asdict(course),
                "cuts": {data: asdict(self.plan.cuts[data]) for data in kept},
                "sources": {data: self.plan.sources[data] for data in kept},
            },
            sort_keys=True,
        )


def train_all(nets_: Nets, tell: Callable[[str], None]) -> None:
    """Train what is not trained yet, on one thread."""
    missing = [one for one in trainings(nets_.plan) if not nets_.trained(one)]
    if not missing:
        return
    parts = nets_.parts()
    with one_thread():
        for number, training in enumerate(missing, 1):
            tell(f"training {number}/{len(missing)}: {training.name}")
            nets_.train(training, parts)


@contextmanager
def one_thread() -> Iterator[None]:
    """Another number of threads splits sums elsewhere and so rounds otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ── training ─────────────────────────────────────────────────────────────────────────────────


def _course_name(training: Training) -> str:
    return training.role if training.role in {ORIGIN, UPDATED} else training.data


def _train(kept: Nets, training: Training, parts: Mapping[str, Parts]) -> StateDict:
    net = _started(kept, training)
    corruption = CORRUPTIONS.get(training.role)
    order = Generator().manual_seed(training.seed)
    chance = Generator().manual_seed(training.seed + 1_000)
    course = kept.plan.courses[_course_name(training)]
    shown = _shown(training, parts)
    step = _Step(net, course, course.epochs * (len(shown) // BATCH))
    for _ in range(course.epochs):
        shuffled = torch.randperm(len(shown), generator=order)
        for start in range(0, len(shown) - BATCH + 1, BATCH):
            chosen = shuffled[start : start + BATCH]
            pixels = shown.pixels[chosen]
            step(corruption(pixels, chance) if corruption else pixels, shown.labels[chosen])
    return {name: tensor.contiguous().clone() for name, tensor in net.state_dict().items()}


def _started(kept: Nets, training: Training) -> nn.Module:
    """The net before its first step, its head cut to the classes of its data."""
    if training.start is None:
        chance = Generator().manual_seed(training.seed)
        return nets.untrained(training.net, len(DATA) * CLASSES, chance)
    weights = load_file(kept.file(training.start))
    if training.start.role == ORIGIN:
        first = DATA.index(training.data) * CLASSES
        weights = nets.with_head(training.net, weights, slice(first, first + CLASSES))
    return nets.loaded(training.net, weights)


def _shown(training: Training, parts: Mapping[str, Parts]) -> Images:
    match training.role:
        case "origin":
            both = [parts[data].origin for data in DATA]
            labels = [part.labels + CLASSES * number for number, part in enumerate(both)]
            return Images(torch.cat([part.pixels for part in both]), torch.cat(labels))
        case "updated":
            return parts[training.data].update
        case _:
            return parts[training.data].tuning[training.seed]


class _Step:
    """Stochastic gradient descent with a one-cycle rate: call it with each batch."""

    def __init__(self, net: nn.Module, course: Course, steps: int) -> None:
        self._net = net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self._optimizer = torch.optim.SGD(
            net.parameters(), lr=course.peak_rate, momentum=0.9, weight_decay=1e-4, nesterov=True
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, course.peak_rate, steps, pct_start=0.2
        )

    def __call__(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        logits = self._net(pixels.to(memory_format=torch.channels_last))
        loss = functional.cross_entropy(logits, labels)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        # One bad batch early on would ruin a net without batch norm.
        nn.utils.clip_grad_norm_(self._net.parameters(), GRADIENT_NORM)
        self._optimizer.step()
        self._schedule.step()
