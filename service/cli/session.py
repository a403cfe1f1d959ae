"""What every command gets: a client of the service, and where to print.

A command is written with a `Run` first; `command` gives it the options that all commands share.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Concatenate, Final, ParamSpec, Protocol

import httpx2
import typer

from service.cli.output import Output
from service.client.client import Client
from service.compute.jobs import BuildJob, BuildMade
from service.names import Digest

DEFAULT_URL: Final = "http://127.0.0.1:8321"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

P = ParamSpec("P")

Url = Annotated[
    str | None, typer.Option("--url", help="The service (else PATCHBAY_URL).", show_default=False)
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="The caller's token (else PATCHBAY_TOKEN, else the home's owner-token).",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


class BuildHere(Protocol):
    """Carries a recipe out on this machine."""

    def __call__(self, job: BuildJob, where: Mapping[Digest, Path], scratch: Path) -> BuildMade:
        """Make its overlays in the empty folder `scratch`; `where` has each input by digest."""


@dataclass(frozen=True, slots=True)
class Session:
    """What the environment says: where the service is, the caller's token, the state directory.

    `build` is there where this machine can compute.
    """

    url: str | None = None
    token: str | None = field(default=None, repr=False)
    home: Path | None = None
    build: BuildHere | None = None

    def connect(self, url: str | None, token: str | None) -> Client:
        """A client of the service; what is given goes before what the environment says."""
        where = url or self.url or DEFAULT_URL
        try:
            scheme = httpx2.URL(where).scheme
        except httpx2.InvalidURL as error:
            raise typer.BadParameter(f"{where!r} is not a URL: {error}") from error
        if scheme not in {"http", "https"}:
            raise typer.BadParameter(f"{where!r} does not begin with http:// or https://")
        return Client(where, token or self.token or self._owner_token(where))

    def _owner_token(self, url: str) -> str | None:
        """The owner's token of the state directory, for the service on this very machine only.

        Sent elsewhere it would hand the owner's rights to whoever answers there.
        """
        if self.home is None or httpx2.URL(url).host not in LOOPBACK:
            return None
        try:
            return (self.home / "owner-token").read_text().strip() or None
        except (FileNotFoundError, PermissionError):
            return None  # another user's service: anonymous reading may be all that is wanted


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a command."""

    client: Client
    out: Output
    build: BuildHere | None = None


def command(
    app: typer.Typer, name: str
) -> Callable[[Callable[Concatenate[Run, P], None]], Callable[Concatenate[Run, P], None]]:
    """Add a function as command `name`, with --url, --token and --json."""

    def add(
        function: Callable[Concatenate[Run, P], None],
    ) -> Callable[Concatenate[Run, P], None]:
        def entered(
            ctx: typer.Context, url: str | None, token: str | None, *, as_json: bool, **given: Any
        ) -> None:
            session = ctx.obj if isinstance(ctx.obj, Session) else Session()
            with session.connect(url, token) as client:
                function(Run(client, Output(as_json=as_json), session.build), **given)  # type: ignore[call-arg]

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared = [
            _keyword("url", Url, None),
            _keyword("token", Token, None),
            _keyword("as_json", AsJson, default=False),
        ]
        ctx = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
        parameters = [ctx, *own, *shared]
        # Typer reads a command's options off its signature and its annotations.
        entered.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        entered.__annotations__ = {one.name: one.annotation for one in parameters}
        entered.__doc__ = function.__doc__
        app.command(name)(entered)
        return function

    return add


def _keyword(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )
