"""The record beside a weight file (or folder of them) that is patched in place.

    model.safetensors                     the file itself, or a folder of weight files
    model.safetensors.patchbay/
    ├── recipe.json                       what the file is now
    ├── journal.json                      what it is becoming, while a change is under way
    └── 1/                                bytes of the record's generation
        ├── undo/model.safetensors        the base's bytes of every changed tensor
        └── writes/model.safetensors      what the journal's change writes; an undo needs none

    {"format": 1, "generation": 1, "base": "vision/resnet50@3",
     "recipe": {"digest": "sha256:…", "reference": "vision/resnet50@v3+fog~2=0.5"},   null: the base
     "files": {"model.safetensors": {"base_digest": "sha256:…",
                                     "overlay_digest": "sha256:…",     null: no patch touches it
                                     "digest": "sha256:…"}}}           of the file as it stands

`journal.json` has the same form. A record is replaced as a whole, so it is old or new, never half.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from service import errors
from service.layout.disk import Disk
from service.layout.strict_json import BadJson, json_object
from service.names import Digest, parse_digest

FORMAT: Final = 1

_MAX_RECORD_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One weight file: what it was made from, and what it is."""

    base_digest: Digest
    overlay_digest: Digest | None
    digest: Digest


@dataclass(frozen=True, slots=True)
class AppliedRecipe:
    """The recipe that the files carry."""

    digest: Digest
    reference: str


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What a file or folder is; `recipe` None means the clean base."""

    generation: int
    base: str
    recipe: AppliedRecipe | None
    files: Mapping[str, FileRecord]

    def json(self) -> dict[str, Any]:
        """The record as JSON."""
        recipe = self.recipe
        return {
            "format": FORMAT,
            "generation": self.generation,
            "base": self.base,
            "recipe": recipe and {"digest": recipe.digest, "reference": recipe.reference},
            "files": {
                path: {
                    "base_digest": file.base_digest,
                    "overlay_digest": file.overlay_digest,
                    "digest": file.digest,
                }
                for path, file in self.files.items()
            },
        }


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder to patch, and where its record lies."""

    target: Path

    @property
    def folder(self) -> Path:
        """The folder of the record."""
        return self.target.with_name(self.target.name + ".patchbay")

    @property
    def recipe(self) -> Path:
        """The record of what the target is."""
        return self.folder / "recipe.json"

    @property
    def journal(self) -> Path:
        """The record of what the target is becoming."""
        return self.folder / "journal.json"

    def undo(self, generation: int, path: str) -> Path:
        """The undo of one weight file."""
        return self.folder / str(generation) / "undo" / path

    def writes(self, generation: int, path: str) -> Path:
        """What the journal's change writes into one weight file."""
        return self.folder / str(generation) / "writes" / path

    def generations(self) -> Iterator[int]:
        """The generations that have a folder."""
        for child in sorted(self.folder.iterdir()):
            if child.name.isdecimal() and child.is_dir():
                yield int(child.name)

    def weight_file(self, path: str) -> Path:
        """Where the weight file that the registry knows as `path` lies here.

        Raises `ThingNotFound`, and `LinkedFile` for a symbolic link or a file with other names.
        """
        check_path(path, str(self.target))
        file = self.target / path if self.target.is_dir() else self.target
        for step in _steps(self.target, file):
            if step.is_symlink():
                raise errors.LinkedFile(str(step), "is a symbolic link")
        if not file.is_file():
            raise errors.ThingNotFound("file", str(file))
        if file.stat().st_nlink > 1:
            raise errors.LinkedFile(str(file), "has other hard links")
        return file


def _steps(target: Path, file: Path) -> Iterator[Path]:
    yield target
    step = target
    for part in file.relative_to(target).parts:
        step /= part
        yield step


def check_path(path: str, where: str) -> None:
    """Check that `path` stays inside the folder it is taken from; raises `BadSidecar`."""
    pure = PurePosixPath(path)
    unsafe = pure.is_absolute() or ".." in pure.parts or "\\" in path or ":" in path
    if unsafe or not pure.parts or str(pure) != path:
        raise errors.BadSidecar(where, f"names the unsafe path {path[:200]!r}")


def read(path: Path) -> Sidecar | None:
    """Read a record; None where there is none. Raises `BadSidecar`."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_RECORD_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(text) > _MAX_RECORD_BYTES:
        raise errors.BadSidecar(str(path), "is too long")
    try:
        return _sidecar(json_object(text), str(path))
    except BadJson as error:
        raise errors.BadSidecar(str(path), str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, errors.BadDigest) as error:
        raise errors.BadSidecar(str(path), f"is not a record ({error!r})") from error


def _sidecar(value: Any, where: str) -> Sidecar:
    if value["format"] != FORMAT:
        raise errors.BadSidecar(where, f"has format {value['format']!r}, not {FORMAT}")
    recipe = value["recipe"]
    files = {}
    for path, file in value["files"].items():
        check_path(path, where)
        overlay = file["overlay_digest"]
        files[path] = FileRecord(
            parse_digest(file["base_digest"]),
            None if overlay is None else parse_digest(overlay),
            parse_digest(file["digest"]),
        )
    return Sidecar(
        int(value["generation"]),
        str(value["base"]),
        recipe and AppliedRecipe(parse_digest(recipe["digest"]), str(recipe["reference"])),
        files,
    )


def write(disk: Disk, path: Path, sidecar: Sidecar) -> None:
    """Write a record, whole or not at all."""
    text = json.dumps(sidecar.json(), indent=2) + "\n"
    disk.write_file(path, [text.encode()])
