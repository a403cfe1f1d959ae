"""A base that turned bad on the disk, unnoticed: found, refused, and right again once sent anew."""

import base64
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import numpy as np
import pytest

from service.layout.header import parse
from tests.e2e.bench import Bench, net, refused

pytestmark = pytest.mark.xdist_group("service")


def _until(bench: Bench, recipe: str, true: Callable[[httpx2.Response], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true(answer := bench.weights(recipe)):
        assert time.monotonic() < deadline, (answer.status_code, answer.headers)
        time.sleep(0.1)


def _digest(answer: httpx2.Response) -> str | None:
    stated = answer.headers.get("repr-digest", "")
    return base64.b64decode(stated[9:-1]).hex() if stated else None


def _path(bench: Bench, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return bench.blobs / "sha256" / name[:2] / name


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


@pytest.fixture
def own(bench: Bench) -> Bench:
    """Models of bytes that no other test has, since theirs are to be damaged."""
    clean = net(int.from_bytes(bench.namespace.encode()) % 2**32)
    bench.model("clean", clean)
    moved = {**clean, "conv1.weight": clean["conv1.weight"] + np.float32(0.5)}
    bench.model("robust", moved)
    bench.patch("fog", "clean", "robust", layers={"first": 1})
    return bench


@pytest.mark.parametrize("tensor", ["conv1.weight", "fc.weight"])
def test_a_damaged_base_is_not_served_silently_and_spoils_nothing_for_good(
    own: Bench, tensor: str
) -> None:
    clean = own.weights("main").content
    digest = f"sha256:{hashlib.sha256(clean).hexdigest()}"
    before = own.weights("main+fog=0.5")
    _until(own, "main+fog=0.5", lambda answer: _digest(answer) is not None)

    _flip(_path(own, digest), parse(clean, len(clean)).by_name[tensor].start)
    own.weights("main+fog=0.25")
    _until(own, "main+fog=0.25", lambda answer: answer.status_code == 500)
    for recipe in ("main", "main+fog=0.5", "main+fog=0.25"):
        refused(own.weights(recipe), 500, "damaged-blob", digest, "upload it again")
    own.upload(clean)

    assert _path(own, digest).read_bytes() == clean
    assert own.weights("main").content == clean
    assert own.weights("main+fog=0.5").content == before.content
    again = own.weights("main+fog=0.25")
    _until(own, "main+fog=0.25", lambda answer: _digest(answer) is not None)
    assert _digest(own.weights("main+fog=0.25")) == hashlib.sha256(again.content).hexdigest()
    assert again.content[-40:] == clean[-40:]


def test_an_overlay_that_is_damaged_is_made_again_to_the_same_bytes(own: Bench) -> None:
    before = own.weights("main+fog=0.5")
    build = before.headers["x-patchbay-recipe"].removeprefix("sha256:")
    overlay = own.get(f"/v1/builds/{build}")["files"][0]["overlay_digest"]
    _flip(_path(own, overlay), -1)

    audit = own.ended(own.client.post("/v1/audits", json={"digests": [overlay]}))
    again = own.weights("main+fog=0.5")

    assert audit["result"]["damaged"] == [overlay]
    assert (again.status_code, again.content) == (200, before.content)
    assert again.headers["etag"] == before.headers["etag"]
