"""Lists, withdrawals and tombstones on the running service."""

import pytest

from tests.e2e.bench import Bench, net, refused

pytestmark = pytest.mark.xdist_group("service")

MANY = 230


def test_a_long_list_is_walked_page_by_page_without_gap_or_repeat(bench: Bench) -> None:
    names = [f"net{number:03}" for number in range(MANY)]
    for name in names:
        bench.describe("models", name)

    seen: list[str] = []
    following: str | None = f"/v1/models?limit=50&q={bench.namespace}"
    while following:
        answer = bench.client.get(following)
        page = answer.json()
        seen += [item["name"] for item in page["items"]]
        if len(seen) == 100:  # what comes and goes meanwhile neither repeats nor hides others
            bench.client.delete(bench.of("models", "net010"))
            bench.describe("models", "net005b")
        link = answer.headers.get("link")
        assert (link is None) == (page["next"] is None)
        following = link.partition(">")[0].lstrip("<") if link else None

    assert seen == names


def test_a_withdrawn_version_is_no_longer_chosen_and_stays_readable(bench: Bench) -> None:
    clean = net(1)
    bench.model("clean", clean)
    for seed in (2, 3):
        bench.model(f"robust{seed}", net(seed, like=clean))
        bench.patch("fog", "clean", f"robust{seed}")
    newest = bench.weights("main+fog=1").headers["x-patchbay-recipe"]

    withdrawn = bench.client.post(
        f"{bench.of('patches', 'fog')}/versions/2/withdraw", json={"reason": "too foggy"}
    )

    assert withdrawn.json()["withdrawn_reason"] == "too foggy"
    assert bench.weights("main+fog=1").headers["x-patchbay-recipe"] != newest
    pinned = bench.weights("main+fog~2=1")
    assert pinned.headers["x-patchbay-recipe"] == newest
    told = bench.client.post("/v1/recipes", json={"recipe": bench.ref("clean@main+fog~2=1")})
    assert any("withdrawn" in warning for warning in told.json()["warnings"])


def test_what_a_channel_or_a_build_needs_is_not_deleted_and_they_are_named(bench: Bench) -> None:
    bench.pair()
    build = bench.weights("main+fog=1").headers["x-patchbay-recipe"].removeprefix("sha256:")
    pointed = bench.client.put(
        bench.of("channels", "edge"),
        json={"recipe": bench.ref("clean@main+fog=1")},
        headers={"If-None-Match": "*"},
    )
    needed = [
        bench.of("patches", "fog"),
        f"{bench.of('patches', 'fog')}/versions/1",
        bench.of("models", "clean"),
        f"{bench.of('models', 'clean')}/versions/1",
    ]

    with bench.nothing_left():
        answers = [bench.client.delete(address) for address in needed]
        refused(bench.client.delete(f"/v1/builds/{build}"), 409, "still-needed", bench.ref("edge"))

    for answer in answers:
        refused(answer, 409, "still-needed", bench.ref("edge"), build, "DELETE /v1/builds/")
    etag = pointed.headers["etag"]
    bench.client.delete(bench.of("channels", "edge"), headers={"If-Match": etag})
    assert bench.client.delete(f"/v1/builds/{build}").status_code == 204
    assert [bench.client.delete(needed[n]).status_code for n in (1, 2)] == [204, 204]


def test_a_deleted_version_is_gone_for_good_and_its_number_with_it(bench: Bench) -> None:
    bench.model("net", net(1))
    bench.model("net", net(2))
    address = f"{bench.of('models', 'net')}/versions"
    moved = bench.client.put(
        f"{bench.of('models', 'net')}/aliases/stable",
        json={"version": 2},
        headers={"If-None-Match": "*"},
    )

    named = bench.client.delete(f"{address}/2")
    bench.client.put(
        f"{bench.of('models', 'net')}/aliases/stable",
        json={"version": 1},
        headers={"If-Match": moved.headers["etag"]},
    )
    deleted = bench.client.delete(f"{address}/2")
    gone = bench.client.get(f"{address}/2")
    pulled = bench.weights("2", "net")
    bench.model("net", net(3))

    refused(named, 409, "aliases-point", "stable")
    assert deleted.status_code == 204, deleted.text
    refused(gone, 410, "deleted", bench.ref("net@2"))
    refused(pulled, 410, "deleted", bench.ref("net@2"))
    assert [item["number"] for item in bench.get(address)["items"]] == [3, 1]
    assert bench.get(f"{address}/main")["number"] == 3


def test_the_same_files_again_are_the_same_version(bench: Bench) -> None:
    content = bench.model("net", net(1))

    again = bench.publish("net", {"model.safetensors": bench.upload(content)})

    assert (again.status_code, again.json()["number"]) == (200, 1)


def test_an_alias_moves_from_the_state_that_was_read(bench: Bench) -> None:
    bench.model("net", net(1))
    alias = f"{bench.of('models', 'net')}/aliases/prod"

    with bench.nothing_left():
        lost = bench.client.put(alias, json={"version": 7}, headers={"If-None-Match": "*"})
    first = bench.client.put(alias, json={"version": 1}, headers={"If-None-Match": "*"})
    stale = bench.client.put(alias, json={"version": 1}, headers={"If-Match": '"4"'})

    refused(lost, 404, "not-found", bench.ref("net@7"))
    assert first.headers["etag"] == '"1"'
    refused(stale, 412, "state-moved", "read it again")
    refused(bench.client.put(alias, json={"version": 1}), 428, "state-not-named", "If-Match")
