"""A catalogue of ten thousand patches: publish one more, list its neighbours, identify, compare.

    python -m benchmarks.similar [--patches 1000 10000] [--rounds 5] [--results FILE]

Real patch files of a small net (8 kernels, 9 216 elements, exact; 20 labels) in the store of a
service that runs. They are not published one by one: their rows are written at once, and measured
and recorded by the functions that a worker calls, in large batches and with no cosine made exact.
What is timed goes through the service, from the first request to the last answer. Wall times are
medians; CPU is the mean over the rounds, of all processes of the service, Postgres included.

What is asked about is a mixture of two patches of the catalogue; they must be found first, with
the cosines that a comparison with every patch gives. A wrong answer ends the benchmark.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from math import prod, sqrt
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from safetensors.torch import save_file
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from torch import Tensor

from benchmarks._service import database_url, settle, spent
from examples.local_service import LocalService, local_service
from service.blobs.folder import FolderStore
from service.client.client import Client
from service.compute import catalogue
from service.compute.jobs import SignatureInput
from service.compute.packing import PatchWriter
from service.db import engine as engines
from service.db.tables.blobs import Blob
from service.db.tables.operations import Operation
from service.db.tables.patches import Patch, PatchVersion
from service.db.tables.similarity import MeasuredSignature, Neighbour
from service.layout.codecs import Codec, Kind
from service.layout.fit import Place
from service.layout.header import Read
from service.layout.patchfile import Notes
from service.names import Digest, TensorAddress
from service.registry import fits, similarity
from service.registry.access import OWNER
from service.schemas.operations import OperationView
from service.schemas.similarity import IdentificationView, Identify, NeighbourView, SetView
from service.schemas.wire import DescribeLine
from service.tensors.layers import Layer, Role
from service.worker.kinds.table import KINDS

RESULTS: Final = Path(__file__).parent / "results" / "similar.md"
CPU: Final = torch.device("cpu")
NAMESPACE: Final = "bench"
CLEAN: Final = f"{NAMESPACE}/clean"
FILE: Final = "model.safetensors"
KERNELS: Final = 8
SHAPE: Final = (16, 8, 3, 3)
LABELS: Final = 20
ALIKE: Final = 0.6
"""How much of a signature is its label's: two of one label have a cosine of about 0.36."""
MIXTURE: Final = (0.8, 0.6)
"""The parts of a mixture, and nearly the cosines to them. The nearest others have the first's
label: some hundreds of them at 0.29, within the error of an estimate of each other."""
CHANGE: Final = 0.1
"""How large a signature is beside its clean weight."""
AT_ONCE: Final = 500
QUICK: Final = 20
"""So many rounds of what takes milliseconds."""
SETS: Final = (16, 100)
EXACTLY: Final = 1e-5
PACKED: Final = 0.02
"""How far a cosine may be off where the signature is extracted first, and packed."""
REMARKS: Final = """\
Publishing is to make the patch, upload its file, have it decoded and measured by two operations,
and list its neighbours; identifying a file begins with its upload, that of a pair with the
extraction. Each of the two reads the measures of the whole catalogue, some 4 KiB a patch of this
size: that is what grows with it. A set that was compared before is answered from Postgres."""


# ── signatures ───────────────────────────────────────────────────────────────────────────────


def signature(number: int) -> Tensor:
    """The values of one patch of the catalogue, kernel by kernel."""
    label, own = _random(-1 - number % LABELS), _random(number)
    return label.mul(ALIKE).add(own, alpha=sqrt(1 - ALIKE**2))


def clean() -> Tensor:
    """The weights that all of them are signatures of."""
    return _random(-1 - LABELS).div(CHANGE)


def _random(seed: int) -> Tensor:
    return torch.randn(KERNELS, *SHAPE, generator=torch.Generator().manual_seed(seed))


def mixture(numbers: Sequence[int]) -> Tensor:
    """A signature that is near to others, most to the first."""
    parts = zip(MIXTURE, numbers, strict=True)
    return torch.stack([part * signature(number) for part, number in parts]).sum(dim=0)


def label_of(number: int) -> str:
    """The one label of a patch."""
    return f"label-{number % LABELS}"


def name_of(number: int | str) -> str:
    """The name of a patch."""
    return f"{NAMESPACE}/p{number}"


def unit(values: Tensor) -> Tensor:
    """What a signature is compared by: kernels over the norms of their clean weights, length 1."""
    weighed = (values / clean().flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)).flatten()
    return torch.nn.functional.normalize(weighed, dim=0)


def write_patch(path: Path, values: Tensor) -> tuple[Digest, int, list[Place]]:
    """Write an exact patch file; its digest, its size, and what it needs of a base."""
    with PatchWriter(path) as writer:
        for number, (weight, kernel) in enumerate(zip(clean(), values, strict=True)):
            layer = Layer(TensorAddress(FILE, _kernel(number)), SHAPE, "F32", Role.KERNEL)
            norms = float(kernel.norm()), float(weight.norm())
            writer.put(layer, Kind.ADDITIVE, Codec.F32, kernel, norms)
        places = [
            Place(each.address.path, each.address.name, each.shape, each.kind)
            for each in writer.tensors
        ]
        return *writer.finish(Notes()), places


def write_model(path: Path, weights: Tensor) -> None:
    """Write a model of these kernels."""
    save_file({_kernel(n): weight.clone() for n, weight in enumerate(weights)}, path)


def _kernel(number: int) -> str:
    return f"layer{number}.weight"


# ── filling ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Stocked:
    """A patch file that is stored."""

    number: int
    digest: Digest
    size_bytes: int
    places: list[Place]


def stock(store: FolderStore, numbers: Iterable[int]) -> list[Stocked]:
    """Make patch files and store them; runs beside, while those before are measured."""
    torch.set_num_threads(1)
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            path = Path(folder, str(number))
            made.append(Stocked(number, *write_patch(path, signature(number))))
            store.take_file(made[-1].digest, path)
    return made


@dataclass(frozen=True)
class Shop:
    """A running service, and its database and its store from below."""

    service: LocalService
    client: Client
    sessions: sessionmaker[Session]
    store: FolderStore
    folder: Path

    def fill(self, numbers: range) -> None:
        """Bring the patches of these numbers into the catalogue."""
        batches = [numbers[at : at + AT_ONCE] for at in range(0, len(numbers), AT_ONCE)]
        with ProcessPoolExecutor(1, get_context("spawn")) as beside:
            for made in beside.map(stock, [self.store] * len(batches), batches):
                self._measure(self._publish(made))

    def _publish(self, made: Sequence[Stocked]) -> list[SignatureInput]:
        with self.sessions.begin() as session:
            requirement = fits.requirement_of(session, made[0].places)
            versions = [
                PatchVersion(
                    patch=Patch(
                        namespace=NAMESPACE,
                        name=f"p{each.number}",
                        key=name_of(each.number),
                        card="",
                        labels=[label_of(each.number)],
                        head=1,
                        created_by=OWNER.id,
                    ),
                    number=1,
                    digest=each.digest,
                    size_bytes=each.size_bytes,
                    summary={},
                    tensors=[place.to_json() for place in each.places],
                    requirement_id=requirement,
                    created_by=OWNER.id,
                )
                for each in made
            ]
            session.add_all(Blob(digest=each.digest, size_bytes=each.size_bytes) for each in made)
            session.add_all(versions)
            session.flush()
            return [
                SignatureInput(version.id, Digest(version.digest), version.size_bytes)
                for version in versions
            ]

    def _measure(self, new: Sequence[SignatureInput]) -> None:
        """Do what a worker does for operations of kind `index`, but in one go."""
        kind, operation = KINDS[similarity.INDEX], Operation(request={"first": None})
        with self.sessions.begin() as session, ExitStack() as opened:

            def open_read(digest: Digest) -> Read:
                return opened.enter_context(self.store.open(digest)).read

            job = replace(kind.prepare(session, operation), new=tuple(new))
            made = catalogue.index(job, open_read, CPU, lambda *_: None, exact=0)
            kind.record(session, operation, made)

    def table_bytes(self) -> int:
        """What measures and neighbours take in Postgres, indexes included."""
        tables = (MeasuredSignature.__tablename__, Neighbour.__tablename__)
        with self.sessions.begin() as session:
            sizes = select(*(func.pg_total_relation_size(table) for table in tables))
            return sum(session.execute(sizes).one())

    def publish_model(self, name: str, weights: Tensor) -> None:
        """Publish a model of these kernels."""
        path = self.folder / FILE
        write_model(path, weights)
        self.client.models.put(name)
        self.client.models.publish(name, {FILE: path})


@contextmanager
def opened_shop() -> Iterator[Shop]:
    """A service with nothing on it but the clean model."""
    with (
        tempfile.TemporaryDirectory() as folder,
        local_service() as service,
        Client(service.url, service.token) as client,
    ):
        engine = engines.create(database_url(service), application="benchmark")
        store = FolderStore(service.home / "blobs")
        shop = Shop(service, client, engines.sessions(engine), store, Path(folder))
        shop.publish_model(CLEAN, clean())
        try:
            yield shop
        finally:
            engine.dispose()


# ── what is measured ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Taken:
    """What something took, in seconds."""

    wall_s: float
    cpu_s: float


Answer = TypeVar("Answer")
Question = tuple[Callable[[], Answer], Callable[[Answer], None]]
"""What is timed, and what checks its answer afterwards."""
Found = Sequence[tuple[str, float]]
"""Patches and their cosines, the nearest first."""


class Bench:
    """Asks the service, and checks what it says against all signatures."""

    def __init__(self, shop: Shop, rounds: int) -> None:
        self._shop = shop
        self._rounds = rounds
        self._signatures = torch.empty(0, KERNELS * prod(SHAPE))
        self._fresh = count()
        self._choice = random.Random(0)  # noqa: S311  # the same every time

    def fill(self, size: int) -> float:
        """Bring the catalogue to so many patches; the seconds that took."""
        numbers = range(len(self._signatures), size)
        began = time.perf_counter()
        self._shop.fill(numbers)
        took = time.perf_counter() - began
        more = torch.stack([unit(signature(number)) for number in numbers])
        self._signatures = torch.cat([self._signatures, more])
        return took

    def measured(self) -> dict[str, Taken]:
        """Every question in turn."""
        some = self._rounds
        self._timed(self._publish, 1)  # the first has the worker load torch
        rows = {
            "publish one more patch, until its neighbours are listed": self._timed(
                self._publish, some
            ),
            "list the 50 neighbours of a patch": self._timed(self._list, QUICK),
            "identify an unknown patch file": self._timed(self._identify_file, some),
            "identify the difference of two models": self._timed(self._identify_pair, some),
        }
        for size in SETS:
            another, same = partial(self._compare, size), self._compare(size)
            rows[f"compare {size} patches, each with each"] = self._timed(another, some)
            same[0]()
            rows[f"ask about the same {size} again"] = self._timed(partial(_again, same), QUICK)
        return rows

    def _timed(self, prepare: Callable[[], Question[Any]], rounds: int) -> Taken:
        walls, cpu_s = [], 0.0
        for _ in range(rounds):
            ask, check = prepare()
            settle(self._shop.client)
            began, cpu_before = time.perf_counter(), spent(self._shop.service)
            answer = ask()
            walls.append(time.perf_counter() - began)
            cpu_s += spent(self._shop.service) - cpu_before
            check(answer)
        return Taken(statistics.median(walls), cpu_s / rounds)

    # ── the questions ────────────────────────────────────────────────────────────────────────

    def _publish(self) -> Question[Found]:
        numbers, values, path = self._unknown()
        client, name = self._shop.client, f"{NAMESPACE}/new{next(self._fresh)}"

        def ask() -> Found:
            client.patches.put(name, DescribeLine(labels=[label_of(numbers[0])]))
            asked = client.patches.publish(name, path)
            if isinstance(asked, OperationView):
                client.operations.wait(asked.id)
            return [(each.patch, each.cosine) for each in client.similarity.neighbours(name, 1)]

        return ask, partial(self._check, values, EXACTLY)

    def _list(self) -> Question[list[NeighbourView]]:
        [number] = self._sample(1)

        def check(found: list[NeighbourView]) -> None:
            alike = sum(label_of(number) in each.labels for each in found)
            _require(len(found) == similarity.KEPT, f"{len(found)} neighbours")
            others = len(self._signatures) // LABELS - 1
            _require(alike >= 0.9 * min(others, similarity.KEPT), f"{alike} of the label")

        return lambda: list(self._shop.client.similarity.neighbours(name_of(number), 1)), check

    def _identify_file(self) -> Question[IdentificationView]:
        numbers, values, path = self._unknown()
        return (
            lambda: self._shop.client.similarity.identify_file(path),
            partial(self._check_verdict, numbers, values, EXACTLY),
        )

    def _identify_pair(self) -> Question[IdentificationView]:
        numbers, values, _ = self._unknown()
        robust = f"{NAMESPACE}/unknown{next(self._fresh)}"
        self._shop.publish_model(robust, clean() + values)
        asked = Identify(clean=CLEAN, robust=robust, layers="all")
        return (
            lambda: self._shop.client.similarity.identify(asked),
            partial(self._check_verdict, numbers, values, PACKED),
        )

    def _compare(self, size: int) -> Question[SetView]:
        numbers = self._sample(size)

        def check(found: SetView) -> None:
            rows = self._signatures[numbers].to(torch.float64)
            wrong = float((torch.tensor(found.cosines) - rows @ rows.T).abs().max())
            _require(wrong < EXACTLY, f"a cosine of a set is off by {wrong}")

        return (lambda: self._shop.client.similarity.matrix([*map(name_of, numbers)]), check)

    # ── what is asked about, and what is right ───────────────────────────────────────────────

    def _sample(self, size: int) -> list[int]:
        """Some patches, the labels of all but the last few equally often."""
        labels = self._choice.sample(range(LABELS), LABELS)
        rows = self._choice.sample(range(len(self._signatures) // LABELS), -(-size // LABELS))
        return [LABELS * row + label for row in rows for label in labels][:size]

    def _unknown(self) -> tuple[list[int], Tensor, Path]:
        """A signature, what it is a mixture of, and its patch file."""
        numbers, path = self._sample(len(MIXTURE)), self._shop.folder / "unknown"
        values = mixture(numbers)
        write_patch(path, values)
        return numbers, values, path

    def _check(self, values: Tensor, within: float, found: Found) -> None:
        """The nearest of the catalogue must be the right ones; what was published here is not."""
        cosines, nearest = (self._signatures @ unit(values)).topk(len(MIXTURE))
        stocked = [each for each in found if each[0].startswith(name_of(""))]
        right = zip(nearest.tolist(), cosines.tolist(), stocked, strict=False)
        for number, cosine, (name, told) in right:
            _require(name == name_of(number), f"{name} is told in place of {name_of(number)}")
            _require(abs(told - cosine) < within, f"the cosine of {name} is {told}, not {cosine}")
        _require(len(stocked) >= len(MIXTURE), f"only {len(stocked)} are told")

    def _check_verdict(
        self, numbers: Sequence[int], values: Tensor, within: float, view: IdentificationView
    ) -> None:
        ranked = [(each.reference.partition("@")[0], each.cosine) for each in view.patches]
        self._check(values, within, ranked)
        _require(view.label == label_of(numbers[0]), f"{view.label} is told")
        _require(view.trusted, "; ".join(view.reasons))


def _again(question: Question[Any]) -> Question[Any]:
    return question


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001
    if not holds:
        raise RuntimeError(f"a wrong answer: {otherwise}")


# ── telling ──────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Case:
    """A catalogue of some size."""

    patches: int
    filled_s: float
    table_bytes: int
    rows: dict[str, Taken]


def table(cases: Sequence[Case]) -> Iterator[str]:
    """The cases side by side, in Markdown."""
    heads = [f" {_spaced(case.patches)} patches: wall | CPU " for case in cases]
    yield f"| |{'|'.join(heads)}|"
    yield f"|---|{'---:|---:|' * len(cases)}"
    for what in cases[0].rows:
        taken = [case.rows[what] for case in cases]
        cells = [f" {each.wall_s:.3f} s | {each.cpu_s:.3f} s " for each in taken]
        yield f"| {what} |{'|'.join(cells)}|"
    yield ""
    for case in cases:
        yield (
            f"{_spaced(case.patches)} patches take {case.table_bytes / 2**20:.0f} MiB in Postgres, "
            f"measures and neighbours with their indexes; to bring them in took "
            f"{case.filled_s:.0f} s."
        )


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def main() -> None:
    """Fill, measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases, filled_s = [], 0.0
    with opened_shop() as shop:
        bench = Bench(shop, given.rounds)
        for size in sorted(given.patches):
            filled_s += bench.fill(size)
            cases.append(Case(size, filled_s, shop.table_bytes(), bench.measured()))
            print("\n".join(table(cases[-1:])), flush=True)
    text = "\n".join(["# A catalogue of ten thousand patches", "", *table(cases), "", REMARKS, ""])
    given.results.parent.mkdir(parents=True, exist_ok=True)
    given.results.write_text(text)


if __name__ == "__main__":
    main()
