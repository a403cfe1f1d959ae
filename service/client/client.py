"""One service, noun by noun.

with Client("http://127.0.0.1:8321", token) as client:
    build = client.builds.ready("vision/resnet50@main+fog=0.5")
    client.builds.weights(build.id, build.files[0], Path("resnet50-fog.safetensors"))
"""

import time
from collections.abc import Callable
from typing import Final, Self

import httpx2

from service.client.blobs import Blobs
from service.client.channels import Channels
from service.client.evaluations import Evaluations
from service.client.models import Models
from service.client.operations import Operations
from service.client.patches import Patches
from service.client.recipes import Builds, Recipes, Weights
from service.client.similarity import Similarity
from service.client.tokens import Tokens
from service.client.transport import Transport
from service.client.upkeep import Upkeep
from service.client.uploads import Uploads
from service.schemas.operations import Readiness

CONNECT_TIMEOUT_S: Final = 10.0


class Client:
    """A connection to the service at `url`; close it, or use it in a `with`.

    `timeout_s` bounds each silence of the service, not a whole transfer. Every method raises
    `ServiceProblem` where the service refuses or does not answer.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"User-Agent": "patchbay-client"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx2.Client(
            base_url=url,
            headers=headers,
            timeout=httpx2.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
        )
        transport = Transport(self._http, sleep)
        self.transport = transport
        self.blobs = Blobs(transport)
        self.uploads = Uploads(transport)
        self.models = Models(transport)
        self.patches = Patches(transport)
        self.similarity = Similarity(transport)
        self.recipes = Recipes(transport)
        self.builds = Builds(transport)
        self.weights = Weights(transport)
        self.channels = Channels(transport)
        self.evaluations = Evaluations(transport)
        self.operations = Operations(transport)
        self.tokens = Tokens(transport)
        self.upkeep = Upkeep(transport)

    def readiness(self) -> Readiness:
        """Which parts behind the service answer."""
        return self.transport.get("/readyz", Readiness)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
