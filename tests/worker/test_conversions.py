"""Conversions that are cut off in the middle: nothing runs on, nothing is left, nothing is lost."""

import io
import time

import psutil
import pytest
import torch

from service.blobs.folder import FolderStore
from service.db.tables.models import Model
from service.db.tables.operations import Operation
from service.names import digest_of, model_name
from service.registry import blobs, conversions, lines, models, operations
from service.registry.access import OWNER
from tests.worker.floor import PRODUCTION, Floor

pytestmark = pytest.mark.xdist_group("workers")

NET = model_name("vision/net")
CONVERTER = "service.compute.ingest.converter"


def asked(floor: Floor, value: float) -> str:
    """Ask for a version of one checkpoint; the id of the operation."""
    out = io.BytesIO()
    torch.save({"a.weight": torch.full((2, 2), value)}, out)
    content = out.getvalue()
    digest = digest_of(content)
    with FolderStore(floor.blobs, reserve_bytes=0).writer(digest, len(content)) as writer:
        writer.write(content)
        writer.commit()
    with floor.sessions.begin() as session:
        blobs.record(session, digest, len(content))
        lines.describe(session, Model, NET, card="", license=None, labels=[], by=OWNER)
        made = conversions.request(
            session, NET, {"net.pth": digest}, None, by=OWNER, limits=operations.Limits()
        )
    assert isinstance(made, Operation)
    return made.id


def converter_of(floor: Floor, worker: str) -> psutil.Process:
    """The converter that a worker has started, stopped in the middle of its work."""
    within = psutil.Process(floor.workers[worker].pid)
    found: list[psutil.Process] = []

    def seen() -> bool:
        found.extend(p for p in within.children(recursive=True) if CONVERTER in p.cmdline())
        return bool(found)

    floor.until(seen)
    floor.until(lambda: found[0].num_threads() > 1)  # it has tied itself to its parent
    found[0].suspend()
    return found[0]


def until_gone(process: psutil.Process) -> None:
    give_up_at = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_a_conversion_cut_off_leaves_nothing_and_is_finished_by_another_worker(
    floor: Floor,
) -> None:
    floor.start("first", program=PRODUCTION, queues=["cpu", "maint"])

    cancelled = asked(floor, 1.0)
    converter = converter_of(floor, "first")
    with floor.sessions.begin() as session:
        operations.cancel(session, cancelled)
    floor.until_state(cancelled, "cancelled")
    until_gone(converter)
    jobs = list((floor.folder / "scratch").glob("*/job-*"))
    lost = asked(floor, 2.0)
    converter = converter_of(floor, "first")
    floor.workers["first"].kill()
    until_gone(converter)
    floor.start("second", program=PRODUCTION, queues=["cpu", "maint"])
    ended = floor.until_state(lost, "succeeded")

    assert jobs == []
    assert ended.attempt == 2
    assert list((floor.folder / "scratch").glob("*/job-*/*")) == []
    with floor.sessions.begin() as session:
        only = models.versions(session, NET, before=None, limit=10)
        assert [version.number for version in only] == [1]
        assert [file.path for file in only[0].files] == ["net.safetensors"]
