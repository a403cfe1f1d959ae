import shlex
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.http.deps import Parts
from service.names import model_reference, parse_recipe
from service.web.commands import DEFAULT_URL, Commands

HOST = "https://patchbay.example"


@pytest.fixture
def parts(app: FastAPI) -> Iterator[Parts]:
    with TestClient(app):  # which opens the parts
        yield app.state.parts


def test_a_command_says_where_unless_it_is_where_our_command_line_looks(parts: Parts) -> None:
    here = Commands(DEFAULT_URL, parts).of_model("a/b@3", ["model.safetensors"])
    there = Commands(HOST, parts).of_model("a/b@3", ["model.safetensors"])

    assert here[0].text == "patchbay pull a/b@3 -o model.safetensors"
    assert there[0].text == f"patchbay pull a/b@3 -o model.safetensors --url {HOST}"
    assert there[1].text == (
        f"curl -fL -o model.safetensors {HOST}/v1/models/a/b/versions/3/files/model.safetensors"
    )


def test_the_recipe_of_a_patch_is_one_that_the_registry_reads(parts: Parts) -> None:
    commands = Commands(HOST, parts)

    same = commands.of_patch("vision/fog", 2, "vision/net@1", ["m.safetensors"])
    other = commands.of_patch("weather/fog", 2, "vision/net@1", ["m.safetensors"])

    for found, name in ((same, "fog"), (other, "weather.fog")):
        reference = model_reference(shlex.split(found[0].text)[2])
        assert reference.revision == f"1+{name}~2=1"
        (part,) = parse_recipe(reference.revision, "vision").patches
        assert (part.patch.name, part.version) == ("fog", 2)
    assert shlex.split(same[1].text)[-1] == f"{HOST}/v1/weights/vision/net?recipe=1+fog~2=1"


def test_whoever_needs_a_token_is_told_where_to_put_it(parts: Parts) -> None:
    closed = replace(parts, anonymous_read=False)

    model = Commands(HOST, closed).of_model("a/b@3", ["m.safetensors"])
    channel = Commands(HOST, closed).of_channel("a/stable", "a/b", ["m.safetensors"])
    recipe = Commands(HOST, parts).of_patch("a/fog", 1, "a/b@3", ["m.safetensors"])

    # A recipe may have to be built, which takes a token even where everybody may read.
    for command in (model[1], channel[1], recipe[1]):
        assert '-H "Authorization: Bearer $PATCHBAY_TOKEN"' in command.text
    assert "Authorization" not in recipe[-1].text


def test_names_of_files_cannot_break_out_of_a_command(parts: Parts) -> None:
    path = "weights/it's $(rm -rf ~) & `x`;#?.safetensors"

    found = Commands(HOST, parts).of_model("a/b@3", [path])

    name = path.rpartition("/")[2]
    assert shlex.split(found[0].text)[4] == name
    assert shlex.split(found[1].text)[3] == name
    assert len(shlex.split(found[1].text)) == 5


def test_models_of_several_files_go_into_a_folder(parts: Parts) -> None:
    paths = ["a/one.safetensors", "b/two.safetensors"]
    commands = Commands(HOST, parts)

    model = commands.of_model("vision/net@3", paths)
    patch = commands.of_patch("vision/fog", 1, "vision/net@3", paths)
    channel = commands.of_channel("vision/stable", "vision/net", paths)

    assert "-o net " in model[0].text
    assert model[1].text.count("curl ") == 2
    assert "/v1/weights/vision/net/a/one.safetensors?recipe=" in patch[1].text
    assert "/v1/channels/vision/stable/weights/a/one.safetensors" in channel[1].text
