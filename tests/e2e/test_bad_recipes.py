"""Recipes that cannot be: each is refused by name, and nothing is built, moved or recorded."""

import json
from decimal import Decimal

import httpx2
import numpy as np
import pytest

from tests.e2e.bench import Bench, net, no_trace, refused

pytestmark = pytest.mark.xdist_group("service")


@pytest.mark.parametrize(
    ("recipe", "status", "slug", "told"),
    [
        ("main+fog=x", 422, "bad-scale", "plain decimal"),
        ("main+fog=nan", 422, "bad-scale", "plain decimal"),
        ("main+fog=1e1", 422, "bad-scale", "exponent"),
        ("main+fog=.5", 422, "bad-scale", "write 0.5"),
        ("main+fog=10.5", 422, "bad-scale", "outside -10 to 10"),
        ("main+fog=6+fog=6", 422, "bad-scale", "outside -10 to 10"),
        ("main+fog=0.12345", 422, "bad-scale", "more than 4 decimal places"),
        ("main+fog", 422, "bad-recipe", "write fog=1"),
        ("main+fog=1@3", 422, "bad-recipe", "pin a version with ~2"),
        ("+fog=1", 422, "bad-recipe", "has no base"),
        ("main+fog~x=1", 422, "bad-recipe", "version number"),
        ("main+mist=1", 404, "not-found", "mist"),
        ("main+fog~7=1", 404, "not-found", "fog@7"),
        ("9+fog=1", 404, "not-found", "clean@9"),
        ("stable+fog=1", 404, "not-found", "clean@stable"),
        ("main+v1.fog=1", 422, "reserved-namespace", "'v1'"),
        ("x" * 5000, 422, "fields-invalid", "recipe"),
    ],
)
def test_a_recipe_that_cannot_be_read_builds_nothing(
    pair: Bench, recipe: str, status: int, slug: str, told: str
) -> None:
    with pair.nothing_left():
        answer = pair.weights(recipe)

    refused(answer, status, slug, told)


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        (0.12345, "more than 4 decimal places"),
        (0.00001, "more than 4 decimal places"),
        (11, "outside"),
        (1e8, "outside"),
        (1e300, "plain decimal"),
        ("1e1", "exponent"),
        ("much", "plain decimal"),
    ],
)
def test_a_scale_in_json_is_held_to_the_same_rule(
    pair: Bench, scale: float | str, told: str
) -> None:
    patches = [{"patch": pair.ref("fog"), "scale": scale}]

    with pair.nothing_left():
        answer = pair.client.post(
            "/v1/recipes", json={"recipe": {"base": pair.ref("clean"), "patches": patches}}
        )

    refused(answer, 422, "bad-scale", told)


@pytest.mark.parametrize("scale", ["true", "null", "[]", "NaN", "Infinity"])
def test_a_scale_that_is_no_number_is_refused(pair: Bench, scale: str) -> None:
    body = (
        f'{{"recipe": {{"base": "{pair.ref("clean")}",'
        f' "patches": [{{"patch": "{pair.ref("fog")}", "scale": {scale}}}]}}}}'
    )

    with pair.nothing_left():
        answer = pair.client.post(
            "/v1/recipes", content=body, headers={"Content-Type": "application/json"}
        )

    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] in {"/problems/bad-scale", "/problems/fields-invalid"}
    no_trace(answer.text)


def test_two_versions_of_one_patch_are_refused(bench: Bench) -> None:
    clean = net(1)
    bench.model("clean", clean)
    for seed in (2, 3):
        bench.model(f"robust{seed}", net(seed, like=clean))
        bench.patch("fog", "clean", f"robust{seed}")

    with bench.nothing_left():
        answer = bench.weights("main+fog~1=0.5+fog~2=0.5")

    refused(answer, 422, "two-versions-of-one-patch", "versions 1 and 2", bench.ref("fog"))


def test_a_patch_does_not_fit_a_base_without_its_tensors_or_of_other_shapes(
    pair: Bench, bench: Bench
) -> None:
    other = net(5)
    other["conv2.weight"] = np.ones((4, 8, 3, 3), "float32")
    other["conv2.bias"] = np.ones(8, "int32")
    del other["conv1.weight"]
    bench.model("clean", other)
    recipe = f"main+{pair.namespace}.fog=1"

    with bench.nothing_left():
        pulled = bench.weights(recipe)
        asked = bench.client.post("/v1/builds", json={"recipe": bench.ref(f"clean@{recipe}")})

    for answer in (pulled, asked):
        refused(
            answer,
            409,
            "does-not-fit",
            "conv1.weight' is not in the base",
            "conv2.weight' is 4x8x3x3 in the base, 8x8x3x3 in the patch",
            "is of I32, which is never patched",
            bench.ref("clean"),
        )


def test_the_very_base_may_be_required(pair: Bench, bench: Bench) -> None:
    bench.model("clean", net(5))
    recipe = {
        "base": bench.ref("clean"),
        "patches": [{"patch": pair.ref("fog"), "scale": 1}],
    }

    taken = bench.client.post("/v1/recipes", json={"recipe": recipe})
    with bench.nothing_left():
        answer = bench.client.post("/v1/recipes", json={"recipe": recipe, "require": "same_base"})

    assert taken.json()["patches"][0]["fit"] == "same_architecture"
    refused(answer, 409, "not-the-same-base", pair.ref("fog"), pair.ref("clean"), "require")


def _overflowing(bench: Bench) -> None:
    clean = {**net(1, dtype="float16"), "conv1.weight": np.full((8, 3, 3, 3), 60_000, "float16")}
    robust = {**clean, "conv1.weight": np.full((8, 3, 3, 3), 61_984, "float16")}
    bench.model("clean", clean)
    bench.model("robust", robust)
    bench.patch("fog", "clean", "robust", projection="none")


def test_a_scale_that_overflows_the_dtype_fails_by_name_and_leaves_no_build(bench: Bench) -> None:
    _overflowing(bench)

    with bench.nothing_left():
        answer = bench.weights("main+fog=10")

    problem = refused(answer, 409, "build-failed", "'conv1.weight'", "F16", "smaller scales")
    operation = bench.get(f"/v1/operations/{problem['operation']}")
    assert operation["problem"]["type"] == "/problems/scale-overflows"
    no_trace(json.dumps(operation))
    assert bench.client.get(f"/v1/builds/{problem['recipe']}").status_code == 404


def test_a_build_that_failed_keeps_nobody_from_deleting_its_base(bench: Bench) -> None:
    _overflowing(bench)
    bench.weights("main+fog=10")

    answer = bench.client.delete(bench.of("models", "clean"))

    assert answer.status_code == 204, answer.text


def test_a_build_that_failed_may_be_asked_for_again(bench: Bench) -> None:
    _overflowing(bench)
    first = bench.weights("main+fog=10")

    second = bench.weights("main+fog=10")

    assert first.json()["operation"] != second.json()["operation"]
    refused(second, 409, "build-failed", "conv1.weight")


# ── channels ─────────────────────────────────────────────────────────────────────────────────


def _point(bench: Bench, recipe: object) -> httpx2.Response:
    return bench.client.put(
        bench.of("channels", "edge"), json={"recipe": recipe}, headers={"If-None-Match": "*"}
    )


@pytest.mark.parametrize(
    ("recipe", "status", "slug"),
    [
        ("clean@main+mist=1", 404, "not-found"),
        ("clean@main+fog=99", 422, "bad-scale"),
        ("clean@7", 404, "not-found"),
        ("clean@", 422, "bad-reference"),
        ("nobody", 404, "not-found"),
    ],
)
def test_a_channel_does_not_move_to_what_cannot_be(
    pair: Bench, recipe: str, status: int, slug: str
) -> None:
    with pair.nothing_left():
        answer = _point(pair, pair.ref(recipe))

    refused(answer, status, slug)
    assert pair.client.get(pair.of("channels", "edge")).status_code == 404


@pytest.mark.parametrize("kind", ["models", "patches", "channels"])
@pytest.mark.parametrize("namespace", ["v1", "API", "healthz"])
def test_a_reserved_namespace_is_refused(bench: Bench, kind: str, namespace: str) -> None:
    headers = {"If-None-Match": "*"} if kind == "channels" else {}
    body = {"recipe": "a/b"} if kind == "channels" else {}

    with bench.nothing_left():
        answer = bench.client.put(f"/v1/{kind}/{namespace}/net", json=body, headers=headers)

    refused(answer, 422, "reserved-namespace", namespace, "choose another")


@pytest.mark.parametrize("name", ["a..b", "-a", "a--b", "x.git", "%00", "a%2Fb", "ä"])
def test_a_name_outside_the_rules_is_refused(bench: Bench, name: str) -> None:
    with bench.nothing_left():
        answer = bench.client.put(f"/v1/models/{bench.namespace}/{name}", json={})

    assert answer.status_code in {404, 405, 422}, answer.text
    no_trace(answer.text)


def test_merged_scales_name_one_recipe(pair: Bench) -> None:
    asked = [
        pair.client.post("/v1/recipes", json={"recipe": pair.ref(f"clean@{text}")}).json()
        for text in ("main+fog=0.3+fog=0.2", "1+fog~1=0.50", "main+fog=1+fog=-0.5")
    ]

    assert len({recipe["digest"] for recipe in asked}) == 1
    assert Decimal(str(asked[0]["patches"][0]["scale"])) == Decimal("0.5")
