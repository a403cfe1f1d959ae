"""What the page of an operation says of its result."""

import json
from typing import Any, Final

from starlette.testclient import TestClient

from service import queue
from service.registry import blobs, operations
from service.registry.access import OWNER
from tests.pairs import Extracted
from tests.web.browsing import Seen, read
from tests.web.conftest import Catalogue

RECIPE = "sha256:" + "ab" * 32
SIZES = {"tiny": 900, "exact": 40_000, "standard": 3000}


def ended(client: TestClient, catalogue: Catalogue, kind: str, result: dict[str, Any]) -> Seen:
    with catalogue.sessions.begin() as session:
        operations.worker_seen(session, "w1", list(queue.ALL), "cpu")
        asked = {"patches": ["vision/a@1", "vision/b@2"]} if kind == "compare" else {}
        made = operations.request(
            session, kind, "x", asked, by=OWNER, on=queue.CPU, limits=operations.Limits()
        )
        operations.begin(session, made.id, worker="w1")
        operations.succeed(session, operations.hold(session, made.id, 1), result)
    return read(client.get(f"/operations/{made.id}"))


def test_a_dry_run_shows_what_each_choice_would_keep(
    client: TestClient, empty: Catalogue, extracted: Extracted
) -> None:
    kernels = [{**k, "noise_floor": k["relative_norm"] / 2} for k in extracted.profile["kernels"]]
    content = json.dumps({**extracted.profile, "kernels": kernels}).encode()
    digest = empty.put(content)
    with empty.sessions.begin() as session:
        blobs.record(session, digest, len(content))
    choices = [
        {"layers": {"energy": 0.85}, "kernels": 2, "parameters": 7000, "energy": 0.9},
        {"layers": {"first": 1}, "kernels": 1, "parameters": 72, "energy": 0.1},
    ]
    summary = {
        **extracted.result.summary,
        "choices": [{**choice, "estimated_bytes": SIZES} for choice in choices],
        "warnings": ["<b>quiet</b>"],
    }
    links = {"profile": f"/v1/blobs/{digest}"}
    one = {"patch": "vision/fog", "dry_run": True, "summary": summary, "links": links}

    seen = ended(client, empty, "extract", one)
    several = ended(client, empty, "extract", {"dry_run": True, "extractions": [one, one]})

    assert "Energy kept exact standard tiny" in seen.text
    assert "up to 85% of the energy 2 7 000 90.0 % 40.0 kB 3.0 kB 900 B" in seen.text
    assert "<b>quiet</b>." in seen.text
    assert "rounding of the models alone" in seen.text
    assert seen.text.count("near the noise") == 3
    assert several.text.count("What each choice would keep of vision/fog") == 2


RESULTS: Final[list[tuple[str, dict[str, Any], list[str]]]] = [
    (
        "sweep",
        {
            "builds": [{"id": "ab" * 32, "recipe": RECIPE, "overlay_bytes": 5000}],
            "failed": [{"recipe": RECIPE, "type": "overflow", "detail": "<i>conv</i> is big"}],
        },
        ["1 built, 1 failed", "abababababab… 5.0 kB", "failed <i>conv</i> is big"],
    ),
    (
        "audit",
        {"checked": 1200, "size_bytes": 10**9, "damaged": [RECIPE]},
        ["Read back 1 200 blobs, 1.0 GB", f"Damaged {RECIPE}"],
    ),
    (
        "collect",
        {"dry_run": True, "examples": [RECIPE], "count": 3, "size_bytes": 9, "adopted": 0},
        ["Would be removed 3 blobs, 9 B", f"Among them {RECIPE}"],
    ),
    (
        "identify",
        {
            "label": "fog",
            "second": "snow",
            "margin": 0.3,
            "confidence": 0.9,
            "trusted": False,
            "reasons": ["few <patches>"],
            "labels": [],
            "patches": [{"reference": "vision/fog@1", "labels": ["fog"], "cosine": 0.7}],
            "compared": 1,
        },
        ["Not to be trusted; confidence 0.900, 0.300 before snow.", "Few <patches>.", "+0.700"],
    ),
    ("index", {"measured": 2, "neighbours": 9, "problems": {"7": "cut"}}, ["Version 7: cut"]),
    ("compare", {"cosines": [[1, 0], [0, 1]], "files": []}, ["2 patches, each with each"]),
    ("digest", {"files": {"a.safetensors": RECIPE}}, [f"a.safetensors {RECIPE}"]),
]


def test_a_result_is_told_for_people(client: TestClient, empty: Catalogue) -> None:
    for kind, result, says in RESULTS:
        seen = ended(client, empty, kind, result)

        for words in says:
            assert words in seen.text, kind
