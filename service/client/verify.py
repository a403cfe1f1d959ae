"""Check a patched file whose own digest the service does not know yet.

A spliced file is the base with the overlay's tensors in it. So it is right if the overlay's bytes
stand in their places, and if the file with the undo's bytes there instead hashes to the base.
"""

from pathlib import Path

from service import errors
from service.layout.pieces import Opened, digest_of_chunks, spliced
from service.layout.splice import in_place
from service.names import Digest


def patched_file(file: Path, overlay: Path, undo: Path, base_digest: Digest) -> None:
    """Check `file` against a verified overlay and its undo.

    Raises `NotVerified`, `NotSafetensors`, `OverlayDoesNotFit`.
    """
    opened = Opened(file), Opened(overlay), Opened(undo)
    try:
        _check_overlay(*opened[:2])
        _check_base(opened[0], opened[2], base_digest)
    finally:
        for one in opened:
            one.close()


def _check_overlay(file: Opened, overlay: Opened) -> None:
    in_place(file.header, overlay.header)
    for name in overlay.header.names:
        wanted, found = (_digest(one, name) for one in (overlay, file))
        if wanted != found:
            raise errors.NotVerified(f"tensor {name!r} of the file", wanted, found, "pull it again")


def _check_base(file: Opened, undo: Opened, base_digest: Digest) -> None:
    found = digest_of_chunks(spliced(file, undo))
    if found != base_digest:
        raise errors.NotVerified(
            "the file with its patches taken off", base_digest, found, "pull it again"
        )


def _digest(file: Opened, name: str) -> Digest:
    return digest_of_chunks(file.tensor(name))
