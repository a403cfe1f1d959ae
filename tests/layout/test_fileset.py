import json

import pytest

from service import errors
from service.layout import fileset

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def index(weight_map: object, **rest: object) -> bytes:
    return json.dumps({"weight_map": weight_map, **rest}).encode()


@pytest.mark.parametrize(
    "paths",
    [
        {"../x.safetensors"},
        {"/x.safetensors"},
        {"a//x.safetensors"},
        {"a\\x.safetensors"},
        {"x.safetensors", "X.safetensors"},
        {"README.md"},
        {"a\x00.safetensors"},
        {"optimizer.pt", "training_args.bin"},
    ],
)
def test_paths_that_make_no_version_are_refused(paths: set[str]) -> None:
    with pytest.raises(errors.BadFileSet):
        fileset.check_paths(paths)


@pytest.mark.parametrize("path", ["m.onnx", "m.gguf", "m.h5", "m.pkl", "m.pt2", "flax.msgpack"])
def test_other_formats_are_refused_by_name(path: str) -> None:
    with pytest.raises(errors.UnsupportedFormat, match=path):
        fileset.check_paths({"x.safetensors", path})


@pytest.mark.parametrize(
    ("given", "published"),
    [
        ("net.pth", "net.safetensors"),
        ("a/net.v2.PT", "a/net.v2.safetensors"),
        ("pytorch_model.bin", "model.safetensors"),
        ("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"),
        ("pytorch_model-00001-of-00002.bin", "model-00001-of-00002.safetensors"),
        ("pytorch_model.bin.index.json", "model.safetensors.index.json"),
        ("x/pytorch_model.bin.index.fp16.json", "x/model.safetensors.index.fp16.json"),
        ("model.safetensors", "model.safetensors"),
        ("config.json", "config.json"),
        ("checkpoint/optimizer.pt", None),
        ("rng_state_0.pth", None),
        ("training_args.bin", None),
    ],
)
def test_checkpoints_get_the_paths_that_clients_look_for(given: str, published: str | None) -> None:
    assert fileset.published(given) == published


def test_two_files_that_would_become_one_are_both_named() -> None:
    with pytest.raises(errors.BadFileSet, match="leave one of them out") as caught:
        fileset.check_paths(["pytorch_model.bin", "model.safetensors"])

    assert "pytorch_model.bin" in str(caught.value)
    assert "model.safetensors" in str(caught.value)


def test_a_sharded_set_with_its_index_is_whole() -> None:
    fileset.check_paths([*SHARDS, INDEX])
    fileset.check_paths([f"unet/{name}" for name in (*SHARDS, INDEX)] + ["vae/model.safetensors"])


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        ([SHARDS[0], INDEX], SHARDS[1]),
        ([*SHARDS], f"add {INDEX}"),
        ([*SHARDS, f"other/{INDEX}"], f"add {INDEX}"),
        (["pytorch_model-00001-of-00001.bin"], f"add {INDEX}"),
        (["a-00001-of-99999.safetensors", "a.safetensors.index.json"], "more missing"),
    ],
)
def test_what_a_sharded_set_lacks_is_named(paths: list[str], told: str) -> None:
    with pytest.raises(errors.BadFileSet, match=told):
        fileset.check_paths(paths)


def test_every_part_may_have_an_index_of_its_own() -> None:
    held = {f"{part}/{shard}": {shard} for part in ("unet", "vae") for shard in SHARDS}
    text = index({shard: shard for shard in SHARDS})

    fileset.check_shards({"unet/" + INDEX: text, "vae/" + INDEX: text}, held)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (index({"a": SHARDS[0], "b": "x.safetensors"}), "x.safetensors, missing here"),
        (index({"a": SHARDS[0], "b": SHARDS[0]}), "'b' into .*not there"),
        (index({"a": SHARDS[0]}), f"no index names the shard {SHARDS[1]}"),
        (index({"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[1]}), "'c'"),
        (index({"a": SHARDS[0], "b": 7}), "into 7"),
        (index({"b": SHARDS[1]}), f"no index names the shard {SHARDS[0]}"),
        (index({}), "no weight_map"),
        (index([]), "no weight_map"),
        (b"[1]", "not a JSON object"),
        (b"{", "not JSON"),
        (b'{"weight_map": {}, "weight_map": {}}', "repeats"),
    ],
)
def test_an_index_that_its_shards_belie_is_refused(text: bytes, told: str) -> None:
    with pytest.raises(errors.BadFileSet, match=told):
        fileset.check_shards({INDEX: text}, {SHARDS[0]: {"a"}, SHARDS[1]: {"b"}})


def test_a_tensor_that_the_index_does_not_know_is_named() -> None:
    text = index({"a": SHARDS[0], "b": SHARDS[1]})

    with pytest.raises(errors.BadFileSet, match=r"holds tensor 'extra'.*nowhere"):
        fileset.check_shards({INDEX: text}, {SHARDS[0]: {"a", "extra"}, SHARDS[1]: {"b"}})


def test_a_shard_belongs_to_one_index() -> None:
    text = index({"a": "a.safetensors"})

    with pytest.raises(errors.BadFileSet, match="two indexes name"):
        fileset.check_shards({INDEX: text, "b" + INDEX: text}, {"a.safetensors": {"a"}})
