"""Patch weight files in place, and take the patch off again, to the very bytes there were.

A change is prepared beside the files, then carried out, then recorded:

    1  hash the files: they must be what the record (or the base) says
    2  write and sync  N/undo   the base's bytes of every tensor that the new recipe touches
                       N/writes what will be written: the overlay, and the old undo elsewhere
    3  write journal.json                               ← from here on the change is finished
    4  write the ranges, sync, hash: they must be what step 1 foretold
    5  write recipe.json, remove journal.json, remove what is no longer needed

Killed before 3, the files are untouched and the next run removes the litter. Killed after 3, the
next run writes the ranges again: they are the same whether some were written or not. Where the
files then do not hash to what was foretold, every undo is written back, which needs no network.

A folder of weight files is one unit: one journal, one record.
"""

from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from service import errors
from service.layout import sidecar
from service.layout.disk import DISK, Disk, lock, read_chunks
from service.layout.header import read_header
from service.layout.pieces import (
    Change,
    Opened,
    Pieces,
    WeightFile,
    digest_of_chunks,
    file_digest,
    spliced,
)
from service.layout.sidecar import FileRecord, Place, Sidecar
from service.layout.splice import in_place
from service.names import Digest


def apply(target: Path, change: Change, disk: Disk = DISK) -> Sidecar:
    """Make `target` what `change` says, from the base or from another recipe on that base.

    Finishes first what an earlier run left. Raises `FileNotAsRecorded`, `LinkedFile`, `FileBusy`,
    `OverlayDoesNotFit`, `NotVerified`, `BadSidecar`, `ThingNotFound`.
    """
    place = Place(target.absolute())
    _check_writable(place, change.files)
    with lock(place.target):
        now = _settle(place, disk) or _clean(change)
        _check_same_base(place, now, change)
        _check_undo(place, now)
        files = {path: _foretell(place, now, path, wanted) for path, wanted in change.files.items()}
        future = Sidecar(now.generation + 1, change.base, change.recipe, files)
        if (future.recipe, future.files) == (now.recipe, now.files):
            return now
        try:
            _prepare(place, now, future, change, disk)
        except OSError:  # a full disk, most likely: leave nothing behind
            with suppress(OSError):
                _tidy(place, sidecar.read(place.recipe), disk)
            raise
        return _finish(place, future, disk)


def undo(target: Path, disk: Disk = DISK) -> Sidecar:
    """Make `target` its clean base again and remove the record; needs no network, and no room.

    Finishes first what an earlier run left. Raises `NothingToUndo`, `FileNotAsRecorded`,
    `LinkedFile`, `FileBusy`, `NotVerified`, `BadSidecar`.
    """
    place = Place(target.absolute())
    with lock(place.target):
        left = sidecar.read(place.journal) or sidecar.read(place.recipe)
        now = _settle(place, disk)
        if now is None:
            if left is not None and left.recipe is None:
                return left  # an undo was interrupted, and has come to its end just now
            raise errors.NothingToUndo(str(target))
        _check_writable(place, now.files)
        _check_undo(place, now)
        for path, file in now.files.items():
            _check_file(place.weight_file(path), file.digest)
        future = _as_base(now)
        sidecar.write(disk, place.journal, future)
        return _finish(place, future, disk)


def recover(target: Path, disk: Disk = DISK) -> Sidecar | None:
    """Finish or clear away what an interrupted run left; the record that holds then, if any.

    Raises `LinkedFile`, `FileBusy`, `NotVerified`, `BadSidecar`.
    """
    place = Place(target.absolute())
    with lock(place.target):
        return _settle(place, disk)


def status(target: Path) -> Sidecar | None:
    """What the record says of `target`; None for a file without one. Raises `BadSidecar`."""
    return sidecar.read(Place(target.absolute()).recipe)


def replaced(target: Path, now: Sidecar | None, disk: Disk = DISK) -> None:
    """Record that `target` is, or is about to be, written anew from outside: as `now`, or clean.

    What was recorded before goes, a change under way included: call it with None before the new
    file gets its name. Raises `LinkedFile`.
    """
    place = Place(target.absolute())
    if place.folder.is_symlink():
        raise errors.LinkedFile(str(place.folder), "is a symbolic link")
    if place.folder.is_dir():
        disk.remove(place.journal)
        _tidy(place, None, disk)
    if now is not None:
        disk.make_folder(place.folder)
        sidecar.write(disk, place.recipe, now)


def supply_undo(target: Path, undos: Mapping[str, Path], disk: Disk = DISK) -> None:
    """Keep the undo of a file that was pulled with its patches on, checked against the base.

    Raises `NotVerified`, `NothingToUndo`, `FileBusy`, `BadSidecar`.
    """
    place = Place(target.absolute())
    with lock(place.target):
        now = _settle(place, disk)
        if now is None:
            raise errors.NothingToUndo(str(target))
        for path, undo_file in undos.items():
            with (
                closing(Opened(place.weight_file(path))) as file,
                closing(Opened(undo_file)) as old,
            ):
                found = digest_of_chunks(spliced(file, old))
                expected = now.files[path].base_digest
                if found != expected:
                    raise errors.NotVerified(
                        f"{target} with its patches taken off", expected, found, "pull the base"
                    )
                kept = place.undo(now.generation, path)
                disk.make_folder(kept.parent)
                disk.write_file(kept, read_chunks(old.file, 0, old.header.file_size))


# ── preparing ────────────────────────────────────────────────────────────────────────────────


def _clean(change: Change) -> Sidecar:
    files = {
        path: FileRecord(file.base_digest, None, file.base_digest)
        for path, file in change.files.items()
    }
    return Sidecar(0, change.base, None, files)


def _as_base(state: Sidecar) -> Sidecar:
    files = {
        path: replace(file, overlay_digest=None, digest=file.base_digest)
        for path, file in state.files.items()
    }
    return replace(state, recipe=None, files=files)


def _check_writable(place: Place, paths: Mapping[str, object]) -> None:
    """Raises what a write would meet half-way through otherwise, `PermissionError` included."""
    if not place.target.is_dir() and len(paths) != 1:
        raise errors.SeveralFiles(sorted(paths))
    for path in paths:
        with place.weight_file(path).open("r+b"):
            pass


def _check_undo(place: Place, now: Sidecar) -> None:
    for path, file in now.files.items():
        if file.overlay_digest is not None and not place.undo(now.generation, path).is_file():
            recipe = now.recipe.reference if now.recipe else now.base
            raise errors.UndoMissing(str(place.weight_file(path)), recipe)


def _check_same_base(place: Place, now: Sidecar, change: Change) -> None:
    for path in sorted({*now.files, *change.files}):
        if path not in now.files or path not in change.files:
            raise errors.ThingNotFound("weight file", f"{path} of {change.base} or {now.base}")
        wanted, own = change.files[path].base_digest, now.files[path].base_digest
        if wanted != own:
            raise errors.FileNotAsRecorded(str(place.weight_file(path)), wanted, own)


def _foretell(place: Place, now: Sidecar, path: str, wanted: WeightFile) -> FileRecord:
    """Check that a file is as recorded, and hash what it is going to be, in one pass."""
    file = place.weight_file(path)
    with Pieces(place, now, path, wanted) as pieces:
        before, after = pieces.digests()
    if before != now.files[path].digest:
        raise errors.FileNotAsRecorded(str(file), now.files[path].digest, before)
    return FileRecord(wanted.base_digest, wanted.overlay_digest, after)


def _prepare(place: Place, now: Sidecar, future: Sidecar, change: Change, disk: Disk) -> None:
    for path, wanted in change.files.items():
        with Pieces(place, now, path, wanted) as pieces:
            if pieces.overlay is not None:
                undo_file = place.undo(future.generation, path)
                disk.make_folder(undo_file.parent)
                disk.write_file(undo_file, pieces.undo())
            if pieces.overlay is not None or pieces.old is not None:
                writes = place.writes(future.generation, path)
                disk.make_folder(writes.parent)
                disk.write_file(writes, pieces.writes())
    disk.make_folder(place.folder)
    sidecar.write(disk, place.journal, future)


# ── carrying out ─────────────────────────────────────────────────────────────────────────────


def _settle(place: Place, disk: Disk) -> Sidecar | None:
    """Bring an interrupted change to its end and clear litter away."""
    if place.folder.is_symlink():
        raise errors.LinkedFile(str(place.folder), "is a symbolic link")
    journal = sidecar.read(place.journal)
    if journal is not None:
        journal = _finish(place, journal, disk)
        return journal if journal.recipe else None
    now = sidecar.read(place.recipe)
    _tidy(place, now, disk)
    return now if now and now.recipe else None


def _finish(place: Place, future: Sidecar, disk: Disk) -> Sidecar:
    """Write the ranges that the journal announces, check them, record them."""
    try:
        for path, file in future.files.items():
            _write(place.weight_file(path), _written(place, future, path), disk)
            _verify(place.weight_file(path), file.digest)
    except errors.NotVerified as error:
        _restore(place, future, disk)
        raise errors.NotVerified(
            error.what, error.expected, error.actual, "the base was put back; try again"
        ) from error
    _commit(place, future, disk)
    return future


def _commit(place: Place, future: Sidecar, disk: Disk) -> None:
    sidecar.write(disk, place.recipe, future)
    disk.remove(place.journal)
    _tidy(place, future, disk)


def _restore(place: Place, future: Sidecar, disk: Disk) -> None:
    """Write every undo back; raises `NotVerified` where even that does not give the base."""
    base = _as_base(future)
    for path, file in base.files.items():
        target = place.weight_file(path)
        for generation in place.generations():
            _write(target, place.undo(generation, path), disk)
        _verify(target, file.digest)
    _commit(place, base, disk)


def _written(place: Place, future: Sidecar, path: str) -> Path:
    """Where the bytes lie that the journal's change writes into a weight file."""
    if future.recipe is None:
        return place.undo(future.generation, path)
    return place.writes(future.generation, path)


def _tidy(place: Place, now: Sidecar | None, disk: Disk) -> None:
    """Remove what no record needs: all of it where the files are the base."""
    if not place.folder.is_dir():
        return
    kept = now.generation if now and now.recipe else None
    for generation in place.generations():
        folder = place.folder / str(generation)
        disk.remove_tree(folder / "writes" if generation == kept else folder)
    for record in (place.recipe, place.journal):
        part = record.with_name(record.name + ".part")
        if part.exists():
            disk.remove(part)
    if kept is None:
        if place.recipe.exists():
            disk.remove(place.recipe)
        if not any(place.folder.iterdir()):
            disk.remove_tree(place.folder)


def _write(target: Path, source: Path, disk: Disk) -> None:
    """Copy the tensors of `source`, if there is such a file, over those of `target`."""
    if not source.is_file():
        return
    pieces = Opened(source)
    with pieces.file, target.open("r+b", buffering=0) as file:
        size = target.stat().st_size
        header = read_header(lambda start, end: b"".join(read_chunks(file, start, end)), size)
        for piece in in_place(header, pieces.header):
            end = piece.overlay_start + piece.length
            at = piece.base_start
            for chunk in read_chunks(pieces.file, piece.overlay_start, end):
                file.seek(at)
                disk.write(file, target, chunk)
                at += len(chunk)
        disk.sync(file, target)


def _check_file(path: Path, expected: Digest) -> None:
    actual = file_digest(path)
    if actual != expected:
        raise errors.FileNotAsRecorded(str(path), expected, actual)


def _verify(path: Path, expected: Digest) -> None:
    actual = file_digest(path)
    if actual != expected:
        raise errors.NotVerified(str(path), expected, actual, "pull the base again")
