import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from service import queue
from service.db.tables.models import Model
from service.names import model_name
from service.registry import builds, lines, operations, recipes
from service.registry.access import OWNER
from tests.pairs import Extracted
from tests.web.browsing import links, read
from tests.web.conftest import Catalogue

LISTS = ["/", "/models", "/patches", "/channels", "/operations", "/builds"]
ALL = [
    *LISTS,
    "/login",
    "/models/vision/net",
    "/models/vision/net-fog",
    "/patches/vision/fog",
    "/channels/vision/stable",
]


@contextmanager
def statements(app: FastAPI) -> Iterator[list[str]]:
    """The SQL statements that the application sends meanwhile."""
    engine = app.state.parts.sessions.kw["bind"]
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


@pytest.mark.usefixtures("catalogue")
def test_every_page_is_drawn_and_keeps_the_policy(client: TestClient) -> None:
    for path in ALL:
        answer = client.get(path)

        seen = read(answer)
        assert answer.status_code == 200, path
        assert seen.title.endswith("· Patchbay")
        assert {"h1", "main", "nav"} <= set(seen.tags)
        assert client.head(path).status_code == 200


def test_every_list_is_drawn_while_it_is_empty(client: TestClient) -> None:
    for path in LISTS:
        answer = client.get(path)

        read(answer)
        assert answer.status_code == 200, path


@pytest.mark.usefixtures("catalogue")
def test_what_a_page_links_to_is_there(client: TestClient) -> None:
    to_see, known = ["/"], {"/"}
    broken = []

    while to_see:
        address = to_see.pop()
        answer = client.get(address)
        # The catalogue's weight files are rows alone: their bytes were never made.
        if answer.status_code != 200 and "/files/" not in address:
            broken.append((address, answer.status_code))
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        fresh = {each for each in links(answer) if each.startswith("/")} - known
        known |= fresh
        to_see += sorted(fresh)

    assert broken == []
    assert len(known) > 20


@pytest.mark.usefixtures("catalogue")
def test_the_search_finds_names_and_labels(client: TestClient) -> None:
    by_word = read(client.get("/?q=net"))
    by_label = read(client.get("/?label=snow"))
    nothing = read(client.get("/?q=nothing"))

    assert "/models/vision/net" in by_word.links
    assert "/patches/vision/fog" not in by_word.links
    assert "/models/vision/net" in by_label.links
    assert "/models/vision/start" not in by_label.links
    assert "No model matches." in nothing.text
    assert "No patch matches." in nothing.text


@pytest.mark.usefixtures("catalogue")
def test_a_filter_can_be_taken_off_alone(client: TestClient) -> None:
    seen = read(client.get("/patches?q=vision&label=fog&base=vision%2Fnet"))

    assert "/patches?q=vision&base=vision%2Fnet" in seen.links
    assert "/patches?label=fog&base=vision%2Fnet" in seen.links
    assert "/patches?q=vision&label=fog" in seen.links


@pytest.mark.usefixtures("catalogue")
def test_patches_are_listed_by_the_model_they_were_extracted_on(client: TestClient) -> None:
    on_clean = read(client.get("/patches?base=vision/net"))
    on_robust = read(client.get("/patches?base=vision/net-fog"))

    assert "/patches/vision/fog" in on_clean.links
    assert "No patch matches." in on_robust.text


def test_a_long_list_is_read_page_by_page(client: TestClient, empty: Catalogue) -> None:
    names = [f"zoo/net-{number:03d}" for number in range(25)]
    with empty.sessions.begin() as session:
        for name in names:
            lines.describe(
                session, Model, model_name(name), card="", license=None, labels=[], by=OWNER
            )
    found, address = [], "/models?q=zoo&limit=10"

    while address:
        seen = read(client.get(address))
        found += [link for link in seen.links if link.startswith("/models/")]
        address = next((link for link in seen.links if "cursor=" in link), "")

    assert found == [f"/models/{name}" for name in names]


def test_a_list_of_a_hundred_costs_as_many_queries_as_one_of_one(
    client: TestClient, app: FastAPI, catalogue: Catalogue, extracted: Extracted
) -> None:
    clean = catalogue.model("vision/net", content="clean")
    with statements(app) as few:
        client.get("/patches")
    for number in range(20):
        catalogue.patch(f"vision/many-{number}", extracted, clean=clean)

    with statements(app) as many:
        answer = client.get("/patches")

    assert answer.text.count("/patches/vision/many-") == 20
    assert len(many) == len(few) == 1


@pytest.mark.usefixtures("catalogue")
def test_a_page_costs_a_handful_of_queries(client: TestClient, app: FastAPI) -> None:
    most = {
        "/": 2,
        "/models/vision/net": 11,
        "/patches/vision/fog": 7,
        "/channels/vision/stable": 5,
        "/builds": 3,
    }
    for path, limit in most.items():
        with statements(app) as sent:
            client.get(path)

        assert len(sent) <= limit, sent
        assert not [each for each in sent if "patch_versions.tensors" in each]


# ── one thing ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("catalogue")
def test_a_model_shows_its_files_aliases_patches_and_channels(client: TestClient) -> None:
    seen = read(client.get("/models/VISION/net"))

    assert "vision/net@1" in seen.text
    assert "model.safetensors" in seen.text
    assert "/patches/vision/fog?version=1" in seen.links
    assert "/channels/vision/stable" in seen.links
    assert re.search(r"Versions .* 1 main ", seen.text)
    assert "patchbay pull vision/net@1 -o model.safetensors" in seen.text


@pytest.mark.parametrize("revision", ["1", "v1", "main", "MAIN"])
def test_a_model_is_shown_at_the_version_asked_for(
    client: TestClient, catalogue: Catalogue, revision: str
) -> None:
    catalogue.model("vision/net-fog", content="newer")

    seen = read(client.get(f"/models/vision/net-fog?version={revision}"))

    number = "2" if revision.lower() == "main" else "1"
    assert f"vision/net-fog@{number} " in seen.text


@pytest.mark.usefixtures("catalogue")
def test_a_robust_model_leads_to_its_patch(client: TestClient) -> None:
    robust = read(client.get("/models/vision/net-fog"))
    origin = read(client.get("/models/vision/start"))

    assert "the robust one" in robust.text
    assert "the origin of both" in origin.text


@pytest.mark.usefixtures("catalogue")
def test_a_card_is_shown_as_text_and_never_run(client: TestClient) -> None:
    for path in ("/models/vision/net", "/patches/vision/fog"):
        seen = read(client.get(path))

        assert "<script>alert(1)</script>" in seen.text
        assert seen.tags.count("script") == 1


@pytest.mark.usefixtures("catalogue")
def test_a_patch_shows_where_it_comes_from_and_how_large_it_is(
    client: TestClient, extracted: Extracted
) -> None:
    seen = read(client.get("/patches/vision/fog"))

    assert "/models/vision/net?version=1" in seen.links
    assert "/models/vision/net-fog?version=1" in seen.links
    assert "/models/vision/start?version=1" in seen.links
    share = len(extracted.content) / extracted.result.summary["base_bytes"]
    assert f"{share * 100:.2f} % of it" in seen.text  # two digits: below one per cent
    assert "Layers kept 1 of 3" in seen.text
    assert "/channels/vision/stable" in seen.links
    assert "patchbay pull vision/net@1+fog~1=1 -o net-fog.safetensors" in seen.text


@pytest.mark.usefixtures("catalogue")
def test_the_profile_is_a_picture_with_words_and_the_same_in_numbers(
    client: TestClient, extracted: Extracted
) -> None:
    answer = client.get("/patches/vision/fog")

    seen = read(answer)
    kernels = extracted.profile["kernels"]
    assert answer.text.count('<g class="layer kept">') == 1
    assert answer.text.count('<g class="layer left">') == len(kernels) - 1 == 2
    assert "one bar for each of 3 layers in forward order. The patch keeps 1 of them" in seen.text
    for kernel in kernels:
        assert f"{kernel['relative_norm']:.3f}" in seen.text
        assert kernel["name"] in seen.text


@pytest.mark.parametrize("profile", [b"not json", b"{}", b'{"order":"x","kernels":[{"name":1}]}'])
def test_a_profile_that_is_none_is_offered_as_a_file(
    client: TestClient, empty: Catalogue, extracted: Extracted, profile: bytes
) -> None:
    empty.patch("vision/fog", extracted, profile=profile)

    seen = read(client.get("/patches/vision/fog"))

    assert "The profile cannot be drawn." in seen.text
    assert "/v1/patches/vision/fog/versions/1/profile" in seen.links


def test_a_patch_without_profile_or_known_models_is_shown(
    client: TestClient, empty: Catalogue, extracted: Extracted
) -> None:
    bare = replace(extracted, result=replace(extracted.result, summary={}))
    empty.patch("vision/fog", bare)

    seen = read(client.get("/patches/vision/fog"))

    assert "published without a profile" in seen.text
    assert seen.text.count("not known here") == 2
    assert "fog-1.rws.safetensors" in seen.text


def test_warnings_of_an_extraction_stand_on_the_page(
    client: TestClient, empty: Catalogue, extracted: Extracted
) -> None:
    summary = {**extracted.result.summary, "warnings": ["the <b>patch</b> is large"]}
    empty.patch("vision/fog", replace(extracted, result=replace(extracted.result, summary=summary)))

    seen = read(client.get("/patches/vision/fog"))

    assert "The <b>patch</b> is large." in seen.text


@pytest.mark.usefixtures("catalogue")
def test_a_channel_shows_who_did_what_when(client: TestClient) -> None:
    seen = read(client.get("/channels/vision/stable"))

    assert "Points at vision/net@1 + vision/fog@1 \u00d7 0.5" in seen.text
    assert re.search(
        r"3 rescale vision/net@1 \+ vision/fog@1 . 0.5 owner \d{4}-\d\d-\d\d \d\d:\d\d "
        r"2 add vision/net@1 \+ vision/fog@1 . 0.8 owner .* 1 point vision/net@1 clean owner",
        seen.text,
    )
    assert "patchbay channel pull vision/stable -o model.safetensors" in seen.text


def test_an_operation_under_way_reads_itself_again_with_and_without_scripts(
    client: TestClient, own_sessions: sessionmaker[Session]
) -> None:
    with own_sessions.begin() as session:
        made = operations.request(
            session, "build", "a & b", {}, by=OWNER, on=queue.GPU, limits=operations.Limits()
        )

    queued = client.get(f"/operations/{made.id}")
    with own_sessions.begin() as session:
        operations.cancel(session, made.id)
    ended = client.get(f"/operations/{made.id}")

    assert f"/v1/operations/{made.id}/events" in read(queued).addresses
    assert '<noscript><meta http-equiv="refresh"' in queued.text
    assert "a & b" in read(ended).text
    assert "cancelled" in read(ended).text
    assert "refresh" not in ended.text
    assert "data-events" not in ended.text


def test_a_failed_operation_says_why(
    client: TestClient, own_sessions: sessionmaker[Session]
) -> None:
    with own_sessions.begin() as session:
        made = operations.request(
            session, "extract", "x", {}, by=OWNER, on=queue.GPU, limits=operations.Limits()
        )
        operations.begin(session, made.id, worker="w1")
        problem = {"type": "/problems/models-differ", "title": "They differ", "detail": "in 3"}
        operations.fail(session, operations.hold(session, made.id, 1), problem)

    one = read(client.get(f"/operations/{made.id}"))
    listed = read(client.get("/operations?state=failed"))

    assert "They differ in 3" in one.text
    assert "/problems/models-differ" in one.links
    assert "They differ" in listed.text


def test_builds_show_their_recipe(client: TestClient, catalogue: Catalogue) -> None:
    with catalogue.sessions.begin() as session:
        resolved = recipes.resolve(session, "vision/net@1", require="same_base")
        builds.request(session, resolved, by=OWNER, limits=operations.Limits())

    seen = read(client.get("/builds"))

    assert "vision/net@1 clean ready" in seen.text
