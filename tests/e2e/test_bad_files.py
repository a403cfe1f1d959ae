"""Bad files, over HTTP: each is refused by name, and nothing of it becomes a version."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save

from tests.e2e.bench import Bench, Tensors, net, no_trace, raw_file, refused

pytestmark = pytest.mark.xdist_group("service")

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
GOOD = save({"a.weight": np.ones((2, 2), "float32")})


def _entry(**changes: object) -> dict[str, object]:
    return {**F32, **changes}


BAD = {
    "text": (b"hello, I am no tensor file, am I?", "header"),
    "empty": (b"", "too few"),
    "header too long": (raw_file(b"{}", length=200_000_000), "over the limit"),
    "header past the end": (raw_file(b"{}", length=5_000), "in all"),
    "not json": (raw_file(b'{"a": '), "not JSON"),
    "overlap": (
        raw_file({"a": F32, "b": _entry(data_offsets=[4, 12])}, bytes(12)),
        "overlaps",
    ),
    "hole": (raw_file({"a": F32, "b": _entry(data_offsets=[12, 20])}, bytes(20)), "hole"),
    "rest": (raw_file({"a": F32}, bytes(9)), "no tensor covers"),
    "lying shape": (raw_file({"a": _entry(shape=[3])}, bytes(8)), "12 bytes by its shape"),
    "lying dtype": (raw_file({"a": _entry(dtype="F16")}, bytes(8)), "4 bytes by its shape"),
    "unknown dtype": (raw_file({"a": _entry(dtype="F33")}, bytes(8)), "unknown dtype"),
    "overflow": (raw_file({"a": _entry(shape=[2**62, 2**62])}, bytes(8)), "impossible shape"),
    "repeated name": (
        raw_file(f'{{"a": {json.dumps(F32)}, "a": {json.dumps(F32)}}}'.encode(), bytes(8)),
        "repeats the name 'a'",
    ),
    "truncated": (GOOD[:-3], "cut off"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_no_safetensors_makes_no_version(bench: Bench, case: str) -> None:
    content, told = BAD[case]
    bench.describe("models", "net")
    digest = bench.upload(content)

    with bench.nothing_left():
        answer = bench.publish("net", {"net.safetensors": digest})

    refused(answer, 422, "not-safetensors", "net.safetensors", told)


def _checkpoint() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return out.getvalue()


@pytest.mark.parametrize(
    ("path", "content", "form"),
    [
        ("net.safetensors", pickle.dumps({"a": [1.0] * 40}), "pickle"),
        ("net.safetensors", _checkpoint(), "PyTorch checkpoint"),
        ("pytorch_model.bin", b"whatever", "not a PyTorch checkpoint"),
        ("net.safetensors", b"GGUF" + bytes(40), "GGUF"),
        ("net.onnx", b"whatever", "ONNX"),
    ],
)
def test_a_file_of_another_format_is_refused_by_name(
    bench: Bench, path: str, content: bytes, form: str
) -> None:
    bench.describe("models", "net")
    digest = bench.upload(content)

    with bench.nothing_left():
        answer = bench.publish("net", {path: digest})

    refused(answer, 422, "unsupported-format", path, form, "safetensors")


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config.json": GOOD}, "no weights"),
        ({"../net.safetensors": GOOD}, "plain relative path"),
        ({"a.safetensors": GOOD, "A.safetensors": GOOD}, "case alone"),
        (
            {"a.safetensors": GOOD, INDEX: b'{"weight_map": {"a": "b.safetensors"}}'},
            "missing",
        ),
        ({"a.safetensors": GOOD, INDEX: b'{"weight_map": {"b": "a.safetensors"}}'}, "not there"),
        ({"a.safetensors": GOOD, INDEX: b"[1]"}, "not a JSON object"),
    ],
)
def test_files_that_do_not_belong_together_make_no_version(
    bench: Bench, files: dict[str, bytes], told: str
) -> None:
    bench.describe("models", "net")
    digests = {path: bench.upload(content) for path, content in files.items()}

    with bench.nothing_left():
        answer = bench.publish("net", digests)

    refused(answer, 422, "bad-file-set", told)


def test_a_version_of_a_blob_that_nobody_uploaded_is_refused(bench: Bench) -> None:
    bench.describe("models", "net")
    digest = "sha256:" + "0" * 64

    with bench.nothing_left():
        answer = bench.publish("net", {"net.safetensors": digest})

    refused(answer, 404, "blob-not-found", digest, "PUT /v1/blobs/")


def test_bytes_that_do_not_hash_to_their_name_are_not_kept(bench: Bench) -> None:
    digest = "sha256:" + "1" * 64

    with bench.nothing_left():
        answer = bench.client.put(f"/v1/blobs/{digest}", content=GOOD)

    refused(answer, 422, "digest-mismatch", digest, "send them again")
    assert bench.client.head(f"/v1/blobs/{digest}").status_code == 404


# ── pairs ────────────────────────────────────────────────────────────────────────────────────


def _refused_extraction(bench: Bench, clean: Tensors, robust: Tensors, slug: str) -> str:
    """Extract from a pair, see it fail for this reason, and answer what is told."""
    bench.model("clean", clean)
    bench.model("robust", robust)
    bench.describe("patches", "fog")

    with bench.nothing_left():
        operation = bench.ended(bench.extract("fog", "clean", "robust"))

    assert (operation["state"], operation["result"]) == ("failed", None)
    assert operation["problem"]["type"] == f"/problems/{slug}"
    no_trace(json.dumps(operation))
    told: str = operation["problem"]["detail"]
    return told


def test_models_with_other_tensors_are_told_apart_by_name_and_side(bench: Bench) -> None:
    clean = net(1)
    robust = {**net(2, like=clean), "conv2.bias": np.zeros(9, "float32")}
    del robust["conv1.weight"]
    extra = {f"extra{n}.weight": np.ones((2, 2), "float32") for n in range(12)}

    told = _refused_extraction(bench, {**clean, **extra}, robust, "models-differ")

    assert "the robust model lacks 'conv1.weight'" in told
    assert "and 4 more" in told
    assert told.count("the robust model lacks") + told.count("in the clean model") == 10


def test_what_only_the_robust_model_holds_is_named(bench: Bench) -> None:
    clean = net(1)
    robust = {**net(2, like=clean), "se.weight": np.ones((2, 2), "float32")}

    told = _refused_extraction(bench, clean, robust, "models-differ")

    assert "the clean model lacks 'se.weight', which the robust one has" in told


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(bench: Bench, value: float) -> None:
    clean = net(1)
    robust = net(2, like=clean)
    robust["conv2.weight"][3, 0, 0, 0] = value

    told = _refused_extraction(bench, clean, robust, "non-finite-weights")

    assert "robust" in told
    assert "conv2.weight" in told


def test_a_pair_of_one_and_the_same_model_is_refused_at_once(bench: Bench) -> None:
    bench.model("clean", net(1))
    bench.describe("patches", "fog")

    with bench.nothing_left():
        answer = bench.extract("fog", "clean", "clean")

    refused(answer, 409, "nothing-to-extract", "same weights")


# ── patch files made elsewhere ───────────────────────────────────────────────────────────────


def test_a_patch_file_that_is_none_makes_no_version(bench: Bench) -> None:
    bench.describe("patches", "fog")
    digest = bench.upload(GOOD)

    with bench.nothing_left():
        answer = bench.client.post(f"{bench.of('patches', 'fog')}/versions", json={"blob": digest})

    refused(answer, 422, "not-a-patch-file", "patchbay.rws")


def test_a_patch_file_whose_codes_were_changed_makes_no_version(pair: Bench, bench: Bench) -> None:
    content = bytearray(pair.client.get(f"{pair.of('patches', 'fog')}/versions/1/file").content)
    content[8 + int.from_bytes(content[:8], "little") + 40] ^= 0x10
    bench.describe("patches", "fog")
    digest = bench.upload(bytes(content))

    with bench.nothing_left():
        answer = bench.client.post(f"{bench.of('patches', 'fog')}/versions", json={"blob": digest})
        operation = bench.ended(answer)

    assert operation["state"] == "failed"
    assert operation["problem"]["type"] == "/problems/not-a-patch-file"
    assert "does not hash to its digest" in operation["problem"]["detail"]


def test_a_patch_file_made_elsewhere_becomes_a_version(pair: Bench, bench: Bench) -> None:
    content = pair.client.get(f"{pair.of('patches', 'fog')}/versions/1/file").content
    bench.describe("patches", "fog")
    address = f"{bench.of('patches', 'fog')}/versions"

    operation = bench.ended(bench.client.post(address, json={"blob": bench.upload(content)}))

    assert operation["state"] == "succeeded", operation
    assert bench.client.get(f"{address}/1/file").content == content
