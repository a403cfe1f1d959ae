"""Patched files as clients get them: ranges and conditions, shards, and models of several parts."""

import base64
import hashlib
import json
import time
from collections.abc import Mapping

import numpy as np
import pytest
from safetensors.numpy import load, save

from service.layout import splice
from service.layout.header import parse
from tests.e2e.bench import Bench, net, refused

pytestmark = pytest.mark.xdist_group("service")


@pytest.fixture(scope="module")
def url(pair: Bench) -> str:
    """Address of a patched file that is built."""
    address = f"{pair.of('weights', 'clean')}?recipe=main+fog=0.5"
    assert pair.client.get(address).status_code == 200
    return address


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-7", 0, 8),
        ("bytes=5-2000", 5, 2001),
        ("bytes=700-", 700, None),
        ("bytes=-9", -9, None),
        ("bytes=3-999999999999", 3, None),
    ],
)
def test_a_range_is_that_slice_of_the_whole(
    pair: Bench, url: str, asked: str, start: int, end: int | None
) -> None:
    whole = pair.client.get(url)

    part = pair.client.get(url, headers={"Range": asked})

    assert part.status_code == 206
    assert part.content == whole.content[start:end]
    assert part.headers["etag"] == whole.headers["etag"]
    assert part.headers["content-range"].endswith(f"/{len(whole.content)}")


def test_a_range_outside_the_file_is_refused(pair: Bench, url: str) -> None:
    size = len(pair.client.get(url).content)

    answer = pair.client.get(url, headers={"Range": f"bytes={size}-"})

    refused(answer, 416, "bad-range", str(size))
    assert answer.headers["content-range"] == f"bytes */{size}"


def test_conditions_and_heads_hold_as_on_a_plain_file(pair: Bench, url: str) -> None:
    whole = pair.client.get(url)
    etag = whole.headers["etag"]

    def asked(**headers: str) -> tuple[int, int]:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        answer = pair.client.get(url, headers=named)
        return answer.status_code, len(answer.content)

    head = pair.client.head(url)

    assert etag.startswith('"s1-')
    assert whole.headers["accept-ranges"] == "bytes"
    assert asked(If_None_Match=etag) == (304, 0)
    assert asked(If_None_Match='"other"') == (200, len(whole.content))
    assert asked(If_None_Match=f'"x", W/{etag}') == (304, 0)
    assert asked(If_Range=etag, Range="bytes=0-9") == (206, 10)
    assert asked(If_Range='"s1-old"', Range="bytes=0-9") == (200, len(whole.content))
    assert asked(If_Range=f"W/{etag}", Range="bytes=0-9") == (200, len(whole.content))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.headers["etag"] == etag


def test_the_overlay_applied_here_is_the_pulled_file_and_the_undo_its_base(
    pair: Bench, url: str
) -> None:
    base, patched = pair.weights("main").content, pair.client.get(url).content
    build = f"/v1/builds/{_recipe(pair, 'main+fog=0.5')}"
    overlay, undo = (pair.client.get(f"{build}/{part}").content for part in ("overlay", "undo"))

    assert _written(base, overlay) == patched != base
    assert _written(patched, undo) == base
    manifest = pair.get(f"{build}/manifest")
    assert manifest["files"][0]["tensors"] == list(parse(overlay, len(overlay)).names)


def _recipe(bench: Bench, text: str) -> str:
    answer = bench.client.post("/v1/recipes", json={"recipe": bench.ref(f"clean@{text}")})
    return str(answer.json()["digest"]).removeprefix("sha256:")


def _written(file: bytes, pieces: bytes) -> bytes:
    """The file with the tensors of an overlay or an undo written over its own."""
    out = bytearray(file)
    header = parse(pieces, len(pieces))
    for piece in splice.in_place(parse(file, len(file)), header):
        new = pieces[piece.overlay_start : piece.overlay_start + piece.length]
        out[piece.base_start : piece.base_start + piece.length] = new
    return bytes(out)


def test_names_are_found_in_whatever_case_and_answers_tell_what_was_sent(pair: Bench) -> None:
    answer = pair.client.get(f"/v1/weights/{pair.namespace.upper()}/CLEAN?recipe=MAIN+FOG=0.5")

    assert answer.status_code == 200, answer.text
    assert answer.content == pair.weights("1+fog~1=0.50").content
    assert answer.headers["x-patchbay-recipe"] == f"sha256:{_recipe(pair, 'main+fog=0.5')}"
    base = hashlib.sha256(pair.weights("main").content).hexdigest()
    assert answer.headers["x-patchbay-base-digest"] == f"sha256:{base}"


def test_the_sha256_of_a_patched_file_is_told_once_a_worker_has_computed_it(
    pair: Bench, url: str
) -> None:
    whole = pair.client.get(url)
    build = f"/v1/builds/{_recipe(pair, 'main+fog=0.5')}"
    deadline = time.monotonic() + 60
    while "repr-digest" not in (head := pair.client.head(url)).headers:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    sha256 = hashlib.sha256(whole.content)

    stated = base64.b64encode(sha256.digest()).decode()
    assert head.headers["repr-digest"] == f"sha-256=:{stated}:"
    assert head.headers["etag"] == whole.headers["etag"]
    manifest = pair.get(f"{build}/manifest")
    assert manifest["files"][0]["sha256"] == f"sha256:{sha256.hexdigest()}"


# ── shards and parts ─────────────────────────────────────────────────────────────────────────

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def _sharded(tensors: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    where = {name: SHARDS[number % 2] for number, name in enumerate(tensors)}
    files = {
        shard: save({name: tensors[name] for name in tensors if where[name] == shard})
        for shard in SHARDS
    }
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    return {**files, INDEX: json.dumps(index).encode(), "config.json": b"{}"}


@pytest.fixture(scope="module")
def sharded(pair: Bench) -> Bench:
    """The pair's models again, each in two shards with an index, and a patch between them."""
    bench = Bench(pair.client, pair.blobs)
    clean = net(1)
    bench.model("clean", _sharded(clean))
    bench.model("robust", _sharded(net(2, like=clean)))
    bench.patch("fog", "clean", "robust")
    return bench


def test_a_model_of_several_files_is_pulled_file_by_file(sharded: Bench, pair: Bench) -> None:
    whole = sharded.weights("main+fog=1")

    shards = [_file(sharded, "weights", path) for path in SHARDS]

    refused(whole, 409, "several-files", *SHARDS)
    assert whole.json()["paths"] == list(SHARDS)
    together = {name: value for shard in shards for name, value in load(shard).items()}
    single = load(pair.weights("main+fog=1").content)
    assert together.keys() == single.keys()
    assert all(np.array_equal(together[name], single[name]) for name in single)


def _file(bench: Bench, kind: str, path: str, recipe: str = "main+fog=1") -> bytes:
    answer = bench.client.get(f"{bench.of(kind, 'clean')}/{path}?recipe={recipe}")
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_patch_of_a_single_file_fits_the_same_model_in_shards(
    sharded: Bench, pair: Bench
) -> None:
    recipe = f"main+{pair.namespace}.fog=1"

    shards = [_file(sharded, "weights", path, recipe) for path in SHARDS]

    assert shards == [_file(sharded, "weights", path) for path in SHARDS]


@pytest.mark.parametrize("path", SHARDS)
def test_each_shard_has_its_overlay_undo_and_manifest(sharded: Bench, path: str) -> None:
    build = f"/v1/builds/{_recipe(sharded, 'main+fog=1')}"
    base = sharded.client.get(f"{sharded.of('models', 'clean')}/versions/1/files/{path}").content
    patched = _file(sharded, "weights", path)

    parts = {part: sharded.client.get(f"{build}/{part}/{path}") for part in ("overlay", "undo")}
    unnamed = sharded.client.get(f"{build}/overlay")
    manifest = {file["path"]: file for file in sharded.get(f"{build}/manifest")["files"]}

    assert _written(base, parts["overlay"].content) == patched != base
    assert _written(patched, parts["undo"].content) == base
    refused(unnamed, 409, "several-files", *SHARDS)
    assert manifest[path]["base_digest"] == f"sha256:{hashlib.sha256(base).hexdigest()}"
    overlay = parts["overlay"].content
    assert manifest[path]["overlay_digest"] == f"sha256:{hashlib.sha256(overlay).hexdigest()}"
    assert sorted(load(overlay)) == sorted(manifest[path]["tensors"])


def test_a_file_that_no_patch_touches_has_weights_and_no_overlay(bench: Bench) -> None:
    """A model of parts whose files repeat the names of their tensors."""
    unet, vae = net(1), net(9)
    paths = ("unet/diffusion.safetensors", "vae/diffusion.safetensors")
    bench.model("clean", {paths[0]: save(unet), paths[1]: save(vae)})
    bench.model("robust", {paths[0]: save(net(2, like=unet)), paths[1]: save(vae)})
    bench.patch("fog", "clean", "robust", layers={"names": ["conv1.weight"]})

    patched = [_file(bench, "weights", path) for path in paths]
    build = f"/v1/builds/{_recipe(bench, 'main+fog=1')}"

    assert patched[1] == save(vae)
    moved = load(patched[0])
    assert not np.array_equal(moved["conv1.weight"], unet["conv1.weight"])
    assert np.array_equal(moved["conv2.weight"], unet["conv2.weight"])
    refused(bench.client.get(f"{build}/overlay/{paths[1]}"), 404, "not-found", "no patch touches")
    lost = bench.client.get(f"{bench.of('weights', 'clean')}/unet/other.safetensors?recipe=main")
    refused(lost, 404, "not-found", "unet/other.safetensors")
    assert sorted(file["path"] for file in bench.get(f"{build}/manifest")["files"]) == list(paths)
