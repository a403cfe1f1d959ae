"""Patch files that a worker has decoded in full are marked in its builds, by device."""

from decimal import Decimal
from pathlib import Path

from service.compute.jobs import (
    BuildJob,
    ExtractMade,
    MadeFile,
    ModelInput,
    PatchInput,
    SweepJob,
    VerifyJob,
    VerifyMade,
)
from service.names import digest_of
from service.worker import checked
from service.worker.checked import Checked

ONE, OTHER = digest_of(b"one"), digest_of(b"other")
MODEL = ModelInput(digest_of(b"model"), "a/model@1", ())


def patch(digest: str) -> PatchInput:
    return PatchInput(digest_of(digest.encode()), 10, "a/patch@1", Decimal(1))


def marks(known: Checked, device: str) -> list[bool]:
    job = SweepJob(MODEL, ((patch("one"),), (patch("other"), patch("one"))))
    marked = known.marked(device, job)
    return [each.is_checked for recipe in marked.recipes for each in recipe]


def test_what_was_verified_on_a_device_is_marked_for_that_device_alone() -> None:
    known = Checked()

    known.note("cpu", VerifyJob(ONE, 10), VerifyMade)

    assert marks(known, "cpu") == [True, False, True]
    assert marks(known, "cuda:0") == [False, False, False]
    assert known.marked("cpu", BuildJob(MODEL, (patch("one"),))).patches[0].is_checked


def test_what_was_extracted_is_marked() -> None:
    known = Checked()
    file = MadeFile(Path("patch"), OTHER, 10)

    known.note("cpu", None, ExtractMade(file, None, file, {}))

    assert marks(known, "cpu") == [False, True, False]


def test_only_so_many_are_remembered() -> None:
    known = Checked()
    known.note("cpu", VerifyJob(ONE, 10), None)

    for number in range(checked.KEPT):
        known.note("cpu", VerifyJob(digest_of(str(number).encode()), 10), None)

    assert marks(known, "cpu") == [False, False, False]
