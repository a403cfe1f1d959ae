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

    def of_model(self, reference: str, paths: Sequence[str]) -> list[Command]:
        """Get the files of a model version."""
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
        return found

    def of_patch(
        self, patch: str, number: int, clean: str | None, paths: Sequence[str]
    ) -> list[Command]:
        """Get a model with the patch on it, patch a file in place, or get the patch itself."""
        found = []
        short = patch.rpartition("/")[2]
        if clean is not None:
            model, _, base = clean.partition("@")
            same = model.partition("/")[0].lower() == patch.partition("/")[0].lower()
            name = short if same else patch.replace("/", ".")
            recipe = f"{base}+{name}~{number}=1"
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
                "undo gives back the very bytes of the base, and needs no service.",
            ),
        ]

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

    def _curl(self, path: str, out: str, *, open_: bool, options: str = "") -> str:
        token = "" if open_ else ' -H "Authorization: Bearer $PATCHBAY_TOKEN"'
        more = f" {options}" if options else ""
        return f"curl -fL{token}{more} -o {quote(out)} {quote(self.url + path)}"


def _file_out(model: str, paths: Sequence[str]) -> str:
    """Where to put a version's weights: a file named like theirs, or a folder for several."""
    if len(paths) == 1:
        return paths[0].rpartition("/")[2]
    return model.rpartition("/")[2]
