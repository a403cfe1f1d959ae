"""Similarity over a full catalogue: seconds to publish one more, to ask, to identify.

    python -m benchmarks.similar [--patches 10000] [--folder FOLDER]

Real patch files (exact, 8 kernels, 9 216 elements, 20 labels) in a folder, rows in a Postgres of
its own. The catalogue is stocked with bare rows and indexed by estimates alone, which is quicker;
what is timed is published and indexed in full. Every operation is carried out as a worker does it,
its job pickled there and back. The baseline decodes the file of every patch and compares it in
full; it is timed on 200 of them.
"""

import argparse
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from service.blobs.folder import FolderStore
from service.compute import catalogue
from service.compute.carry import carry_out
from service.compute.compare import cosines
from service.compute.packing import PatchWriter
from service.compute.sources import PatchSource
from service.db import engine as engines
from service.db import migrate
from service.db.tables.blobs import Blob
from service.db.tables.operations import Operation
from service.db.tables.patches import Patch, PatchVersion
from service.db.tables.similarity import MeasuredSignature, Neighbour
from service.embedded.postgres import start_temporary
from service.layout import patchfile
from service.layout.codecs import Codec, Kind
from service.layout.fit import Place
from service.layout.header import Read
from service.layout.patchfile import Notes
from service.names import Digest, TensorAddress, patch_name
from service.registry import blobs, identifications, lines, operations, patches, similarity
from service.registry.access import OWNER
from service.registry.patches import Signature
from service.schemas.similarity import Identify
from service.tensors.layers import Layer, Role
from service.worker.kinds.table import KINDS

KERNELS: Final = 8
SHAPE: Final = (16, 8, 3, 3)
LABELS: Final = 20
ALIKE: Final = 0.6
"""How much of a signature is its label's: two of one label have a cosine of about 0.36."""
SAMPLE: Final = 200
BATCH: Final = 500
CPU: Final = torch.device("cpu")
LIMITS: Final = operations.Limits()


@dataclass(frozen=True)
class Shop:
    """A catalogue, and what it takes to fill it and to work on it."""

    sessions: sessionmaker[Session]
    store: FolderStore
    folder: Path

    def stock(self, numbers: range) -> None:
        """Make patch files, store them, and write their rows at once."""
        made = [(number, self._file(number)) for number in numbers]
        with self.sessions.begin() as session:
            for number, each in made:
                line = Patch(
                    namespace="bench",
                    name=f"p{number}",
                    key=f"bench/p{number}",
                    card="",
                    labels=_labels(number),
                    head=1,
                    created_by="owner",
                )
                version = PatchVersion(
                    patch=line,
                    number=1,
                    digest=each.digest,
                    size_bytes=each.size_bytes,
                    summary={},
                    tensors=each.tensors,
                    created_by="owner",
                )
                session.add_all([Blob(digest=each.digest, size_bytes=each.size_bytes), version])

    def publish(self, number: int) -> str:
        """Make a patch file, store and publish it."""
        made, name = self._file(number), patch_name(f"bench/p{number}")
        with self.sessions.begin() as session:
            labels = _labels(number)
            lines.describe(session, Patch, name, card="", license=None, labels=labels, by=OWNER)
            blobs.record(session, made.digest, made.size_bytes)
            patches.publish(
                session, name, made, profile=None, operation=None, by="owner", lineage={}
            )
        return str(name)

    def _file(self, number: int) -> Signature:
        path = self.folder / "patch"
        random = torch.Generator().manual_seed(number)
        label = torch.Generator().manual_seed(-1 - number % LABELS)
        with PatchWriter(path) as writer:
            for kernel in range(KERNELS):
                shared, own = (torch.randn(SHAPE, generator=each) for each in (label, random))
                values = ALIKE * shared + (1 - ALIKE**2) ** 0.5 * own
                address = TensorAddress("model.safetensors", f"layer{kernel}.weight")
                layer = Layer(address, SHAPE, "F32", Role.KERNEL)
                norms = float(values.norm()), 1000.0
                writer.put(layer, Kind.ADDITIVE, Codec.FIVE, values, norms)
            digest, size_bytes = writer.finish(Notes())
        self.store.put_file(digest, path)
        with path.open("rb") as file:
            content = file.read()
        read = patchfile.read(lambda start, end: content[start:end], size_bytes)
        tensors = [Place.of(tensor).to_json() for tensor in read.tensors]
        return Signature(digest, size_bytes, tensors, {}, {})

    @contextmanager
    def opened(self) -> Iterator[Callable[[Digest], Read]]:
        """Opens blobs as a worker does."""
        with ExitStack() as stack:
            yield lambda digest: stack.enter_context(self.store.open(digest)).read

    def carry_out(self, ask: Callable[[Session], Operation]) -> dict[str, Any]:
        """Ask for an operation and carry it out as a worker does; answers its result."""
        with self.sessions.begin() as session:
            operation = ask(session).id
        with self.sessions.begin() as session:
            operations.begin(session, operation, worker="bench")
            kind = KINDS[operations.find(session, operation).kind]
        with self.sessions.begin() as session:
            job = kind.prepare(session, operations.find(session, operation))
        there = pickle.loads(pickle.dumps(job))  # noqa: S301 - our own
        with self.opened() as open_read:
            made = carry_out(there, open_read, self.folder, CPU, lambda *_: None)
        back = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own
        with self.sessions.begin() as session:
            held = operations.hold(session, operation, 1)
            result = kind.record(session, held, back)
            operations.succeed(session, held, result)
        return result


def _labels(number: int) -> list[str]:
    return [f"label-{number % LABELS}"]


@contextmanager
def _shop(folder: Path) -> Iterator[Shop]:
    with start_temporary() as server:
        migrate.upgrade(server.url)
        engine = engines.create(server.url, application="benchmark")
        yield Shop(engines.sessions(engine), FolderStore(folder / "blobs"), folder)
        engine.dispose()


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def _index(session: Session) -> Operation:
    return similarity.bring_up_to_date(session, by="owner")


def _catch_up(shop: Shop) -> None:
    """Carry out index operations until nothing is missing."""
    while True:
        shop.carry_out(_index)
        with shop.sessions.begin() as session:
            if similarity.is_complete(session):
                return


def _ask_similar(shop: Shop, name: str) -> int:
    with shop.sessions.begin() as session:
        version = patches.resolve(session, patch_name(name), 1)
        rows = similarity.neighbours(
            session, version, label=None, sign="any", after=None, limit=similarity.KEPT
        )
        return len(rows)


def _identify(shop: Shop, name: str) -> dict[str, Any]:
    def ask(session: Session) -> Operation:
        operations.worker_seen(session, "bench", ["cpu"], "cpu")
        blob = patches.resolve(session, patch_name(name), 1).digest
        return identifications.request(session, Identify(blob=blob), by=OWNER, limits=LIMITS)

    return shop.carry_out(ask)


def _baseline(shop: Shop, name: str) -> float:
    """Seconds to compare one patch in full with one other."""
    with shop.sessions.begin() as session, shop.opened() as open_read:
        one = patches.resolve(session, patch_name(name), 1)
        others = session.scalars(select(PatchVersion).limit(SAMPLE)).all()

        def source(version: PatchVersion) -> PatchSource:
            read = open_read(Digest(version.digest))
            return PatchSource(patchfile.read(read, version.size_bytes), read)

        taken, _ = _timed(lambda: cosines(source(one), [source(other) for other in others], CPU))
        return taken / len(others)


def _alike(shop: Shop, name: str) -> float:
    """The share of a patch's neighbours that have its label."""
    with shop.sessions.begin() as session:
        one = patches.resolve(session, patch_name(name), 1)
        rows = similarity.neighbours(
            session, one, label=None, sign="any", after=None, limit=similarity.KEPT
        )
        return sum(other.patch.labels == one.patch.labels for _, other in rows) / len(rows)


def _sizes(shop: Shop) -> tuple[int, int, int]:
    with shop.sessions.begin() as session:
        sketched = session.scalar(select(func.count()).select_from(MeasuredSignature)) or 0
        kept = session.scalar(select(func.count()).select_from(Neighbour)) or 0
        size = session.scalar(select(func.pg_total_relation_size("measured_signatures"))) or 0
        return sketched, kept, size


def _fill(shop: Shop, count: int) -> None:
    exact, catalogue.EXACT = catalogue.EXACT, 0  # type: ignore[misc]  # to be quicker, here alone
    for start in range(0, count, BATCH):
        shop.stock(range(start, min(start + BATCH, count)))
        _catch_up(shop)
    catalogue.EXACT = exact  # type: ignore[misc]


def main() -> None:
    """Fill a catalogue, then time one more of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="Where the blobs lie meanwhile.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory(dir=given.folder) as folder,
        _shop(Path(folder)) as shop,
    ):
        filling, _ = _timed(lambda: _fill(shop, given.patches))
        print(f"{given.patches} patches stocked and indexed in {filling:.0f} s", flush=True)
        newest = shop.publish(given.patches)
        publishing, _ = _timed(lambda: _catch_up(shop))
        asking, count = _timed(lambda: _ask_similar(shop, newest))
        identifying, verdict = _timed(lambda: _identify(shop, newest))
        whole = _baseline(shop, newest) * given.patches
        same = _alike(shop, newest)
        sketched, kept, size = _sizes(shop)
    print(f"\n{'':<42}{'seconds':>9}{'baseline':>10}{'ratio':>8}")
    for what, taken in (
        ("index one more patch after its publication", publishing),
        ("identify an unknown patch file", identifying),
    ):
        print(f"{what:<42}{taken:>9.2f}{whole:>10.1f}{whole / taken:>7.0f}x")
    print(f"{f'list the {count} neighbours of a patch':<42}{asking:>9.3f}")
    print(
        f"\n{sketched} signatures in {size / 2**20:.0f} MiB, {kept} neighbours; {same:.0%} of the "
        f"newest's have its label; identified as\n{verdict['label']}, margin "
        f"{verdict['margin']:.2f}, confidence {verdict['confidence']:.2f}"
    )


if __name__ == "__main__":
    main()
