"""Which biases and norms belong to which kernel: by recorded order, by name, by shared parent.

Without its norm a patch on a batch-norm net loses most of its effect (13 % accuracy against 84 %),
so what cannot be attached is listed.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.names import TensorAddress
from service.tensors.layers import Layer, Role

_NORM_PARTS: Final = frozenset({"weight", "bias", "running_mean", "running_var", "gamma", "beta"})
_TWINS: Final = re.compile(r"^(?:bn|norm|batchnorm|batch_norm|ln|gn)(?P<number>_?\d*[a-z]?)$")
_KERNEL_TWINS: Final = ("conv", "linear", "fc", "proj", "dense")


@dataclass(frozen=True, slots=True)
class Norm:
    """The 1-d tensors of one normalisation layer."""

    module: TensorAddress
    parts: tuple[Layer, ...]

    @property
    def channels(self) -> int:
        """How many channels it normalises."""
        return self.parts[0].shape[0]

    @property
    def has_statistics(self) -> bool:
        """Whether it keeps running statistics, as batch norm does."""
        return any(part.name.endswith("running_var") for part in self.parts)


@dataclass(frozen=True, slots=True)
class Attached:
    """Kernel → the vectors that ride along with it; and the norms that belong to none."""

    riders: Mapping[TensorAddress, tuple[Layer, ...]]
    unattached: tuple[Norm, ...]


def attach(ordered: Sequence[Layer], known: Collection[str] = frozenset()) -> Attached:
    """Give each bias and norm to its kernel, or to several where the name cannot tell which.

    `ordered` is the forward order, which can be trusted as to the tensors whose names are `known`:
    those that a checkpoint or a user put into it.
    """
    kernels = [layer for layer in ordered if layer.role is Role.KERNEL]
    riders: dict[TensorAddress, list[Layer]] = {kernel.address: [] for kernel in kernels}
    taken = _attach_biases(ordered, kernels, riders)
    place = {layer.address: number for number, layer in enumerate(ordered)}
    unattached = []
    for norm in norms([layer for layer in ordered if layer.address not in taken]):
        folder = _folder(norm.module)
        fitting = [
            k for k in kernels if k.shape[0] == norm.channels and _folder(k.address) == folder
        ]
        places = [place[part.address] for part in norm.parts if _is_known(part, known)]
        earlier = [k for k in fitting if places and place[k.address] < min(places)]
        owners = [k for k in earlier if _is_known(k, known)][-1:]
        owners = owners or _by_name(norm, fitting) or _by_parent(norm, fitting)
        for owner in owners:
            riders[owner.address] += norm.parts
        if not owners:
            unattached.append(norm)
    return Attached({address: tuple(own) for address, own in riders.items()}, tuple(unattached))


def norms(layers: Sequence[Layer]) -> list[Norm]:
    """Group vectors by the module that they are parameters and statistics of."""
    groups: dict[tuple[str, str], list[Layer]] = {}
    for layer in layers:
        module, _, part = layer.name.rpartition(".")
        if layer.role is Role.VECTOR and part in _NORM_PARTS:
            groups.setdefault((_folder(layer.address), module), []).append(layer)
    return [
        Norm(TensorAddress(parts[0].address.path, module), tuple(parts))
        for (_, module), parts in groups.items()
        # A lone bias is not a norm, and the parts of one norm are equally long.
        if len({part.shape for part in parts}) == 1
        and any(not part.name.endswith("bias") for part in parts)
    ]


def _attach_biases(
    ordered: Sequence[Layer],
    kernels: Sequence[Layer],
    riders: dict[TensorAddress, list[Layer]],
) -> set[TensorAddress]:
    vectors = {
        (_folder(layer.address), layer.name): layer
        for layer in ordered
        if layer.role is Role.VECTOR
    }
    taken = set()
    for kernel in kernels:
        # `weight` → `bias`, also within a name: in_proj_weight, weight_ih_l0.
        head, found, tail = kernel.name.rpartition("weight")
        bias = vectors.get((_folder(kernel.address), f"{head}bias{tail}"))
        if found and bias:
            riders[kernel.address].append(bias)
            taken.add(bias.address)
    return taken


def _is_known(layer: Layer, known: Collection[str]) -> bool:
    return layer.name in known or str(layer.address) in known


def _folder(address: TensorAddress) -> str:
    """The model that a tensor is part of: shards cut one anywhere, folders hold one each."""
    return address.path.rpartition("/")[0]


def _by_name(norm: Norm, fitting: list[Layer]) -> list[Layer]:
    """The kernel before it in a numbered sequence; or its twin: convN ↔ bnN, conv ↔ bn | norm."""
    parent, _, own = norm.module.name.rpartition(".")
    beside = {_own(kernel): kernel for kernel in fitting if _parent(kernel) == parent}
    if own.isdecimal():
        earlier = [
            int(number) for number in beside if number.isdecimal() and int(number) < int(own)
        ]
        return [beside[str(max(earlier))]] if earlier else []
    match = _TWINS.match(own)
    twins = [f"{twin}{match['number']}" for twin in _KERNEL_TWINS] if match else []
    return [beside[twin] for twin in twins if twin in beside]


def _by_parent(norm: Norm, fitting: list[Layer]) -> list[Layer]:
    """Kernels below the norm's parent; on the top floor only one beside it.

    Where several fit, the name does not tell which comes before: it rides with any of them.
    """
    parent = norm.module.name.rpartition(".")[0]
    if parent:
        return [kernel for kernel in fitting if kernel.name.startswith(f"{parent}.")]
    beside = [kernel for kernel in fitting if not _parent(kernel)]
    return beside if len(beside) == 1 else []


def _parent(kernel: Layer) -> str:
    return kernel.name.rpartition(".")[0].rpartition(".")[0]


def _own(kernel: Layer) -> str:
    return kernel.name.rpartition(".")[0].rpartition(".")[2]
