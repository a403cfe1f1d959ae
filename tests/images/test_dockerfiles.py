"""The Dockerfiles by reading: what they copy is there, and what they promise is kept."""

import re
import shlex
import subprocess
from typing import Final

import pytest

from service.settings import Settings
from tests.images.conftest import ROOT, copied, take

IMAGES: Final = ["web", "worker"]


def dockerfile(image: str) -> str:
    return (ROOT / f"docker/{image}.Dockerfile").read_text()


def last_stage(image: str) -> str:
    return dockerfile(image).rpartition("\nFROM ")[2]


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_copies_is_there_and_not_kept_from_the_build(image: str) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = [line.removeprefix("!") for line in lines if line.startswith("!")]

    assert "*" in lines
    for name in copied(ROOT / f"docker/{image}.Dockerfile"):
        assert (ROOT / name).exists()
        assert any(re.fullmatch(each.replace("*", "[^/]*"), name) for each in admitted), name


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_the_script_that_the_tests_run(image: str) -> None:
    script = ROOT / f"docker/install-{image}.sh"

    assert f"docker/install-{image}.sh /opt/patchbay" in dockerfile(image)
    assert script.stat().st_mode & 0o111
    subprocess.run(["/bin/sh", "-n", script], check=True)  # noqa: S603


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_is_compiled_or_left_of_the_first_stage_but_the_environment(image: str) -> None:
    bases = re.findall(r"^FROM (\S+)", dockerfile(image), re.MULTILINE)

    assert bases == ["python:3.11-slim"] * 2
    assert re.findall(r"^COPY --from=build (.+)$", last_stage(image), re.MULTILINE) == [
        "/opt/patchbay /opt/patchbay"
    ]
    assert "apt-get" not in dockerfile(image)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_an_ordinary_user_and_is_watched(image: str) -> None:
    stage = last_stage(image)

    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", stage, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", stage, re.MULTILINE)
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in stage


@pytest.mark.parametrize("image", IMAGES)
def test_every_variable_of_ours_in_an_image_is_a_setting(image: str) -> None:
    used = set(re.findall(r"(PATCHBAY_\w+)=", dockerfile(image)))

    assert used
    assert used <= {f"PATCHBAY_{field.upper()}" for field in Settings.model_fields}


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_runs_is_a_command_of_ours(image: str) -> None:
    stage = last_stage(image)
    (words,) = re.findall(r"^CMD \[(.+)\]$", stage, re.MULTILINE)

    take(shlex.split(words.replace(",", " ")))

    assert '\nENTRYPOINT ["patchbay"]\n' in stage


def test_the_web_image_is_asked_where_it_listens() -> None:
    port = Settings.model_fields["port"].default

    assert f"EXPOSE {port}\n" in dockerfile("web")
    assert f"http://127.0.0.1:{port}/healthz" in dockerfile("web")
