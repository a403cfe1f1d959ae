import json
from pathlib import Path

import httpx2
import pytest
import typer

from service import errors
from service.cli import exits
from service.cli.commands import app
from service.cli.exits import Exit
from service.cli.models import files_of
from service.cli.patches import layers_of, patch_in
from service.cli.session import Session
from service.client.problem import ServiceProblem
from service.http.problems import STATUS, status_of

NOWHERE = ["--url", "http://127.0.0.1:9"]


def test_every_status_of_the_service_has_an_exit_code() -> None:
    assert set(STATUS.values()) - set(exits.BY_STATUS) == {500}


@pytest.mark.parametrize("kind", errors.leaves(), ids=lambda kind: kind.slug)
def test_a_problem_ends_alike_met_here_or_sent_by_the_service(
    kind: type[errors.PatchbayError],
) -> None:
    here = next(exits.BY_KIND[base] for base in kind.__mro__ if base in exits.BY_KIND)

    sent = exits.code_of(ServiceProblem(status_of(kind), kind.slug, ""))

    assert sent == here


def test_no_service_is_told_as_json_for_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    ended = exits.run(app, ["ls", *NOWHERE, "--json"])

    captured = capsys.readouterr()
    assert ended == Exit.UNAVAILABLE
    assert json.loads(captured.err)["slug"] == "unreachable"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], Exit.OK),
        (["channel", "point", "--help"], Exit.OK),
        (["no-such-command"], Exit.USAGE),
        (["ls", "nonsense"], Exit.USAGE),
        (["ls", "--url", "ftp://x"], Exit.USAGE),
        (["ls", "--url", "http://a:b"], Exit.USAGE),
        (["push", "ns/m", "/no/such/file"], Exit.USAGE),
        (["extract", "a/b", "a/c", "--patch", "a/p", "--all", "--first", "1"], Exit.USAGE),
        (["extract", "a/b", "a/c", "--patch", "a/p", "--quality", "best"], Exit.USAGE),
        (["channel", "add", "ns/c", "fog", *NOWHERE], Exit.USAGE),
        (["channel", "add", "ns/c", "fog=1e3", *NOWHERE], Exit.INVALID),
        (["channel", "revert", "ns/c", "yesterday"], Exit.USAGE),
        (["show", "v1/m", *NOWHERE], Exit.INVALID),
        (["pull", "no-slash", *NOWHERE], Exit.INVALID),
        (["undo", __file__], Exit.CONFLICT),
    ],
)
def test_a_command_ends_with_the_code_that_says_why(words: list[str], code: Exit) -> None:
    assert exits.run(app, words) == code


def test_the_owner_token_is_for_this_machine_alone(tmp_path: Path) -> None:
    (tmp_path / "owner-token").write_text("secret\n")
    session = Session(home=tmp_path)

    def sent(url: str) -> str | None:
        with session.connect(url, None) as client:
            found: str | None = client.transport.http.headers.get("Authorization")
            return found

    assert sent("http://127.0.0.1:8321") == "Bearer secret"
    assert sent("http://localhost") == "Bearer secret"
    assert sent("https://patchbay.example") is None
    assert sent("http://127.0.0.1.example") is None


def test_what_is_given_goes_before_what_the_environment_says() -> None:
    session = Session(url="http://one", token="first")  # noqa: S106

    with session.connect("http://two", "second") as client:
        http: httpx2.Client = client.transport.http

    assert http.base_url.host == "two"
    assert http.headers["Authorization"] == "Bearer second"
    assert "first" not in repr(session)


@pytest.mark.parametrize(
    ("text", "full"), [("fog", "ns/fog"), ("other.fog", "other/fog"), ("other/fog", "other/fog")]
)
def test_a_patch_is_named_as_in_a_recipe(text: str, full: str) -> None:
    assert patch_in(text, "ns") == full


def test_nothing_said_of_layers_leaves_the_choice_to_the_service() -> None:
    assert layers_of(None, None, None, everything=False) == {}
    assert layers_of(None, None, None, everything=True) == {"layers": "all"}


def test_a_folder_is_pushed_without_records_and_hidden_files(tmp_path: Path) -> None:
    for path in (
        "unet/a.safetensors",
        "config.json",
        ".git/x",
        "a.safetensors.patchbay/recipe.json",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")

    assert sorted(files_of([tmp_path])) == ["config.json", "unet/a.safetensors"]


def test_two_files_of_one_name_are_not_pushed_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").write_text("")

    with pytest.raises(typer.BadParameter, match="same name"):
        files_of([tmp_path / "a/model.safetensors", tmp_path / "b/model.safetensors"])
