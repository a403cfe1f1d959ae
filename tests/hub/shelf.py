"""What the tests of the Hub's face work on."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from service.app import create_app
from service.names import digest_of
from service.settings import Settings

RECIPE: Final = "main+fog=0.5"
FILE: Final = "model.safetensors"


@dataclass(frozen=True)
class Shelf:
    """Model `vision/net` (weights, config.json, sub/vocab.txt), patch `vision/fog`, one build."""

    settings: Settings
    sessions: sessionmaker[Session]
    client: TestClient
    clean: bytes
    patched: bytes
    commit: str
    token: str

    @property
    def owner(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def publish(self, name: str, files: dict[str, bytes], **card: Any) -> None:
        """Publish a version over HTTP."""
        body = {path: digest_of(content) for path, content in files.items()}
        for path, content in files.items():
            self.client.put(f"/v1/blobs/{body[path]}", content=content, headers=self.owner)
        self.client.put(f"/v1/models/{name}", json=card, headers=self.owner)
        address = f"/v1/models/{name}/versions"
        answer = self.client.post(address, json={"files": body}, headers=self.owner)
        assert answer.status_code == 201, answer.text

    @contextlib.contextmanager
    def another_process(self, **changed: object) -> Iterator[TestClient]:
        """The application once more on the same parts."""
        with TestClient(create_app(self.settings.model_copy(update=changed))) as client:
            yield client
