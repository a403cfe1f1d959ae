"""Where the weights are in what a checkpoint holds, and what their names are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from service import errors
from service.layout.strict_json import shown

NESTED: Final = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
"""Under which key programs save a state dict; the first that holds tensors is taken."""
WRAPPER: Final = "_orig_mod."
"""What torch.compile puts before the names of the module that it wraps, at any depth."""
PARALLEL: Final = "module."
"""What DataParallel and AveragedModel put before every name."""
MAX_TENSORS: Final = 100_000
MAX_TIED: Final = 10_000

_DEPTH: Final = 6
_AVERAGED: Final = "n_averaged"
_TOLD: Final = 100


@dataclass(frozen=True, slots=True)
class StateDict:
    """Tensors by name in the order in which the model names them, and what was left out."""

    tensors: Mapping[str, Tensor]
    left_out: tuple[str, ...]


def find(loaded: Any, file: str) -> StateDict:
    """Find the state dict in what a checkpoint holds; raises `BadCheckpoint`."""
    left_out: list[str] = []
    where, found = "", loaded
    for _ in range(_DEPTH):
        if not isinstance(found, Mapping):
            break
        key = _nested_key(found, where, file)
        if key is None:
            return StateDict(_named(found, where, left_out, file), _told(left_out))
        left_out += [f"{where}{_text(other)}" for other in found if other != key]
        where, found = f"{where}{_text(key)}.", found[key]
    kind = f"a {type(loaded).__name__}" if not isinstance(loaded, Mapping) else "no tensors"
    raise errors.BadCheckpoint(
        file, f"it holds {kind}, no state dict; save model.state_dict() with torch.save"
    )


def _nested_key(found: Mapping[Any, Any], where: str, file: str) -> Any:
    """The key under which the state dict lies; None where it is `found` itself."""
    inner = [key for key, value in found.items() if _holds_tensors(value)]
    for key in NESTED:
        if key in inner:
            return key
    if any(isinstance(value, Tensor) for value in found.values()):
        return None
    inner = [key for key in inner if not _is_baggage(key, found[key])]
    if len(inner) > 1:
        names = ", ".join(f"{where}{_text(key)}" for key in inner[:8])
        raise errors.BadCheckpoint(
            file, f"it holds several state dicts: {names}; save the one that is the model"
        )
    if not inner:
        raise errors.BadCheckpoint(
            file, "it holds no tensors; save model.state_dict() with torch.save"
        )
    return inner[0]


def _holds_tensors(value: Any) -> bool:
    """Whether a value is a state dict, or leads to one."""
    if not isinstance(value, Mapping):
        return False
    if any(isinstance(each, Tensor) for each in value.values()):
        return True
    return any(
        isinstance(value.get(key), Mapping)
        and any(isinstance(each, Tensor) for each in value[key].values())
        for key in NESTED
    )


def _is_baggage(key: Any, value: Mapping[Any, Any]) -> bool:
    """Whether it belongs to the training: an optimizer's state, or averaged weights."""
    return "ema" in _text(key).lower().split("_") or {"state", "param_groups"} <= set(value)


def _named(
    found: Mapping[Any, Any], where: str, left_out: list[str], file: str
) -> dict[str, Tensor]:
    """The tensors by their names without wrappers; appends to `left_out` what is no tensor."""
    kept: dict[str, Tensor] = {}
    for key, value in found.items():
        if not isinstance(value, Tensor):
            left_out.append(f"{where}{_text(key)}")
        elif not isinstance(key, str):
            raise errors.BadCheckpoint(file, f"it calls a tensor {shown(key)}, which is no text")
        else:
            kept[key] = value
    if len(kept) > MAX_TENSORS:
        raise errors.BadCheckpoint(file, f"it holds more than {MAX_TENSORS} tensors")
    return dict(_unwrapped(kept, where, left_out, file))


def _unwrapped(
    kept: dict[str, Tensor], where: str, left_out: list[str], file: str
) -> Iterator[tuple[str, Tensor]]:
    bare = {name: name.replace(WRAPPER, "") for name in kept}
    if _AVERAGED in kept and all(n.startswith(PARALLEL) for n in bare.values() if n != _AVERAGED):
        left_out.append(f"{where}{_AVERAGED}")
        del bare[_AVERAGED]
    while bare and all(name.startswith(PARALLEL) for name in bare.values()):
        bare = {name: short.removeprefix(PARALLEL) for name, short in bare.items()}
    taken: dict[str, str] = {}
    for name, short in bare.items():
        if short in taken and identity(kept[taken[short]]) == identity(kept[name]):
            continue  # one tensor, named with and without its wrapper
        if taken.setdefault(short, name) != name:
            raise errors.BadCheckpoint(
                file,
                f"{taken[short]!r:.200} and {name!r:.200} are both {short!r:.200} once what "
                "wrappers put before names is taken off",
            )
        yield short, kept[name]


def untied(tensors: Mapping[str, Tensor], file: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, each once, and for the other names of shared ones the name that was kept.

    Raises `BadCheckpoint`.
    """
    kept: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[object, str] = {}
    for name, tensor in tensors.items():
        same = first.setdefault(identity(tensor), name) if tensor.numel() else name
        if same == name:
            kept[name] = tensor
        else:
            tied[name] = same
    if len(tied) > MAX_TIED:
        raise errors.BadCheckpoint(file, f"it holds more than {MAX_TIED} names of shared tensors")
    return kept, tied


def identity(tensor: Tensor) -> object:
    """Equal for two tensors that are the same elements of the same storage."""
    if tensor.layout is not torch.strided:
        return id(tensor)
    storage = tensor.untyped_storage()
    # On the meta device a storage has no address, but the place of its record in the file.
    place = getattr(storage, "_checkpoint_offset", None)
    return (
        storage.data_ptr() if place is None else place,
        tensor.storage_offset(),
        tuple(tensor.shape),
        tensor.stride(),
        tensor.dtype,
        tensor.is_conj(),
        tensor.is_neg(),
    )


def _text(key: Any) -> str:
    return key[:200] if isinstance(key, str) else shown(key)


def _told(left_out: list[str]) -> tuple[str, ...]:
    more = len(left_out) - _TOLD
    return (*left_out[:_TOLD], *((f"and {more} more",) if more > 0 else ()))
