"""What pages tell of a patch beside what it is: measurements, likeness, fit."""

import pytest
from starlette.testclient import TestClient

from service.names import model_name, patch_name
from service.registry import models, patches, similarity
from tests.pairs import Extracted
from tests.web import findings
from tests.web.browsing import read
from tests.web.conftest import Catalogue

# ── measurements ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("found")
def test_a_patch_shows_its_curves_and_the_same_in_numbers(client: TestClient) -> None:
    answer = client.get("/patches/vision/fog")

    seen = read(answer)
    points = sum(len(curve) for curve in findings.CURVES.values())
    assert answer.text.count('<circle class="point" cx="') - 3 == points
    assert "digits on vision/net@1" in seen.text
    assert "fog 3 at scale 0.5: 72.0 % ± 1.4 %" in seen.text
    assert (
        "fog 3 48.0 % ± 1.6 61.0 % ± 1.5 72.0 % ± 1.4 79.0 % ± 1.3 76.0 % ± 1.4 1000" in seen.text
    )
    assert "clean: 92.0% at scale 0, 87.1% at 1.25." in seen.text


@pytest.mark.usefixtures("found")
def test_the_command_measures_as_it_was_measured_before(client: TestClient) -> None:
    before = read(client.get("/patches/vision/fog"))
    never = read(client.get("/patches/vision/snow"))

    assert "--on vision/net@1 --data-set digits --corruption clean" in before.text
    assert "Nobody has published a measurement of this version." in never.text
    assert "evaluate vision/snow@1 measure.py:accuracy --on vision/net@1 --data-set" in never.text


# ── likeness ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("found")
def test_a_patch_leads_to_those_like_it_and_opposed_to_it(client: TestClient) -> None:
    seen = read(client.get("/patches/vision/fog"))
    other = read(client.get("/patches/vision/haze"))

    assert "vision/haze@1 fog +0.620 80.0 % same base vision/snow@1 fog -0.310" in seen.text
    assert "vision/snow@1 fog +0.05 ± 0.04" in other.text
    (compare,) = (link for link in seen.links if link.startswith("/patches/compare"))
    assert "Exact." in read(client.get(compare)).text


def test_what_was_not_or_cannot_be_compared_says_so(
    client: TestClient, catalogue: Catalogue
) -> None:
    waiting = read(client.get("/patches/vision/fog"))
    with catalogue.sessions.begin() as session:
        fog = patches.resolve(session, patch_name("vision/fog"), 1)
        broken = {"version_id": fog.id, "keys": b"", "energies": b"", "sketch": b"", "length": 0.0}
        operation = similarity.bring_up_to_date(session, by="owner")
        similarity.record(session, operation, [{**broken, "problem": "cut <off>"}], [])

    told = read(client.get("/patches/vision/fog"))

    assert "It was not compared with others yet." in waiting.text
    assert "It could not be compared: cut <off>" in told.text


@pytest.mark.usefixtures("found")
def test_a_set_is_shown_exactly_where_it_was_compared_else_as_the_index_has_it(
    client: TestClient,
) -> None:
    by_label = client.get("/patches/compare?label=fog")
    by_name = client.get("/patches/compare?patch=vision/snow&patch=VISION/haze@1")

    exact, estimate = read(by_label), read(by_name)
    assert "1 vision/fog@1 +0.620 -0.310 2 vision/haze@1 +0.620 +0.050" in exact.text
    assert by_label.text.count('class="with-6"') == 2
    assert by_label.text.count('class="against-3"') == 2
    assert "Exact." in exact.text
    assert "1 vision/haze@1 +0.05 ± 0.04 2 vision/snow@1 +0.05 ± 0.04" in estimate.text
    assert "patchbay similar vision/haze@1 vision/snow@1" in estimate.text


@pytest.mark.usefixtures("found")
def test_a_set_that_cannot_be_compared_is_told_about(client: TestClient) -> None:
    for query, status, says in (
        ("", 200, "There are not two patches"),
        ("?label=%3Cscript%3E", 200, "with this label"),
        ("?patch=vision/fog", 200, "There are not two patches"),
        ("?patch=vision/fog@7&patch=vision/haze", 404, "vision/fog@7"),
        ("?patch=vision/nothing&patch=vision/haze", 404, "vision/nothing"),
        ("?patch=%3Cb%3E&patch=vision/haze", 422, "<b>"),
    ):
        answer = client.get(f"/patches/compare{query}")

        assert answer.status_code == status, query
        assert says in read(answer).text


# ── fit ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("found")
def test_a_patch_shows_the_bases_that_it_fits_and_which_it_comes_from(
    client: TestClient, extracted: Extracted
) -> None:
    seen = read(client.get("/patches/vision/fog"))

    assert "vision/net@1 same base" in seen.text
    assert "vision/net-fog@1 same architecture" in seen.text
    ratio = extracted.result.summary["base_bytes"] / len(extracted.content)
    assert f"1 : {ratio:.1f}" in seen.text


def test_a_model_shows_the_patches_that_fit_and_how_it_was_made(
    client: TestClient, found: Catalogue
) -> None:
    source = {
        "converted": {"model.safetensors": {"path": "net.pt", "digest": "sha256:" + "ab" * 32}},
        "tied": [{"path": "model.safetensors", "name": "head<b>", "same_as": "embed"}],
        "left_out": [{"path": "optimizer.pt", "name": None}],
    }
    with found.sessions.begin() as session:
        net = models.version(session, model_name("vision/net"), 1)
        net.conversion, net.forward_order = source, [["model.safetensors", "conv.weight"]]

    seen = read(client.get("/models/vision/net"))
    other = read(client.get("/models/vision/start"))

    assert "vision/snow@1 same base" in seen.text
    assert "vision/snow@1 same architecture" in other.text
    assert "recorded, 1 tensors" in seen.text
    assert "not recorded" in other.text
    assert f"net.pt sha256:{'ab' * 32} Tied tensors head<b> is embed" in seen.text
    assert "Left out optimizer.pt" in seen.text
    assert "Hub commit" in seen.text  # a channel pointed at it, so its commit is known
    assert "Hub commit" not in other.text
    assert "hf download vision/net --revision 1+snow=0.5" in seen.text
