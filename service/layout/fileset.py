"""Which files make a model version: their paths, and the indexes of sharded sets.

    model.safetensors                                   one file
    model-00001-of-00002.safetensors, …                 a sharded set, with
    model.safetensors.index.json                        its index beside it
    unet/model.safetensors, vae/…                       several parts in folders, each as above
    README.md, config.json, …                           ride along

A PyTorch checkpoint may stand where a weight file may; it is converted, and what the version holds
then has another path: `pytorch_model-00001-of-00002.bin` becomes `model-00001-of-00002.safetensors`
as Hub clients expect, `net.pth` becomes `net.safetensors`.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from service import errors
from service.layout.strict_json import BadJson, json_object, shown

WEIGHTS: Final = ".safetensors"
CHECKPOINTS: Final = (".pt", ".pth", ".bin", ".ckpt")
MAX_INDEX_BYTES: Final = 64 * 2**20
"""The longest index of a sharded set that is read."""

_REFUSED: Final = {
    (".pkl", ".pickle", ".joblib"): "a pickle",
    (".onnx",): "an ONNX model",
    (".gguf", ".ggml"): "a GGUF model",
    (".h5", ".hdf5", ".keras"): "an HDF5 model",
    (".msgpack",): "a Flax model",
    (".pt2", ".pte"): "an exported PyTorch program",
}
_SEGMENT = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|]{1,255}")
_TRAINING = re.compile(
    r"(optimizer|scheduler|lr_scheduler|scaler|rng_state\w*|random_states\w*|training_args)"
    r"(_\d+)?\.(pt|pth|bin|ckpt)",
    re.IGNORECASE,
)
_INDEX = re.compile(r".*(?P<of>\.safetensors|\.bin)\.index(\.\w+)?\.json")
_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
_NAMED_SHARDS = 5
_MAX_SHARDS = 10_000


def is_weights(path: str) -> bool:
    """Whether a file of this path holds tensors."""
    return path.endswith(WEIGHTS)


def is_index(path: str) -> bool:
    """Whether a file of this path is the index of a sharded set."""
    match = _INDEX.fullmatch(path)
    return match is not None and match["of"] == WEIGHTS


def is_training_state(path: str) -> bool:
    """Whether a file of this path holds what only a trainer needs: such a file is left out."""
    return _TRAINING.fullmatch(path.rpartition("/")[2]) is not None


def is_checkpoint(path: str) -> bool:
    """Whether a file of this path is a PyTorch checkpoint, to be converted."""
    return path.lower().endswith(CHECKPOINTS) and not is_training_state(path)


def is_checkpoint_index(path: str) -> bool:
    """Whether a file of this path is the index of a sharded set of checkpoints."""
    match = _INDEX.fullmatch(path)
    return match is not None and match["of"] != WEIGHTS


def converted(path: str) -> str:
    """The path that a checkpoint, or the index of a set of them, has once it is converted."""
    folder, slash, name = path.rpartition("/")
    if is_checkpoint_index(path):
        name = name.replace(".bin.index.", f"{WEIGHTS}.index.")
    else:
        name = name.rpartition(".")[0] + WEIGHTS
    # Hub clients look for model.safetensors where they looked for pytorch_model.bin.
    return folder + slash + re.sub(r"^pytorch_model(?=[.-])", "model", name)


def published(path: str) -> str | None:
    """The path that a file has in its version; None where it is left out."""
    if is_training_state(path):
        return None
    return converted(path) if is_checkpoint(path) or is_checkpoint_index(path) else path


def check_paths(paths: Collection[str]) -> None:
    """Check the paths of a version's files; raises `BadFileSet` and `UnsupportedFormat`."""
    for path in paths:
        parts = path.split("/")
        if not all(_SEGMENT.fullmatch(part) and part not in {".", ".."} for part in parts):
            raise errors.BadFileSet(f"{path[:200]!r} is not a plain relative path")
        for endings, form in _REFUSED.items():
            if path.lower().endswith(endings):
                raise errors.UnsupportedFormat(path, form, "save its weights as safetensors")
    if len({path.lower() for path in paths}) != len(paths):
        raise errors.BadFileSet("two paths differ in case alone")
    _check_published(paths)


def _check_published(paths: Collection[str]) -> None:
    """Check what is left of the paths once checkpoints are converted."""
    sources: dict[str, str] = {}
    for path in paths:
        target = published(path)
        if target is None:
            continue
        earlier = sources.setdefault(target.lower(), path)
        if earlier != path:
            raise errors.BadFileSet(
                f"both {earlier} and {path} would become {target}; leave one of them out"
            )
    if not any(target.endswith(WEIGHTS) for target in sources):
        raise errors.BadFileSet(
            f"none of them ends in {WEIGHTS} or is a PyTorch checkpoint; there are no weights to "
            "keep"
        )
    _check_numbered({target for path in paths if (target := published(path)) is not None})


def _check_numbered(paths: Collection[str]) -> None:
    """Check that numbered shards are all there, and an index with them."""
    for path in paths:
        match = _SHARD.fullmatch(path)
        if match is None:
            continue
        stem, count = match["stem"], int(match["count"])
        whole = [
            f"{stem}-{number:05}-of-{count:05}{WEIGHTS}"
            for number in range(1, min(count, _MAX_SHARDS) + 1)
        ]
        missing = [shard for shard in whole if shard not in paths]
        if missing:
            raise errors.BadFileSet(f"{path} is one of {count} shards; {_listed(missing)} missing")
        folder = path.rpartition("/")[0]
        if not any(is_index(each) and each.rpartition("/")[0] == folder for each in paths):
            raise errors.BadFileSet(f"{path} has no index; add {stem}{WEIGHTS}.index.json")


# ── sharded sets ─────────────────────────────────────────────────────────────────────────────


def read_index(path: str, text: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    """The weight map of an index, `{tensor: path of its shard}`, and its metadata.

    The paths are those in the version: an index names shards beside itself. Raises `BadFileSet`.
    """
    try:
        index = json_object(text)
    except BadJson as error:
        raise errors.BadFileSet(f"index {path} {error}") from error
    found, metadata = index.get("weight_map"), index.get("metadata", {})
    if not isinstance(found, dict) or not found:
        raise errors.BadFileSet(f"index {path} has no weight_map object that names shards")
    folder, slash, _ = path.rpartition("/")
    for name, shard in found.items():
        if not isinstance(shard, str):
            raise errors.BadFileSet(f"index {path} puts tensor {name!r} into {shown(shard)}")
    named = {name: folder + slash + shard for name, shard in found.items()}
    return named, metadata if isinstance(metadata, dict) else {}


def check_shards(indexes: Mapping[str, bytes], weights: Mapping[str, Collection[str]]) -> None:
    """Check that sharded sets are whole and that their indexes agree with their shards.

    `weights` holds the names of the tensors of every weight file by path. Raises `BadFileSet`.
    """
    indexed: dict[str, str] = {}
    for path, text in indexes.items():
        weight_map, _ = read_index(path, text)
        check_index(path, weight_map, weights)
        for shard in set(weight_map.values()):
            if indexed.setdefault(shard, path) != path:
                raise errors.BadFileSet(f"two indexes name the shard {shard}")
    for path in weights:
        if _SHARD.fullmatch(path) and path not in indexed:
            raise errors.BadFileSet(f"no index names the shard {path}; leave it out")


def check_named(path: str, weight_map: Mapping[str, str], paths: Collection[str]) -> None:
    """Check that all shards that an index names are among `paths`; raises `BadFileSet`."""
    missing = sorted(set(weight_map.values()) - set(paths))
    if missing:
        raise errors.BadFileSet(f"index {path} names {_listed(missing)}, missing here; add them")


def check_index(
    path: str, weight_map: Mapping[str, str], weights: Mapping[str, Collection[str]]
) -> None:
    """Check that an index and the shards it names agree on what lies where: `BadFileSet`."""
    check_named(path, weight_map, weights)
    for name, shard in weight_map.items():
        if name not in weights[shard]:
            raise errors.BadFileSet(f"index {path} puts tensor {name!r} into {shard}: not there")
    for shard in sorted(set(weight_map.values())):
        for name in weights[shard]:
            if weight_map.get(name) != shard:
                where = weight_map.get(name) or "nowhere"
                raise errors.BadFileSet(
                    f"shard {shard} holds tensor {name!r}, which index {path} puts {where}"
                )


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - _NAMED_SHARDS} more" if len(paths) > _NAMED_SHARDS else ""
    return ", ".join(paths[:_NAMED_SHARDS]) + more
