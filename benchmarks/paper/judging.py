"""Which images a net reads rightly, remembered by the digest of its weight file.

The bits of every judgement are kept, not only their share: two sets of weights that saw the same
images can then be compared image by image.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from benchmarks.paper import nets
from benchmarks.paper.corruptions import CORRUPTIONS
from benchmarks.paper.images import Images, Parts
from benchmarks.paper.nets import StateDict
from benchmarks.paper.trainings import CLEAN, Nets

Rights = NDArray[np.bool_]
"""For each judged image, whether it was read rightly."""

JUDGED: Final = 2_000
"""At most so many images of `Parts.judging`; nothing was ever chosen by them."""
CHANCE_SEED: Final = 10_000
BATCH: Final = 200
"""What stays in a processor's cache: all images at once took 1.8 times as long."""


@dataclass
class Ledger:
    """What was found out, in a file, one JSON object a line, appended to as it comes.

    {"of": …, "count": …, "bits": …}      a judgement: which weights on which images, the bits
    {"recipe": …, "file": …}              the digest of the file that a recipe gives

    A recipe names its bytes, so both hold for ever. A last line that a crash cut off is dropped.
    """

    file: Path
    _judged: dict[str, Rights] = field(default_factory=dict)
    _files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.file.is_file():
            return
        found = self.file.read_text(encoding="ascii")
        whole = found[: found.rfind("\n") + 1]
        if whole != found:
            self.file.write_text(whole, encoding="ascii")
        for line in whole.splitlines():
            entry = json.loads(line)
            if "recipe" in entry:
                self._files[entry["recipe"]] = entry["file"]
            else:
                self._judged[entry["of"]] = _unpacked(entry)

    def judgement(self, of: str) -> Rights | None:
        """The judgement of `of`, if it was made."""
        return self._judged.get(of)

    def given_by(self, recipe: str) -> str | None:
        """The digest of the file that a recipe gives, if it was ever pulled."""
        return self._files.get(recipe)

    def judge(self, of: str, rights: Rights) -> None:
        """Keep a judgement."""
        self._judged[of] = rights
        bits = base64.b64encode(np.packbits(rights).tobytes()).decode("ascii")
        self._append({"of": of, "count": len(rights), "bits": bits})

    def pulled(self, recipe: str, file: str) -> None:
        """Keep what a recipe gave."""
        self._files[recipe] = file
        self._append({"recipe": recipe, "file": file})

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self.file.open("a", encoding="ascii") as file:
            file.write(json.dumps(entry) + "\n")


def _unpacked(entry: dict[str, Any]) -> Rights:
    raw = np.frombuffer(base64.b64decode(entry["bits"]), np.uint8)
    return np.unpackbits(raw, count=entry["count"]).astype(np.bool_)


@dataclass
class Judge:
    """Looks at the judging images of both data sets, clean or corrupted."""

    nets: Nets
    ledger: Ledger
    _seen: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def known(self, weights: str, data: str, seen: str) -> Rights | None:
        """What was judged before; `weights` is the digest of a net's file."""
        return self.ledger.judgement(self._name(weights, data, seen))

    def judge(self, weights: str, data: str, seen: str, net: str, state: StateDict) -> Rights:
        """Judge the weights `state` of `net`, and remember it."""
        rights = self._right(nets.loaded(net, state), data, seen)
        self.ledger.judge(self._name(weights, data, seen), rights)
        return rights

    def _name(self, weights: str, data: str, seen: str) -> str:
        plan = self.nets.plan
        count = min(JUDGED, plan.cuts[data].judging)
        return f"{weights} {plan.sources[data]} {seen} {count}"

    @cached_property
    def _parts(self) -> Mapping[str, Parts]:
        return self.nets.parts()

    def _judged(self, data: str) -> Images:
        return self._parts[data].judging[:JUDGED]

    def _pixels(self, data: str, seen: str) -> Tensor:
        """The images as they are seen: corrupted once, the same for every net."""
        if (data, seen) not in self._seen:
            pixels = self._judged(data).pixels
            if seen != CLEAN:
                pixels = CORRUPTIONS[seen](pixels, Generator().manual_seed(CHANCE_SEED))
            self._seen[data, seen] = pixels.contiguous(memory_format=torch.channels_last)
        return self._seen[data, seen]

    def _right(self, net: torch.nn.Module, data: str, seen: str) -> Rights:
        net = net.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        labels = self._judged(data).labels
        with torch.inference_mode():
            batches = torch.split(self._pixels(data, seen), BATCH)
            read = torch.cat([net(batch).argmax(dim=1) for batch in batches])
        rights: Rights = (read == labels).numpy()
        return rights
