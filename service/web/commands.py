"""Commands to copy: what gets the thing on the page, for curl and for our own command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Final
from urllib.parse import quote as percent

from service.http.deps import Parts

DEFAULT_URL: Final = "http://127.0.0.1:8321"
"""Where the command line looks without being told."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command and what it does."""

    title: str
    text: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands for one service, seen at `url`."""

    url: str
    parts: Parts

    def of_model(
        self, reference: str, paths: Sequence[str], patch: str | None = None
    ) -> list[Command]:
        """Get the files of a model version; by Hub clients with `patch` on it, if one fits."""
        name, _, number = reference.partition("@")
        out = _file_out(name, paths)
        found = [Command("Command line", self._patchbay(f"pull {reference} -o {quote(out)}"))]
        fetched = [
            self._curl(
                f"/v1/models/{name}/versions/{number}/files/{percent(path)}",
                path.rpartition("/")[2],
                open_=self.parts.anonymous_read,
            )
            for path in paths
        ]
        if fetched:
            found.append(Command("curl", "\n".join(fetched)))
        pull = self._patchbay(f"pull {reference} --into {quote(out)}")
        note = "For a file that holds a patched build of it: fetches what differs alone."
        recipe = number if patch is None else f"{number}+{_in_recipe(patch, name)}=0.5"
        return [*found, Command("Back to this very version", pull, note), self._hub(name, recipe)]

    def of_patch(
        self, patch: str, number: int, clean: str | None, paths: Sequence[str]
    ) -> list[Command]:
        """Get a model with the patch on it, patch a file in place, or get the patch itself."""
        found = []
        short = patch.rpartition("/")[2]
        if clean is not None:
            model, _, base = clean.partition("@")
            recipe = f"{base}+{_in_recipe(patch, model)}~{number}=1"
            out = f"{model.rpartition('/')[2]}-{short}"
            out += ".safetensors" if len(paths) == 1 else ""
            found = self._patched(f"{model}@{recipe}", out, paths)
        file = f"{short}-{number}.rws.safetensors"
        get_patch = f"/v1/patches/{patch}/versions/{number}/file"
        return [
            *found,
            Command(
                "The patch file alone",
                self._curl(get_patch, file, open_=self.parts.anonymous_read),
            ),
        ]

    def _patched(self, reference: str, out: str, paths: Sequence[str]) -> list[Command]:
        model, _, recipe = reference.partition("@")
        pull = self._patchbay(f"pull {reference} -o {quote(out)}")
        opened = self.parts.anonymous_read and self.parts.anonymous_build
        several = len(paths) > 1
        address = f"/v1/weights/{model}" + (f"/{percent(paths[0])}" if several else "")
        curl = self._curl(f"{address}?recipe={recipe}", out, open_=opened)
        target = quote(_file_out(model, paths))
        in_place = f"{self._patchbay(f'apply {target} {reference}')}\npatchbay undo {target}"
        return [
            Command("Patched model, command line", pull, "Scale 1 is as extracted."),
            Command("Patched model, curl", curl, "One command a file." if several else ""),
            Command(
                "A file that you have, in place",
                in_place,
                "undo gives back the very bytes of the base, and needs no service. "
                "--patch-only fetches the patches alone and computes here.",
            ),
            Command(
                "The same into a copy",
                self._patchbay(f"pull {reference} --into {target} -o {quote(out)}"),
                "Fetches the changed tensors alone.",
            ),
            self._hub(model, recipe),
        ]

    def of_recipe(self, reference: str, paths: Sequence[str]) -> list[Command]:
        """Get what a recipe gives, its versions pinned."""
        model, _, recipe = reference.partition("@")
        if "+" not in recipe:
            return self.of_model(reference, paths)
        short = model.rpartition("/")[2] + "-patched"
        return self._patched(reference, short + (".safetensors" if len(paths) == 1 else ""), paths)

    def to_evaluate(
        self, reference: str, base: str | None, data_set: str | None, corruption: str | None
    ) -> Command:
        """Measure a patch at several scales."""
        about = f"--data-set {quote(data_set or 'DATA_SET')}"
        about += f" --corruption {quote(corruption or 'CORRUPTION')}"
        return Command(
            "Measure it with your own function",
            self._patchbay(
                f"evaluate {reference} measure.py:accuracy --on {base or 'MODEL'} {about}"
            ),
            'accuracy(path) gets the patched weights and returns {"accuracy": 0.81, "n": 1000}.',
        )

    def of_channel(self, channel: str, model: str, paths: Sequence[str]) -> list[Command]:
        """Follow a channel, and move it."""
        out = _file_out(model, paths)
        several = len(paths) > 1
        file = f"/{percent(paths[0])}" if several else ""
        kept = quote(f"{out}.etag")
        curl = self._curl(
            f"/v1/channels/{channel}/weights{file}",
            paths[0].rpartition("/")[2] if several else out,
            open_=self.parts.anonymous_read,
            options=f"--etag-compare {kept} --etag-save {kept}",
        )
        return [
            Command(
                "Pull, command line", self._patchbay(f"channel pull {channel} -o {quote(out)}")
            ),
            Command("Pull, curl", curl, "Sends nothing while the channel has not moved."),
            Command("Go back to the clean model", self._patchbay(f"channel revert {channel}")),
        ]

    def _patchbay(self, command: str) -> str:
        elsewhere = "" if self.url == DEFAULT_URL else f" --url {quote(self.url)}"
        return f"patchbay {command}{elsewhere}"

    def to_compare(self, references: Sequence[str]) -> Command:
        """Compare patches each with each."""
        named = " ".join(references)
        return Command("Compare them exactly", self._patchbay(f"similar {named}"))

    def _hub(self, model: str, revision: str) -> Command:
        token = "" if self.parts.anonymous_read else 'HF_TOKEN="$PATCHBAY_TOKEN" '
        download = f"hf download {model} --revision {quote(revision)}"
        return Command(
            "Hugging Face clients",
            f"HF_ENDPOINT={quote(self.url)} {token}{download}",
            "Any recipe is a revision; transformers and timm read it alike.",
        )

    def _curl(self, path: str, out: str, *, open_: bool, options: str = "") -> str:
        token = "" if open_ else ' -H "Authorization: Bearer $PATCHBAY_TOKEN"'
        more = f" {options}" if options else ""
        return f"curl -fL{token}{more} -o {quote(out)} {quote(self.url + path)}"


def _in_recipe(patch: str, model: str) -> str:
    """How a recipe on a model names a patch."""
    namespace, _, short = patch.partition("/")
    return short if model.partition("/")[0].lower() == namespace.lower() else f"{namespace}.{short}"


def _file_out(model: str, paths: Sequence[str]) -> str:
    """Where to put a version's weights: a file named like theirs, or a folder for several."""
    if len(paths) == 1:
        return paths[0].rpartition("/")[2]
    return model.rpartition("/")[2]
