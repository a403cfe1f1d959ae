"""The page of one build: what it is made of, and how that goes together."""

from fastapi import FastAPI
from starlette.testclient import TestClient

from service.names import digest_of
from service.registry import operations, recipes, sweeps
from service.registry.access import OWNER
from tests.web import findings
from tests.web.browsing import Seen, read
from tests.web.conftest import Catalogue
from tests.web.test_pages import statements


def opened(client: TestClient, catalogue: Catalogue, recipe: str) -> Seen:
    with catalogue.sessions.begin() as session:
        resolved = recipes.resolve(session, recipe, require="same_architecture")
        sweeps.request(session, [resolved], by=OWNER, limits=operations.Limits())
        digest = resolved.canonical.digest
    assert f"/builds/{digest[7:]}" in read(client.get("/builds")).links
    return read(client.get(f"/builds/{digest[7:]}"))


def test_a_build_shows_its_files_and_what_names_it(
    client: TestClient, app: FastAPI, found: Catalogue
) -> None:
    seen = opened(client, found, findings.RECIPE)

    digest = seen.text.partition("Recipe digest sha256:")[2][:64]
    with statements(app) as sent:
        client.get(f"/builds/{digest}")
    assert f"Hub commit {digest[:40]} " in seen.text
    assert digest_of(b"patched").removeprefix("sha256:") in seen.text
    assert "vision/fog@1 0.5 same base" in seen.text
    assert f"/v1/builds/{digest}/weights/model.safetensors" in seen.links
    assert "hf download vision/net --revision '1+" in seen.text
    assert len(sent) <= 18, sent


def test_a_build_tells_how_its_patches_go_together(client: TestClient, found: Catalogue) -> None:
    seen = opened(client, found, findings.RECIPE)
    against = opened(client, found, "vision/net@1+fog=0.5+haze=-0.7")

    assert "cosine +0.620, 19.0 % of the signs are opposite" in seen.text
    assert f"{findings.HOSTILE} +0.620 19.0 %" in seen.text
    assert "Patch As here Balanced" in seen.text
    assert "vision/net@1+" in seen.text.partition("As a recipe:")[2]
    assert "cosine -0.620, 81.0 % of the signs are opposite" in against.text


def test_what_was_not_compared_or_cannot_be_balanced_says_so(
    client: TestClient, found: Catalogue
) -> None:
    unknown = opened(client, found, "vision/net@1+fog=0.5+snow=0.7")
    refused = opened(client, found, "vision/net@1+fog=0.01+haze=2")
    alone = opened(client, found, "vision/net@1+fog=0.5")

    assert "Its patches were not compared yet." in unknown.text
    assert "patchbay similar vision/" in unknown.text
    assert "No balanced form: " in refused.text
    assert "in place of 0.01" in refused.text
    assert "go together" not in alone.text


def test_a_build_that_is_not_there_is_told_about(client: TestClient) -> None:
    for name in ("0" * 64, "x", "%3Cscript%3E"):
        answer = client.get(f"/builds/{name}")

        read(answer)
        assert answer.status_code in {404, 422}
