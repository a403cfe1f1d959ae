"""Local models and patch files, named by digest as the registry names them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from service import errors, names
from service.compute.jobs import ModelInput, PatchInput, WeightInput
from service.layout import patchfile
from service.layout.disk import read_chunks, reader
from service.layout.header import Read, read_header
from service.layout.pieces import file_digest
from service.names import Digest

WEIGHTS: Final = ".safetensors"

Told = Callable[[float, str], None]
"""Told how much is done, from 0 to 1, and what is being done."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A weight file, or a folder of them; `where` has every file by its path in the version."""

    path: Path
    model: ModelInput
    where: Mapping[str, Path]

    @property
    def digests(self) -> dict[Digest, Path]:
        """The weight files by digest."""
        return {file.digest: self.where[file.path] for file in self.model.files}


@dataclass(frozen=True, slots=True)
class LocalPatch:
    """A patch file, and the scale that is wanted of it."""

    path: Path
    patch: PatchInput


def read_model(path: Path, told: Told) -> LocalModel:
    """Look at a model: a safetensors file, or a folder with one or more.

    Raises `ThingNotFound`, `BadFileSet`, `NotSafetensors` and `UnsupportedFormat`.
    """
    where = _weight_files(path)
    whole = sum(file.stat().st_size for file in where.values())
    files, done = [], 0
    for name, file in where.items():
        size = file.stat().st_size
        with file.open("rb") as opened:
            read_header(reader(opened), size, str(file))
            sha256 = hashlib.sha256()
            for chunk in read_chunks(opened, 0, size):
                sha256.update(chunk)
                done += len(chunk)
                told(done / whole, f"reading {file.name}")
        files.append(WeightInput(name, Digest("sha256:" + sha256.hexdigest()), size))
    digest = names.weights_digest({file.path: (file.digest, file.size_bytes) for file in files})
    # The name alone: where it lies on this machine is nobody's business who gets the patch.
    return LocalModel(path, ModelInput(digest, path.absolute().name, tuple(files)), where)


def _weight_files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise errors.ThingNotFound("file", str(path))
    found = {
        file.relative_to(path).as_posix(): file
        for file in sorted(path.rglob("*" + WEIGHTS))
        if file.is_file() and not is_record(file.relative_to(path))
    }
    if not found:
        raise errors.BadFileSet(f"{path} holds no file that ends in {WEIGHTS}")
    return found


def is_record(path: Path) -> bool:
    """Whether a path lies in a record of a patch in place, or is hidden: no part of a model."""
    return any(part.startswith(".") or part.endswith(".patchbay") for part in path.parts)


def read_patch(text: str) -> LocalPatch:
    """Look at a patch file, given as `FILE=SCALE`.

    Raises `ThingNotFound`, `BadScale`, `BadRecipe`, `NotSafetensors` and `NotAPatchFile`.
    """
    name, equals, scale = text.rpartition("=")
    if not equals:
        raise errors.BadRecipe(text, f"has no scale; write {text}=1")
    path, wanted = Path(name), names.parse_scale(scale)
    if not path.is_file():
        raise errors.ThingNotFound("file", str(path))
    size = path.stat().st_size
    with path.open("rb") as file:
        patchfile.read(reader(file), size)
    return LocalPatch(path, PatchInput(file_digest(path), size, path.name, wanted))


def recipe_of(base: Digest, patches: list[LocalPatch]) -> tuple[Digest, tuple[PatchInput, ...]]:
    """The canonical recipe's digest, and its patches in canonical order; raises `BadScale`."""
    recipe = names.canonical_recipe(base, [(one.patch.digest, one.patch.scale) for one in patches])
    known = {one.patch.digest: one.patch for one in patches}
    return recipe.digest, tuple(
        PatchInput(digest, known[digest].size_bytes, known[digest].reference, scale)
        for digest, scale in recipe.patches
    )


def recipe_text(base: str, patches: tuple[PatchInput, ...]) -> str:
    """A recipe for people."""
    parts = [f"{patch.reference}={names.scale_text(patch.scale)}" for patch in patches]
    return "+".join([base, *parts])


@contextmanager
def opened(files: Mapping[Digest, Path]) -> Iterator[Callable[[Digest], Read]]:
    """Opens files by digest for reads of byte ranges; all are closed in the end."""
    handles: list[BinaryIO] = []

    def open_read(digest: Digest) -> Read:
        handles.append(files[digest].open("rb"))
        return reader(handles[-1])

    try:
        yield open_read
    finally:
        for handle in handles:
            handle.close()
