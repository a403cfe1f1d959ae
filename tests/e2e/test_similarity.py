"""Patches compared, balanced and identified on the running service.

Other tests publish to the same catalogue. What is compared here lies in kernels of names of its
own, so that theirs are nobody's neighbours.
"""

from typing import Any

import httpx2
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load

from service.layout import patchfile
from tests.e2e.bench import MAIN_FILE, Bench, Tensors, net, refused
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.xdist_group("service")

PATCHES = ("noise", "blur", "fog")


def mixed(like: Tensors, parts: dict[int, float]) -> dict[str, Any]:
    """The clean net moved along several random directions."""
    moved = dict(like)
    for seed, size in parts.items():
        step = net(seed, like=like)
        for name, value in like.items():
            if value.dtype.kind == "f" and not name.endswith("running_var"):
                moved[name] = (moved[name] + size * (step[name] - value)).astype(value.dtype)
    return moved


def named(prefix: str, tensors: Tensors) -> dict[str, Any]:
    """An architecture that nobody else publishes."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


@pytest.fixture(scope="module")
def shop(service: ServiceProcess) -> Bench:
    """Three labelled patches on one base; noise and blur have a part in common."""
    bench = Bench(service.client, service.home / "blobs")
    clean = net(1)
    models = {
        "clean": clean,
        "robust-noise": mixed(clean, {2: 1.0, 9: 0.6}),
        "robust-blur": mixed(clean, {3: 1.0, 9: 0.6}),
        "robust-fog": mixed(clean, {4: 1.0}),
        "unknown": mixed(clean, {4: 0.8, 5: 0.3}),
    }
    for name, tensors in models.items():
        bench.model(name, named("shop", tensors))
    for name in PATCHES:
        bench.patch(name, "clean", f"robust-{name}")
        bench.client.put(bench.of("patches", name), json={"labels": [f"{name}-label"]})
    for name in PATCHES:  # each is measured some time after it is published
        similar(bench, name)
    return bench


def patiently(bench: Bench, method: str, address: str, **options: Any) -> httpx2.Response:
    """Ask, and again once the operation that a 202 names has ended."""
    answer = bench.client.request(method, address, **options)
    while answer.status_code == 202:
        assert bench.ended(answer)["state"] == "succeeded"
        answer = bench.client.request(method, address, **options)
    return answer


def similar(bench: Bench, name: str, query: str = "") -> dict[str, float]:
    address = f"{bench.of('patches', name)}/versions/1/similar{query}"
    answer = patiently(bench, "GET", address)
    assert answer.status_code == 200, answer.text
    prefix = f"{bench.namespace}/"
    return {item["patch"].removeprefix(prefix): item["cosine"] for item in answer.json()["items"]}


def kernels(bench: Bench, name: str) -> dict[str, NDArray[np.float64]]:
    """What an exact patch file holds, over the norm of its clean weight, decoded by hand."""
    content = bench.client.get(f"{bench.of('patches', name)}/versions/1/file").content
    patch = patchfile.read(lambda start, end: content[start:end], len(content))
    codes = {
        tensor.name: np.frombuffer(content[tensor.codes.start : tensor.codes.end], "<f4")
        for tensor in patch.tensors
        if tensor.weight_norm
    }
    norms = {tensor.name: tensor.weight_norm for tensor in patch.tensors if tensor.weight_norm}
    return {each: values.astype(np.float64) / norms[each] for each, values in codes.items()}


def vector(bench: Bench, name: str) -> NDArray[np.float64]:
    return np.concatenate([values for _, values in sorted(kernels(bench, name).items())])


def cosine(bench: Bench, one: str, other: str) -> float:
    a, b = vector(bench, one), vector(bench, other)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_nearest_neighbour_of_a_patch_is_told_exactly(shop: Bench) -> None:
    found = similar(shop, "noise")

    assert list(found) == ["blur", "fog"]
    assert found["blur"] == pytest.approx(cosine(shop, "noise", "blur"), abs=1e-5)
    assert similar(shop, "noise", "?label=blur-label").keys() == {"blur"}


def test_a_set_is_compared_once_and_then_known(shop: Bench) -> None:
    body = {"patches": [shop.ref("fog"), shop.ref("noise@1")]}

    found = patiently(shop, "POST", "/v1/patches/similarity", json=body).json()
    again = shop.client.post("/v1/patches/similarity", json={"patches": body["patches"][::-1]})

    assert found["patches"] == [shop.ref("fog@1"), shop.ref("noise@1")]
    assert found["cosines"][0][1] == pytest.approx(cosine(shop, "noise", "fog"), abs=1e-5)
    assert again.status_code == 200
    assert again.json()["cosines"][1][0] == found["cosines"][0][1]


def test_a_balanced_recipe_projects_on_every_signature_as_was_asked_for(shop: Bench) -> None:
    asked = {"recipe": shop.ref("clean@main+noise=1+blur=0.75"), "balance": True}

    answer = patiently(shop, "POST", "/v1/recipes", json=asked)

    recipe = answer.json()
    scales = {part["patch"].partition("/")[2]: part["scale"] for part in recipe["patches"]}
    whole = sum(scale * vector(shop, name) for name, scale in scales.items())
    for name, wanted in (("noise", 1.0), ("blur", 0.75)):
        own = vector(shop, name)
        assert whole @ own / (own @ own) == pytest.approx(wanted, abs=1e-3)
    balance = recipe["composition"]["balance"]
    assert balance["recipe"] == recipe["reference"]
    assert answer.headers["content-location"].endswith(recipe["digest"])
    total = sum(np.array(layer["gram"]) for layer in balance["layers"])
    np.testing.assert_allclose(total, balance["gram"], rtol=1e-9)
    assert 1 < balance["condition"] < 100


def test_the_interference_of_a_recipe_is_told_by_kernel(shop: Bench) -> None:
    asked = {"recipe": shop.ref("clean@main+noise=1+blur=-1"), "interference": True}

    recipe = patiently(shop, "POST", "/v1/recipes", json=asked).json()

    (pair,) = recipe["composition"]["interference"]
    assert pair["cosine"] == pytest.approx(-similar(shop, "noise")["blur"], abs=1e-5)
    noise, blur = kernels(shop, "noise"), kernels(shop, "blur")
    for layer in pair["layers"]:
        one, other = noise[layer["tensor"]], -blur[layer["tensor"]]
        wanted = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert layer["cosine"] == pytest.approx(wanted, abs=1e-5)
        assert layer["conflict"] == pytest.approx(np.mean(one * other < 0))
    assert {part["scale"] for part in recipe["patches"]} == {1.0, -1.0}


def test_patches_that_cannot_be_balanced_are_named(shop: Bench) -> None:
    asked = {"recipe": shop.ref("clean@main+noise=0.01+blur=5"), "balance": True}

    answer = patiently(shop, "POST", "/v1/recipes", json=asked)

    refused(answer, 409, "cannot-balance", shop.ref("noise@1"), shop.ref("blur@1"))


def test_an_unknown_pair_of_models_is_identified_and_nothing_published(shop: Bench) -> None:
    similar(shop, "fog")
    body = {"clean": shop.ref("clean"), "robust": shop.ref("unknown")}

    with shop.nothing_left():
        result = shop.ended(shop.client.post("/v1/patches/identify", json=body))["result"]

    assert result["label"] == "fog-label"
    own = {patch["reference"]: patch["cosine"] for patch in result["patches"]}
    assert own[shop.ref("fog@1")] > 0.8
    assert result["margin"] > 0.3
    assert result["trusted"], result["reasons"]


def test_an_uploaded_patch_file_is_identified(shop: Bench) -> None:
    similar(shop, "blur")
    file = shop.client.get(f"{shop.of('patches', 'blur')}/versions/1/file").content

    accepted = shop.client.post("/v1/patches/identify", json={"blob": shop.upload(file)})

    result = shop.ended(accepted)["result"]
    assert result["label"] == "blur-label"
    assert result["patches"][0]["cosine"] == pytest.approx(1, abs=1e-5)


def test_another_architecture_is_not_guessed_at(bench: Bench) -> None:
    other = {"lonely.weight": np.ones((4, 4), "float32") + np.eye(4, dtype="float32")}
    bench.model("clean", other)
    bench.model("robust", {"lonely.weight": other["lonely.weight"].cumsum(axis=0)})
    body = {"clean": bench.ref("clean"), "robust": bench.ref("robust")}

    result = bench.ended(bench.client.post("/v1/patches/identify", json=body))["result"]

    assert (result["label"], result["trusted"]) == (None, False)


def test_what_is_no_patch_file_cannot_be_identified(bench: Bench) -> None:
    bench.model("clean", net(1))
    version = bench.get(f"{bench.of('models', 'clean')}/versions/1")
    blob = next(file["digest"] for file in version["files"] if file["path"] == MAIN_FILE)

    ended = bench.ended(bench.client.post("/v1/patches/identify", json={"blob": blob}))

    assert ended["state"] == "failed"
    assert ended["problem"]["type"] == "/problems/not-a-patch-file"
    assert load(b"".join([bench.client.get(f"/v1/blobs/{blob}").content]))


@pytest.mark.parametrize(
    ("address", "body"),
    [
        ("/v1/patches/identify", {}),
        ("/v1/patches/identify", {"clean": "a/b"}),
        ("/v1/patches/identify", {"blob": "sha256:" + "0" * 64, "clean": "a/b", "robust": "a/c"}),
        ("/v1/patches/similarity", {"patches": ["a/b"]}),
        ("/v1/patches/similarity", {"patches": [f"a/b{n}" for n in range(101)]}),
    ],
)
def test_a_question_that_asks_nothing_is_refused(
    bench: Bench, address: str, body: dict[str, Any]
) -> None:
    refused(bench.client.post(address, json=body), 422, "fields-invalid")


def test_a_withdrawn_patch_is_nobodys_neighbour(bench: Bench) -> None:
    clean = net(1)
    bench.model("clean", named("withdrawn", clean))
    for seed, name in ((2, "a"), (3, "b")):
        bench.model(f"robust-{name}", named("withdrawn", mixed(clean, {seed: 1.0})))
        bench.patch(name, "clean", f"robust-{name}")
    assert similar(bench, "b").keys() == {"a"}
    assert similar(bench, "a").keys() == {"b"}

    bench.client.post(f"{bench.of('patches', 'b')}/versions/1/withdraw", json={"reason": "worse"})

    assert similar(bench, "a") == {}
