"""Static files under names that hold their content's hash, so that a browser may keep them forever.

    static/patchbay.css   →   /static/patchbay.3f6a0c1d9b2e.css

A new release names what changed anew; what a page refers to is what was read when the process
started.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from service import errors

FOLDER: Final = Path(__file__).parent / "static"
FOREVER: Final = "public, max-age=31536000, immutable"
GET: Final = ["GET", "HEAD"]

_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HASH_DIGITS: Final = 12

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is sent."""

    content: bytes
    media_type: str


class Assets:
    """The files of a folder, read once; `KeyError` for a kind of file that has no media type."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._sent: dict[str, Asset] = {}
        self._named: dict[str, str] = {}
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:_HASH_DIGITS]
            hashed = f"{path.stem}.{digest}{path.suffix}"
            self._sent[hashed] = Asset(content, _MEDIA_TYPES[path.suffix])
            self._named[path.name] = f"/static/{hashed}"

    def url(self, name: str) -> str:
        """The address of a file; raises `KeyError`, so a page cannot name what is not there."""
        return self._named[name]

    def find(self, hashed: str) -> Asset | None:
        """The file of this hashed name."""
        return self._sent.get(hashed)


@router.api_route("/static/{name}", methods=GET)
async def static(name: str, request: Request) -> Response:
    """Send a static file."""
    assets: Assets = request.app.state.assets
    asset = assets.find(name)
    if asset is None:
        raise errors.ThingNotFound("static file", name[:100])
    headers = {"Cache-Control": FOREVER}
    return Response(asset.content, headers=headers, media_type=asset.media_type)
