"""Who may do what, on the running service."""

from collections.abc import Callable, Iterator

import httpx2
import pytest

from tests.e2e.bench import Bench, refused
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.xdist_group("service")

Holder = Callable[..., httpx2.Client]


@pytest.fixture
def holder(service: ServiceProcess) -> Iterator[Holder]:
    """Makes clients whose token has these scopes."""
    made: list[httpx2.Client] = []

    def make(*scopes: str, **more: object) -> httpx2.Client:
        body = {"name": "test", "scopes": scopes, **more}
        answer = service.client.post("/v1/tokens", json=body)
        assert answer.status_code == 201, answer.text
        made.append(service.client_with(answer.json()["token"]))
        made[-1].headers["X-Token-Number"] = str(answer.json()["id"])
        return made[-1]

    yield make
    for client in made:
        client.close()


def _changes(bench: Bench) -> dict[str, list[tuple[str, str, object]]]:
    """By scope: requests that need it."""
    return {
        "publish": [
            ("PUT", bench.of("models", "net"), {}),
            ("PUT", bench.of("patches", "fog"), {}),
            ("PUT", "/v1/blobs/sha256:" + "0" * 64, None),
            (
                "POST",
                f"{bench.of('patches', 'fog')}/extractions",
                {"clean": "a/b", "robust": "a/c"},
            ),
            ("DELETE", bench.of("models", "net"), None),
        ],
        "move": [
            ("PUT", bench.of("channels", "edge"), {"recipe": "a/b"}),
            ("PUT", f"{bench.of('models', 'net')}/aliases/prod", {"version": 1}),
        ],
        "admin": [
            ("GET", "/v1/tokens", None),
            ("POST", "/v1/tokens", {"name": "x", "scopes": ["admin"]}),
            ("DELETE", "/v1/tokens/1", None),
        ],
    }


@pytest.mark.parametrize("scope", ["publish", "move", "admin"])
def test_a_change_needs_its_scope(
    service: ServiceProcess, bench: Bench, holder: Holder, scope: str
) -> None:
    others = [each for each in ("read", "publish", "move") if each != scope]
    holding = holder(*others)

    with bench.nothing_left(), service.client_with(None) as nobody:
        for method, address, body in _changes(bench)[scope]:
            without = nobody.request(method, address, json=body)
            lacking = holding.request(method, address, json=body)

            refused(without, 401, "token-missing", repr(scope), "Authorization: Bearer")
            assert without.headers["www-authenticate"].startswith("Bearer")
            refused(lacking, 403, "scope-missing", repr(scope))


def test_a_namespace_pattern_binds_changes_and_not_reading(
    bench: Bench, pair: Bench, holder: Holder
) -> None:
    bound = holder("read", "publish", "move", namespace_pattern=f"{bench.namespace[:6]}*")
    elsewhere = "other"

    allowed = bound.put(bench.of("models", "net"), json={})
    with bench.nothing_left():
        refusals = [
            bound.put(f"/v1/models/{elsewhere}/net", json={}),
            bound.put(f"/v1/patches/{elsewhere}/fog", json={}),
            bound.put(
                f"/v1/channels/{elsewhere}/edge",
                json={"recipe": "a/b"},
                headers={"If-None-Match": "*"},
            ),
        ]

    assert allowed.status_code == 201, allowed.text
    for answer in refusals:
        refused(answer, 403, "scope-missing", repr(elsewhere))
    assert bound.get(pair.of("models", "clean")).status_code == 200


def test_a_token_that_is_not_known_or_revoked_is_refused(
    service: ServiceProcess, holder: Holder
) -> None:
    revoked = holder("read")
    number = revoked.headers["X-Token-Number"]
    assert service.client.delete(f"/v1/tokens/{number}").status_code == 204

    with service.client_with("pb_nonsense") as stranger:
        answers = [revoked.get("/v1/models"), stranger.get("/v1/models")]

    for answer in answers:
        refused(answer, 401, "token-invalid", "ask an admin")


def test_who_has_no_token_reads_and_gets_ready_builds_only(
    service: ServiceProcess, pair: Bench
) -> None:
    pair.weights("main+fog=0.5")
    fresh = f"{pair.of('weights', 'clean')}?recipe=main+fog=0.7777"

    with service.client_with(None) as nobody, pair.nothing_left():
        ready = nobody.get(f"{pair.of('weights', 'clean')}?recipe=main+fog=0.5")
        unbuilt = nobody.get(fresh)
        listed = nobody.get("/v1/models")

    assert (ready.status_code, listed.status_code) == (200, 200)
    refused(unbuilt, 409, "build-not-ready", "POST /v1/builds")


def test_anonymous_reading_may_be_off(service: ServiceProcess, pair: Bench) -> None:
    with (
        ServiceProcess.beside(service, {"PATCHBAY_ANONYMOUS_READ": "false"}) as second,
        second.client_with(None) as nobody,
        second.client_with(service.token) as owner,
    ):
        closed = [
            nobody.get(address)
            for address in (
                "/v1/models",
                "/v1/channels",
                "/v1/operations",
                pair.of("models", "clean"),
                pair.of("weights", "clean"),
                "/v1/blobs/sha256:" + "0" * 64,
            )
        ]
        health = nobody.get("/healthz")
        known = owner.get(pair.of("models", "clean"))

    for answer in closed:
        refused(answer, 401, "token-missing", "'read'")
    assert (health.status_code, known.status_code) == (200, 200)


def test_no_text_of_a_token_is_in_the_log(service: ServiceProcess, holder: Holder) -> None:
    client = holder("read")
    client.get("/v1/models")

    assert service.token not in service.log
    assert client.headers["Authorization"].removeprefix("Bearer ") not in service.log
