import json

from service.blobs.folder import FolderStore
from service.names import digest_of
from service.web import profile
from tests.pairs import Extracted


def stored(store: FolderStore, content: bytes) -> str:
    digest = digest_of(content)
    with store.writer(digest, len(content)) as writer:
        writer.write(content)
        writer.commit()
    return digest


def test_a_real_profile_is_read(store: FolderStore, extracted: Extracted) -> None:
    content = json.dumps(extracted.profile).encode()

    found = profile.read(store, stored(store, content), len(content))

    assert found is not None
    assert [kernel.name for kernel in found.kernels] == [
        kernel["name"] for kernel in extracted.profile["kernels"]
    ]
    assert [kernel.codec for kernel in found.kept] == ["q8"]


def test_a_profile_that_is_too_long_is_not_read(store: FolderStore, extracted: Extracted) -> None:
    many = {**extracted.profile, "kernels": extracted.profile["kernels"] * profile.MAX_KERNELS}
    content = json.dumps(many).encode()

    assert profile.read(store, "sha256:" + "0" * 64, profile.MAX_BYTES + 1) is None
    assert profile.read(store, stored(store, content), len(content)) is None


def test_a_profile_that_lies_about_numbers_is_not_drawn(
    store: FolderStore, extracted: Extracted
) -> None:
    for field, value in (
        ("relative_norm", float("inf")),
        ("relative_norm", -1),
        ("energy_share", 7),
        ("name", "x" * 2000),
    ):
        kernels = [{**extracted.profile["kernels"][0], field: value}]
        content = json.dumps({**extracted.profile, "kernels": kernels}).encode()

        assert profile.read(store, stored(store, content), len(content)) is None


def test_a_profile_out_of_reach_is_not_read(store: FolderStore) -> None:
    assert profile.read(store, "sha256:" + "0" * 64, 10) is None


def test_a_summary_is_read_as_far_as_it_goes() -> None:
    found = profile.summary(
        {"quality": "standard", "energy_kept": "much", "warnings": ["w"], "more": 1}
    )

    assert (found.quality, found.energy_kept, found.warnings) == ("standard", None, ["w"])


def test_the_choice_of_layers_is_told_in_words() -> None:
    told = [
        profile.summary({"layers": layers}).choice
        for layers in ({"energy": 0.85}, {"first": 7}, {"names": ["a*", "b"]}, "all", None)
    ]

    assert told == [
        "the densest, up to 85% of the energy",
        "the first 7 in forward order",
        "by name: a*, b",
        "all",
        "",
    ]
