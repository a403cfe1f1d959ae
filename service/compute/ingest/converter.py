"""The converter: a process that reads one checkpoint and can do next to nothing else.

    python -P -m service.compute.ingest.converter REQUEST

REQUEST is JSON; descriptors are inherited. It says one JSON object a line, its outcome last.
"""

import dataclasses
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service import errors
from service.compute.ingest import confinement
from service.compute.ingest.confinement import Limits

TELL_EVERY_S: Final = 0.2
WORK: Final = "service.compute.ingest.work"
"""What reads and writes; imported once the network is left, for torch may start threads."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to convert; `out`, `voice` and `lifeline` are descriptors, `file` is for messages."""

    path: str
    file: str
    parent: int
    out: int
    voice: int
    lifeline: int
    limits: Limits

    def to_json(self) -> str:
        """The form that `from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Request":
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "limits": Limits(**fields["limits"])})


class Voice:
    """Says what is going on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._told_at = 0.0

    def say(self, message: Mapping[str, Any]) -> None:
        """Write a message, whole."""
        line = memoryview(json.dumps(message).encode() + b"\n")
        while line:
            line = line[os.write(self._descriptor, line) :]

    def progress(self, fraction: float) -> None:
        """Tell how much is done, unless that was told a moment ago."""
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            self.say({"progress": fraction})


def main(request: Request) -> None:
    """Confine the process, convert, and say what came of it."""
    guards = ["network"] if confinement.leave_network() else []
    confinement.end_with_parent(request.parent, request.lifeline)
    convert: Callable[..., dict[str, Any]] = importlib.import_module(WORK).convert
    voice = Voice(request.voice)
    confinement.limit(request.limits)
    guards += ["files"] if confinement.leave_files(Path(request.path)) else []
    confinement.refuse_events()
    limit_bytes = request.limits.file_bytes
    try:
        with os.fdopen(request.out, "wb") as out:
            done = convert(Path(request.path), request.file, out, limit_bytes, voice.progress)
    except errors.PatchbayError as error:
        voice.say({"refused": error.slug, "fields": error.fields})
    except MemoryError:
        fields = {"file": request.file, "limit": "the memory that a converter may use"}
        voice.say({"refused": errors.ConversionOverLimit.slug, "fields": fields})
    except OSError as error:
        voice.say({"errno": error.errno})
    except Exception:  # noqa: BLE001 - for the worker's log
        voice.say({"crashed": traceback.format_exc()[-4000:]})
    else:
        voice.say({"done": {**done, "guards": guards}})


if __name__ == "__main__":
    main(Request.from_json(sys.argv[1]))
