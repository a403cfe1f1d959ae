import dataclasses
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session, sessionmaker

from service import queue
from service.app import create_app
from service.registry import operations
from service.registry.access import OWNER
from service.schemas.operations import Scope
from service.settings import Settings
from tests.pairs import Extracted
from tests.web.chromium import Chromium, Tab
from tests.web.findings import CURVES, SCALES
from tests.webserver import Served, serving

pytestmark = pytest.mark.browser

Sessions = sessionmaker[Session]
PATHS = [
    "/",
    "/models?q=vision",
    "/models/vision/net",
    "/patches",
    "/patches/vision/fog",
    "/channels",
    "/channels/vision/stable",
    "/operations",
    "/builds",
    "/patches/compare?label=fog",
    "/login",
]
TEXT_ON_GROUND = [
    ("--ink", "--ground"),
    ("--ink", "--accent-ground"),
    ("--ink", "--warn-ground"),
    ("--soft", "--ground"),
    ("--soft", "--sunk"),
    ("--accent", "--ground"),
    ("--accent", "--accent-ground"),
    ("--ground", "--accent"),
    ("--bad", "--raised"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with Chromium() as started:
        yield started


@pytest.fixture
def served(app: FastAPI) -> Iterator[Served]:
    with serving(app) as found:
        yield found


@pytest.fixture
def tab(chromium: Chromium, served: Served) -> Iterator[Tab]:
    """A tab that must end without a complaint and without having asked any other host."""
    opened = chromium.tab()
    opened.size(1280)
    yield opened
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(served.url)] == []


@pytest.fixture
def operation_id(own_sessions: Sessions) -> str:
    """An operation at its first attempt."""
    with own_sessions.begin() as session:
        made = operations.request(
            session, "build", "the recipe", {}, by=OWNER, on=queue.GPU, limits=operations.Limits()
        )
        operations.begin(session, made.id, worker="w1")
        return made.id


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, False), (360, True)])
def test_every_page_loads_quietly_and_fits_the_window(
    tab: Tab, served: Served, width: int, *, dark: bool
) -> None:
    tab.size(width, dark=dark)
    tab.open(f"{served.url}/builds")
    build = tab.value("document.querySelector('td a[href^=\"/builds/\"]').getAttribute('href')")
    for path in [*PATHS, build]:
        tab.open(served.url + path)

        assert tab.value("document.documentElement.scrollWidth") <= width, path
        assert tab.value("getComputedStyle(document.querySelector('.bar')).display") == "flex"
    assert any(url.endswith(".js") for url in tab.requests)


@pytest.mark.usefixtures("catalogue")
def test_the_layer_profile_is_drawn(tab: Tab, served: Served, extracted: Extracted) -> None:
    tab.open(f"{served.url}/patches/vision/fog")

    heights = tab.value(
        "[...document.querySelectorAll('.chart .layer')]"
        ".map(each => each.querySelector('.mark').getBoundingClientRect().height)"
    )
    fills = tab.value(
        "['kept', 'left'].map(name => getComputedStyle("
        "document.querySelector(`.chart .layer.${name} .mark`)).fill)"
    )
    norms = [kernel["relative_norm"] for kernel in extracted.profile["kernels"]]
    assert heights == pytest.approx([n / norms[0] * heights[0] for n in norms], abs=0.5)
    assert min(heights) > 1
    assert fills[0] != fills[1]


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize("width", [1280, 360])
def test_curves_are_drawn_where_their_numbers_say(tab: Tab, served: Served, width: int) -> None:
    tab.size(width)
    tab.open(f"{served.url}/patches/vision/fog")

    points = tab.value(
        "[...document.querySelectorAll('.curves > svg .trace')].map(trace =>"
        " [...trace.querySelectorAll('.point')].map(point =>"
        " (b => [b.x + b.width / 2, b.y + b.height / 2])(point.getBoundingClientRect())))"
    )
    colours = tab.value(
        "[...document.querySelectorAll('.curves > svg .trace')]"
        ".map(trace => getComputedStyle(trace.querySelector('.piece')).stroke)"
    )
    (left, low), *_, (right, _) = points[1]
    for curve, drawn in zip(CURVES.values(), points, strict=True):
        for scale, accuracy, (x, y) in zip(SCALES, curve, drawn, strict=True):
            assert x == pytest.approx(left + (right - left) * float(scale) / 1.25, abs=0.5)
            down = (points[0][0][1] - low) / (CURVES["clean"][0] - CURVES["fog"][0])
            assert y == pytest.approx(low + down * (accuracy - CURVES["fog"][0]), abs=0.5)
    assert len(set(colours)) == len(CURVES)


@pytest.mark.usefixtures("catalogue")
def test_a_picture_keeps_the_size_of_its_text_on_a_small_screen(tab: Tab, served: Served) -> None:
    found = []
    for width in (1280, 360):
        tab.size(width)
        tab.open(f"{served.url}/patches/vision/fog")
        found.append(
            tab.value(
                "[...document.querySelectorAll('.chart .tick')]"
                ".map(each => Math.round(each.getBoundingClientRect().height))"
            )
        )

    assert found[0] == found[1]


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(tab: Tab, served: Served, *, dark: bool) -> None:
    tab.size(1280, dark=dark)
    tab.open(f"{served.url}/login")

    for pair in TEXT_ON_GROUND:
        shades = [
            tab.value(f"getComputedStyle(document.documentElement).getPropertyValue('{name}')")
            for name in pair
        ]
        assert contrast(*shades) >= 4.5, pair  # WCAG 2.2, level AA


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, as WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted((luminance(one.strip()), luminance(other.strip())))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.usefixtures("catalogue")
def test_a_command_is_copied_whole(tab: Tab, served: Served) -> None:
    tab.allow_clipboard(served.url)
    tab.open(f"{served.url}/patches/vision/fog")

    tab.click("[data-copy=command-1]")
    tab.until("document.querySelector('[data-copy=command-1]').textContent === 'Copied'")

    copied = tab.value("navigator.clipboard.readText()")
    assert copied == (
        "patchbay pull vision/net@1+fog~1=1 -o net-fog.safetensors --url " + served.url
    )


def test_progress_is_live_and_ends_with_the_result(
    tab: Tab, served: Served, own_sessions: Sessions, operation_id: str
) -> None:
    tab.open(f"{served.url}/operations/{operation_id}")
    with own_sessions.begin() as session:
        operations.report(session, operation_id, 1, progress=0.42, message="packing")

    tab.until("document.querySelector('progress').value === 0.42")
    assert "packing" in tab.text()
    with own_sessions.begin() as session:
        held = operations.hold(session, operation_id, 1)
        operations.succeed(session, held, {"patch": "vision/fog", "version": 3})
    tab.until_says("vision/fog@3")

    assert tab.value("document.querySelector('progress')") is None


def test_without_scripts_an_operation_is_read_again(
    tab: Tab, served: Served, own_sessions: Sessions, operation_id: str
) -> None:
    tab.ask("Emulation.setScriptExecutionDisabled", value=True)
    tab.open(f"{served.url}/operations/{operation_id}")
    with own_sessions.begin() as session:
        operations.succeed(session, operations.hold(session, operation_id, 1), {})

    tab.until_says("succeeded")

    assert [url for url in tab.requests if "/events" in url] == []


def test_the_list_of_operations_renews_itself(
    tab: Tab, served: Served, own_sessions: Sessions
) -> None:
    tab.open(f"{served.url}/operations")
    with own_sessions.begin() as session:
        operations.request(
            session, "build", "a new one", {}, by=OWNER, on=queue.GPU, limits=operations.Limits()
        )

    tab.until_says("a new one")


@pytest.fixture
def closed(settings: Settings) -> Iterator[Served]:
    """A service that nobody may read without a token."""
    with serving(create_app(settings.model_copy(update={"anonymous_read": False}))) as found:
        yield found


@pytest.fixture
def signed_in(chromium: Chromium, closed: Served, token: Callable[..., str]) -> Tab:
    """A tab that came through the form."""
    opened = chromium.tab()
    opened.size(1280)
    opened.open(f"{closed.url}/channels?limit=7")
    opened.ask("Input.insertText", text=token(Scope.READ))
    opened.click("main button")
    opened.until("location.pathname === '/channels'")
    return opened


def test_a_token_opens_a_closed_service_until_its_holder_signs_out(
    signed_in: Tab, closed: Served
) -> None:
    assert signed_in.value("location.href") == f"{closed.url}/channels?limit=7"
    assert signed_in.value("document.cookie") == ""
    assert "alice" in signed_in.text()

    signed_in.click(".who button")
    signed_in.until("location.pathname === '/login'")
    signed_in.open(f"{closed.url}/models")

    assert signed_in.value("location.pathname") == "/login"


def test_a_link_on_another_site_finds_its_reader_signed_in(signed_in: Tab, closed: Served) -> None:
    elsewhere = dataclasses.replace(closed, host="localhost").url  # another site, same server
    signed_in.open(f"{elsewhere}/login")

    signed_in.value(f"location.href = '{closed.url}/patches'")

    signed_in.until("location.pathname === '/patches' && document.title.startsWith('Patches')")
    assert "alice" in signed_in.text()
