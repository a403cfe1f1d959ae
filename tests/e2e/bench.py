"""What an end-to-end test works with: models of a namespace of its own, and how answers look."""

import contextlib
import hashlib
import json
import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

Tensors = Mapping[str, NDArray[Any]]
MAIN_FILE = "model.safetensors"


def net(seed: int, *, dtype: str = "float32", like: Tensors | None = None) -> dict[str, Any]:
    """A small convolutional net; with `like`, that net moved a little."""
    rng = np.random.default_rng(seed)
    shapes = {
        "conv1.weight": (8, 3, 3, 3),
        "bn1.weight": (8,),
        "bn1.bias": (8,),
        "bn1.running_mean": (8,),
        "bn1.running_var": (8,),
        "conv2.weight": (8, 8, 3, 3),
        "conv2.bias": (8,),
        "fc.weight": (10, 8),
    }
    own = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    if like is not None:
        own = {name: like[name] + 0.05 * value for name, value in own.items()}
    own["bn1.running_var"] = np.abs(own["bn1.running_var"]) + 0.5
    made = {name: value.astype(dtype) for name, value in own.items()}
    return {**made, "bn1.num_batches_tracked": np.array(7, dtype="int64")}


def raw_file(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with whatever header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def refused(answer: httpx2.Response, status: int, slug: str, *words: str) -> dict[str, Any]:
    """Check that an answer is a problem of this kind which names these; answers the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == ("about:blank" if slug == "about:blank" else f"/problems/{slug}")
    assert problem["status"] == status
    assert problem["title"]
    assert problem["instance"] == answer.headers["x-request-id"]
    for word in words:
        assert word in problem["detail"], problem["detail"]
    no_trace(answer.text)
    return problem


def no_trace(text: str) -> None:
    """Check that a text shows nothing of our code."""
    for sign in ("Traceback", "site-packages", "service/", ".py"):
        assert sign not in text, text


@dataclass(frozen=True)
class Bench:
    """A namespace of a test's own on a running service; `blobs` is the store's folder."""

    client: httpx2.Client
    blobs: Path
    namespace: str = field(default_factory=lambda: f"ns{uuid.uuid4().hex[:10]}")

    def of(self, kind: str, name: str) -> str:
        return f"/v1/{kind}/{self.namespace}/{name}"

    def ref(self, name: str) -> str:
        return f"{self.namespace}/{name}"

    # ── making ───────────────────────────────────────────────────────────────────────────────

    def upload(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        answer = self.client.put(f"/v1/blobs/{digest}", content=content)
        assert answer.status_code in {200, 201}, answer.text
        return digest

    def describe(self, kind: str, name: str) -> None:
        """Make a model or a patch without versions."""
        answer = self.client.put(self.of(kind, name), json={})
        assert answer.status_code in {200, 201}, answer.text

    def publish(self, name: str, files: Mapping[str, str]) -> httpx2.Response:
        """Ask for a version of these blobs."""
        return self.client.post(f"{self.of('models', name)}/versions", json={"files": files})

    def model(self, name: str, files: Tensors | Mapping[str, bytes]) -> bytes:
        """Publish a version: of these tensors in one file, or of these files; the first's bytes."""
        whole: dict[str, bytes] = {
            path: content for path, content in files.items() if isinstance(content, bytes)
        }
        if not whole:
            whole = {MAIN_FILE: save(dict(files))}  # type: ignore[arg-type]
        self.describe("models", name)
        answer = self.publish(name, {path: self.upload(each) for path, each in whole.items()})
        assert answer.status_code == 201, answer.text
        return next(iter(whole.values()))

    def extract(self, name: str, clean: str, robust: str, **options: Any) -> httpx2.Response:
        """Ask for an extraction of patch `name`."""
        self.describe("patches", name)
        pair = {"clean": self.ref(clean), "robust": self.ref(robust)}
        body = {**pair, "layers": "all", "quality": "exact", **options}
        return self.client.post(f"{self.of('patches', name)}/extractions", json=body)

    def patch(self, name: str, clean: str, robust: str, **options: Any) -> dict[str, Any]:
        """Extract a patch and wait for it; answers the operation's result."""
        operation = self.ended(self.extract(name, clean, robust, **options))
        assert operation["state"] == "succeeded", operation
        result: dict[str, Any] = operation["result"]
        return result

    def ended(self, accepted: httpx2.Response) -> dict[str, Any]:
        """The operation that a 202 names, once it has ended."""
        assert accepted.status_code == 202, accepted.text
        answer = self.client.get(accepted.headers["location"], headers={"Prefer": "wait=60"})
        assert answer.status_code == 200, answer.text
        operation: dict[str, Any] = answer.json()
        assert operation["ended_at"], operation
        return operation

    def pair(self) -> bytes:
        """Models `clean` and `robust` with patch `fog` between them; the clean file's bytes."""
        clean = net(1)
        content = self.model("clean", clean)
        self.model("robust", net(2, like=clean))
        self.patch("fog", "clean", "robust")
        return content

    def weights(self, recipe: str, model: str = "clean", **headers: str) -> httpx2.Response:
        query = {"recipe": recipe}
        return self.client.get(self.of("weights", model), params=query, headers=headers)

    # ── what is to be seen ───────────────────────────────────────────────────────────────────

    def get(self, address: str) -> Any:
        answer = self.client.get(address)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def visible(self) -> dict[str, object]:
        """Everything that a change could have left behind."""
        own = f"{self.namespace}/"
        models = [m["full_name"] for m in self._every("/v1/models") if own in m["full_name"]]
        patches = [p["full_name"] for p in self._every("/v1/patches") if own in p["full_name"]]
        channels = [c for c in self._every("/v1/channels") if own in c["full_name"]]
        return {
            "models": [self._every(f"/v1/models/{name}/versions") for name in models],
            "patches": [self._every(f"/v1/patches/{name}/versions") for name in patches],
            "channels": channels,
            "builds": self._every("/v1/builds"),
            "blobs": sorted(path.name for path in (self.blobs / "sha256").glob("*/*")),
            "uploads": sorted(path.name for path in (self.blobs / "tmp").iterdir()),
        }

    @contextlib.contextmanager
    def nothing_left(self) -> Iterator[None]:
        """Check that what goes on inside leaves no blob, version, build or move behind."""
        before = self.visible()
        yield
        after = self.visible()
        for what, seen in before.items():
            assert after[what] == seen, what

    def _every(self, address: str) -> list[Any]:
        found: list[Any] = []
        following: str | None = f"{address}?limit=200"
        while following:
            page = self.get(following)
            found += page["items"]
            following = f"{address}?limit=200&cursor={page['next']}" if page["next"] else None
        return found
